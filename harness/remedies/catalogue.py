"""The remedies: each takes the places of a model and a level, and returns the recipe with its change added.

A remedy that finds no place for itself raises `RemedyNotApplicable` with the reason; a plan shows it as a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from harness.capture import CODE_SITE, ForwardPass, flatten_units
from harness.case import PENALTY_WEIGHT, Case
from harness.errors import HarnessError
from harness.factors import SIGMOID_SITES, Level
from harness.penalties import bernoulli_kl_of_logits, hard_count, l1
from harness.remedies.layout import ModelLayout
from harness.remedies.wrapper import Treatment

DEFAULT_RHO = 0.05
DEFAULT_WEIGHT = 1e-3


class RemedyNotApplicable(HarnessError):
    """Why a remedy cannot be applied to a case."""


def penalty(level: Level, case: Case, places: ModelLayout, recipe: Treatment) -> Treatment:
    """Another penalty in place of the author's, or none; `as_posted` keeps what the author wrote."""
    site = str(level)
    if site == "as_posted":
        return recipe
    if site in SIGMOID_SITES:
        recipe = replace(recipe, activations={**recipe.activations, _code(places, "a sigmoid"): "sigmoid"})
    if site == "topk":
        _code(places, "top-k")
        recipe = replace(recipe, kept=max(1, round((case.rho or DEFAULT_RHO) * places.units)))
    weight = case.penalty_weight or PENALTY_WEIGHT
    numbers = {"rho": DEFAULT_RHO if case.rho is None else case.rho, weight: case.numbers.get(weight, DEFAULT_WEIGHT)}
    return replace(recipe, own_penalty=False, penalty=PENALTIES[site], numbers={**numbers, **recipe.numbers})


def bias_init(level: Level, case: Case, places: ModelLayout, recipe: Treatment) -> Treatment:
    """Every bias of the model starts at zero."""
    return replace(recipe, zero_bias=level == "zero")


def activation(level: Level, case: Case, places: ModelLayout, recipe: Treatment) -> Treatment:
    """Every ReLU of the encoder becomes another activation, the bottleneck's included unless it is a sigmoid."""
    if level == "relu":
        return recipe
    encoder = (*places.hidden, *(() if places.code is None else (places.code,)))
    relus = [position for position in encoder if places.names[position] == "relu"]
    if not relus:
        raise RemedyNotApplicable("activation: the encoder has no ReLU to replace")
    _needs_whole_calls(places, "activation")
    swapped = {position: str(level) for position in relus}
    return replace(recipe, activations={**swapped, **recipe.activations})


def batchnorm(level: Level, case: Case, places: ModelLayout, recipe: Treatment) -> Treatment:
    """BatchNorm1d(affine=False) between the bottleneck's linear map and its activation."""
    if level == "off":
        return recipe
    if places.normalised:
        raise RemedyNotApplicable("batchnorm: the bottleneck is already normalised before its activation")
    return replace(recipe, normalised=_code(places, "a normalisation"))


def dropout(level: Level, case: Case, places: ModelLayout, recipe: Treatment) -> Treatment:
    """Dropout behind the encoder's hidden activations, never on the code."""
    if not places.hidden:
        if level == 0:
            return recipe
        raise RemedyNotApplicable("dropout: the encoder has no hidden activation before the bottleneck")
    _needs_whole_calls(places, "dropout")
    return replace(recipe, dropped=places.hidden, numbers={**recipe.numbers, "dropout": float(level)})


def output_activation(level: Level, case: Case, places: ModelLayout, recipe: Treatment) -> Treatment:
    """Another activation on the reconstruction: relu as posted, linear, or sigmoid for data in [0, 1]."""
    if level == "default":
        return recipe
    if places.reconstruction is None:
        raise RemedyNotApplicable(f"output_activation: {places.no_r2}")
    present = "linear" if places.output is None else places.names[places.output]
    if level == present:
        return recipe
    _needs_whole_calls(places, "output_activation")
    if places.output is None:
        if places.scope != "model":
            raise RemedyNotApplicable(
                "output_activation: the loss calls parts of the model by itself, so nothing can be put on its output"
            )
        return replace(recipe, output=str(level))
    wanted = "none" if level == "linear" else str(level)
    return replace(recipe, activations={**recipe.activations, places.output: wanted})


def inputs(level: Level, case: Case, places: ModelLayout, recipe: Treatment) -> Treatment:
    """The mean of the training inputs is taken from every input, feature by feature."""
    return replace(recipe, centred=level == "centred")


def units(level: Level, case: Case, places: ModelLayout, recipe: Treatment) -> Treatment:
    """Another width of the bottleneck: the factory was given the keyword `units` before the model was looked at."""
    return replace(recipe, units=int(level))


def case_number(name: str, level: Level, recipe: Treatment) -> Treatment:
    """A number of the case, or of its training."""
    if name in TRAINING_NUMBERS:
        return replace(recipe, train={**recipe.train, name: level})
    return replace(recipe, numbers={**recipe.numbers, name: float(level)})


def _code(places: ModelLayout, what: str) -> int:
    """Where the code can be changed: at its activation, or behind its linear map when no activation follows."""
    _needs_whole_calls(places, what)
    if places.code is not None:
        return places.code
    if not places.by_module:
        raise RemedyNotApplicable(
            f"{what} cannot be put behind an output that no activation makes; name the bottleneck's module"
        )
    return CODE_SITE


def _needs_whole_calls(places: ModelLayout, what: str) -> None:
    if places.scope == "unknown":
        raise RemedyNotApplicable(
            f"{what}: the loss calls parts of the model in an order of its own; no call is known to lead to the reconstruction"
        )


def _code_of(seen: ForwardPass) -> Tensor:
    assert seen.code is not None
    return flatten_units(seen.code)


def _preactivation_of(seen: ForwardPass) -> Tensor:
    assert seen.preactivation is not None
    return flatten_units(seen.preactivation)


def _kl_of_code(seen: ForwardPass, numbers: Mapping[str, Any]) -> Tensor:
    """KL on the mean sigmoid of the code in use."""
    return bernoulli_kl_of_logits(numbers["rho"], _code_of(seen))


def _kl_of_preactivation(seen: ForwardPass, numbers: Mapping[str, Any]) -> Tensor:
    """KL on the mean sigmoid of what enters the activation; where that is a sigmoid, on the mean of the code itself."""
    return bernoulli_kl_of_logits(numbers["rho"], _preactivation_of(seen))


PENALTIES: dict[str, tuple[str, Callable[[ForwardPass, Mapping[str, Any]], Tensor] | None]] = {
    "none": ("", None),
    "none_sigmoid_bottleneck": ("", None),
    "topk": ("", None),
    "kl_sigmoid_of_relu": ("kl", _kl_of_code),
    "kl_sigmoid_of_preactivation": ("kl", _kl_of_preactivation),
    "kl_sigmoid_bottleneck": ("kl", _kl_of_preactivation),
    "hard_count": ("hard_count", lambda seen, numbers: hard_count(_code_of(seen))),
    "l1": ("l1", lambda seen, numbers: l1(_code_of(seen))),
}

TRAINING_NUMBERS = ("learning_rate", "batch_size", "epochs")

# in the order in which they are applied: the penalty's sigmoid comes before the activation that would replace it
REMEDIES: dict[str, Callable[[Level, Case, ModelLayout, Treatment], Treatment]] = {
    "units": units,
    "penalty": penalty,
    "activation": activation,
    "batchnorm": batchnorm,
    "dropout": dropout,
    "output_activation": output_activation,
    "bias_init": bias_init,
    "inputs": inputs,
}
