"""Every factor that an experiment may name, with its levels. Imports no torch, so that plans are instant."""

from collections.abc import Iterable, Mapping
from typing import Any

from harness.errors import HarnessError, did_you_mean
from harness.factors import TRAINED, Factor, Level, number_in, range_of


def known_factors(numbers: Iterable[str] = ()) -> list[str]:
    """The names that an experiment over a case with these `numbers` may use as factors."""
    return [*FACTORS, *(name for name in numbers if name not in FACTORS)]


def check_level(name: str, value: Any, numbers: Iterable[str] = ()) -> Level:
    """The level, if the factor takes it.

    >>> check_level("activation", "leaky_relu")
    'leaky_relu'

    Raises:
        HarnessError: for an unknown factor, an unknown word, or a number outside the range.
    """
    if name not in FACTORS and name not in set(numbers):
        raise HarnessError(did_you_mean("factor", name, known_factors(numbers)))
    factor = FACTORS.get(name, CASE_NUMBER)
    return _word(name, value, factor) if isinstance(value, str) else _number(name, value, factor)


def default_level(name: str, numbers: Mapping[str, float] | None = None, train: Mapping[str, Any] | None = None) -> Any:
    """The level that leaves the case as it is: the factor's own, or what the case's numbers and training say."""
    factor = FACTORS.get(name, CASE_NUMBER)
    if factor.default is not None:
        return factor.default
    return {**(train or {}), **(numbers or {})}.get(name)


def is_number(name: str) -> bool:
    """Whether members that differ in this factor alone can share a stack."""
    return FACTORS.get(name, CASE_NUMBER).stacks


def _word(name: str, value: str, factor: Factor) -> Level:
    allowed = factor.choices or factor.words
    if value not in allowed:
        if not factor.choices:
            raise HarnessError(f"{name}: a number {range_of(factor)} is wanted, {value!r} was given")
        raise HarnessError(did_you_mean(name, value, allowed))
    return value


def _number(name: str, value: Any, factor: Factor) -> Level:
    if factor.choices:
        raise HarnessError(f"{name}: one of {', '.join(factor.choices)} is wanted, {value!r} was given")
    return number_in(factor, value, name)


PENALTY_SITES = (
    "as_posted",
    "none",
    "none_sigmoid_bottleneck",
    "kl_sigmoid_of_relu",
    "kl_sigmoid_of_preactivation",
    "kl_sigmoid_bottleneck",
    "hard_count",
    "l1",
    "topk",
)
SIGMOID_SITES = ("none_sigmoid_bottleneck", "kl_sigmoid_bottleneck")

# a number that only the case knows: any real value, stacked when its loss can take a tensor for it
CASE_NUMBER = Factor(None, low=float("-inf"), stacks=True)

FACTORS: dict[str, Factor] = {
    "penalty": Factor("as_posted", PENALTY_SITES),
    "bias_init": Factor("default", ("default", "zero"), stacks=True),
    "activation": Factor("relu", ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh")),
    "batchnorm": Factor("off", ("off", "on")),
    "dropout": Factor(0.0, high=1.0, open_above=True, stacks=True),
    "output_activation": Factor("default", ("default", "relu", "linear", "sigmoid")),
    "inputs": Factor("as_given", ("as_given", "centred")),
    "units": Factor(None, low=1, high=1e6, whole=True),
    "rho": Factor(None, high=1.0, open_below=True, open_above=True, stacks=True),
    "beta": Factor(None, stacks=True, words=("matched",)),
    **TRAINED,
}
