"""Ranges of factors and training numbers, and their checks. Imports no torch, so that plans are fast."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from harness.errors import HarnessError, did_you_mean

Level = str | int | float


@dataclass(frozen=True)
class Factor:
    """Allowed levels of a factor.

    Args:
        default: the level that leaves a case unchanged; None if the case determines it.
        choices: the allowed words; empty for a factor of numbers.
        low, high: the closed or half-open range of its numbers (`high` is excluded where `open_above`).
        integer: True if only integers are allowed.
        stacks: True when members with different levels can share one batched program.
        words: words allowed in addition to numbers.
    """

    default: Level | None
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = float("inf")
    open_below: bool = False
    open_above: bool = False
    integer: bool = False
    stacks: bool = False
    words: tuple[str, ...] = ()


def number_in(factor: Factor, value: Any, where: str) -> int | float:
    """Return the number if it lies in the factor's range; `where` begins the error message.

    >>> number_in(TRAINED["epochs"], 3.0, "train.epochs")
    3

    Raises:
        HarnessError: for a value that is no number or lies outside the range.
    """
    outside = HarnessError(f"{where}: expected a number {range_of(factor)}, got {value!r}")
    if not _is_number(value):
        raise outside
    below = value <= factor.low if factor.open_below else value < factor.low
    above = value >= factor.high if factor.open_above else value > factor.high
    if below or above or value != value or value in (float("inf"), float("-inf")):
        raise outside
    if factor.integer and value != int(value):
        raise HarnessError(f"{where}: expected a whole number, got {value!r}")
    return int(value) if factor.integer else value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def range_of(factor: Factor) -> str:
    """Return the range in words.

    >>> range_of(Factor(None, high=1.0, open_below=True, open_above=True))
    'above 0 to below 1'
    """
    lower = f"{'above' if factor.open_below else 'from'} {factor.low:g}"
    return (
        lower if factor.high == float("inf") else f"{lower} to {'below ' if factor.open_above else ''}{factor.high:g}"
    )


def training_numbers(train: Mapping[str, Any], where: str = "train") -> dict[str, Any]:
    """Return the checked training numbers of a case or an experiment.

    >>> training_numbers({"epochs": 3, "batch_size": 64.0})
    {'epochs': 3, 'batch_size': 64}

    Raises:
        HarnessError: for an unknown key or a value outside its range.
    """
    return {key: _training_number(key, value, where) for key, value in train.items()}


def _training_number(key: str, value: Any, where: str) -> Any:
    if key in TRAINED:
        number = number_in(TRAINED[key], value, f"{where}.{key}")
        return number if TRAINED[key].integer else float(number)
    if key == "snapshot_every":
        if not _is_number(value) or not 0 < value < float("inf"):
            raise HarnessError(f"{where}.{key}: expected a number of epochs above 0, got {value!r}")
        return number_in(Factor(None, integer=True), value, f"{where}.{key}")
    if key == "device":
        if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
            raise HarnessError(f"{where}.{key}: expected auto, cpu, cuda, cuda:0 or mps, got {value!r}")
        return value
    raise HarnessError(f"{where}: {did_you_mean('training number', str(key)[:60], TRAINING)}")


TRAINED: dict[str, Factor] = {
    "learning_rate": Factor(None, open_below=True, stacks=True),
    "batch_size": Factor(None, low=1, integer=True),
    "epochs": Factor(None, low=1, integer=True),
    "warmup": Factor(0.0, high=1.0, stacks=True),  # share of training, or of each cycle
    "warmup_cycles": Factor(1, low=1, high=1000, integer=True, stacks=True),
}
TRAINING = ("epochs", "batch_size", "learning_rate", "snapshot_every", "device", "warmup", "warmup_cycles")


def known_factors(numbers: Iterable[str] = ()) -> list[str]:
    """Return the factors of an experiment over a case with these `numbers`."""
    return [*FACTORS, *(name for name in numbers if name not in FACTORS)]


def check_level(name: str, value: Any, numbers: Iterable[str] = ()) -> Level:
    """Return the level if the factor allows it.

    >>> check_level("activation", "leaky_relu")
    'leaky_relu'

    Raises:
        HarnessError: for an unknown factor, an unknown word, or a number outside the range.
    """
    if name not in FACTORS and name not in set(numbers):
        raise HarnessError(did_you_mean("factor", name, known_factors(numbers)))
    factor = _factor(name, numbers)
    return _word(name, value, factor) if isinstance(value, str) else _number(name, value, factor)


def default_level(name: str, numbers: Mapping[str, float] | None = None, train: Mapping[str, Any] | None = None) -> Any:
    """Return the level that leaves the case unchanged: the factor's default, or the case's own number."""
    factor = _factor(name, numbers or {})
    own = {**(train or {}), **(numbers or {})}
    if factor.default is not None and not (name in TRAINED and name in own):
        return factor.default
    return own.get(name)


def is_number(name: str) -> bool:
    """Return True if members that differ only in this factor can share a stack."""
    return FACTORS.get(name, CASE_NUMBER).stacks


def _factor(name: str, numbers: Iterable[str]) -> Factor:
    """Return the factor of this name; a number of the case's own called `warmup` or `free_bits` has its own range."""
    own = name in OWN_FIRST and name in set(numbers)
    return CASE_NUMBER if own else FACTORS.get(name, CASE_NUMBER)


def _word(name: str, value: str, factor: Factor) -> Level:
    allowed = factor.choices or factor.words
    if value not in allowed:
        if not factor.choices:
            raise HarnessError(f"{name}: expected a number {range_of(factor)}, got {value!r}")
        raise HarnessError(did_you_mean(name, value, allowed))
    return value


def _number(name: str, value: Any, factor: Factor) -> Level:
    if factor.choices:
        raise HarnessError(f"{name}: expected one of {', '.join(factor.choices)}, got {value!r}")
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
OWN_FIRST = ("warmup", "warmup_cycles", "free_bits")  # names that a case may have for a number of its own
SIGMOID_SITES = ("none_sigmoid_bottleneck", "kl_sigmoid_bottleneck")

# a number of the case's own: any real value, stacked if the loss accepts a tensor for it
CASE_NUMBER = Factor(None, low=float("-inf"), stacks=True)

FACTORS: dict[str, Factor] = {
    "penalty": Factor("as_posted", PENALTY_SITES),
    "bias_init": Factor("default", ("default", "zero"), stacks=True),
    "weight_init": Factor("default", ("default", "kaiming", "xavier", "orthogonal"), stacks=True),
    "activation": Factor("relu", ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh")),
    "batchnorm": Factor("off", ("off", "on")),
    "dropout": Factor(0.0, high=1.0, open_above=True, stacks=True),
    "output_activation": Factor("default", ("default", "relu", "linear", "sigmoid")),
    "inputs": Factor("as_given", ("as_given", "centred")),
    "units": Factor(None, low=1, high=1e6, integer=True),
    "rho": Factor(None, high=1.0, open_below=True, open_above=True, stacks=True),
    "beta": Factor(None, stacks=True, words=("matched",)),
    "free_bits": Factor(0.0, stacks=True),  # nats per unit
    "resample": Factor(0, high=1000, integer=True),  # times during training
    "neuron_resampling": Factor(0, high=1000, integer=True),
    "codebook_restart": Factor(0, high=1000, integer=True),
    "auxk": Factor(0.0),  # weight
    "rate_warmup": Factor(0.0, high=1.0),  # share of training
    "gradient_clip": Factor(0.0),  # norm; 0 keeps the case's own
    **TRAINED,
}
