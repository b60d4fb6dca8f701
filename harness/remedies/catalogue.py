"""Remedies: functions of a level, a case, the layout of its model and a treatment, which return a changed treatment.

A remedy that does not apply to a model raises `RemedyNotApplicable` with the reason, which a plan lists.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from harness.capture import CODE_SITE, ForwardPass, flatten_units
from harness.case import Case
from harness.factors import SIGMOID_SITES, Level
from harness.penalties import bernoulli_kl_of_logits, hard_count, l1
from harness.remedies.dormant_units import auxk, codebook_restart, neuron_resampling, resample
from harness.remedies.free_bits import with_floor
from harness.remedies.layout import ModelLayout
from harness.remedies.not_applicable import RemedyNotApplicable
from harness.remedies.optimizer_settings import gradient_clip, rate_warmup
from harness.remedies.wrapper import Treatment

DEFAULT_RHO = 0.05
DEFAULT_WEIGHT = 1e-3


def penalty(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Replace the author's penalties by another one or by none; `as_posted` keeps them."""
    site = str(level)
    if site == "as_posted":
        return treatment
    if site in SIGMOID_SITES:
        treatment = replace(treatment, activations={**treatment.activations, _code(layout, "a sigmoid"): "sigmoid"})
    if site == "topk":
        _code(layout, "top-k")
        treatment = replace(treatment, top_k=max(1, round((case.rho or DEFAULT_RHO) * layout.units)))
    weight = case.weight_name
    numbers = {"rho": DEFAULT_RHO if case.rho is None else case.rho, weight: case.numbers.get(weight, DEFAULT_WEIGHT)}
    return replace(treatment, own_penalty=False, penalty=PENALTIES[site], numbers={**numbers, **treatment.numbers})


def bias_init(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Start every bias of the model at zero."""
    return replace(treatment, zero_bias=level == "zero")


def weight_init(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Draw the initial weights of every linear map and convolution from a named distribution."""
    return replace(treatment, weights=str(level))


def activation(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Replace every ReLU of the encoder, the bottleneck's included, by another activation."""
    if level == "relu":
        return treatment
    encoder = (*layout.hidden, *(() if layout.code is None else (layout.code,)))
    relus = [position for position in encoder if layout.names[position] == "relu"]
    if not relus:
        raise RemedyNotApplicable("activation: the encoder has no ReLU to replace")
    _needs_whole_calls(layout, "activation")
    swapped = {position: str(level) for position in relus}
    return replace(treatment, activations={**swapped, **treatment.activations})


def batchnorm(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Insert BatchNorm1d(affine=False) between the bottleneck's linear map and its activation."""
    if level == "off":
        return treatment
    if layout.normalized:
        raise RemedyNotApplicable("batchnorm: the bottleneck is already normalized before its activation")
    return replace(treatment, normalized=_code(layout, "a normalization"))


def dropout(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Insert dropout after the encoder's hidden activations, never on the code."""
    if not layout.hidden:
        if level == 0:
            return treatment
        raise RemedyNotApplicable("dropout: the encoder has no hidden activation before the bottleneck")
    _needs_whole_calls(layout, "dropout")
    return replace(treatment, dropped=layout.hidden, numbers={**treatment.numbers, "dropout": float(level)})


def output_activation(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Replace the activation of the reconstruction: relu as posted, linear, or sigmoid for data in [0, 1]."""
    if level == "default":
        return treatment
    if layout.reconstruction is None:
        raise RemedyNotApplicable(f"output_activation: {layout.no_r2}")
    present = "linear" if layout.output is None else layout.names[layout.output]
    if level == present:
        return treatment
    _needs_whole_calls(layout, "output_activation")
    if layout.output is None:
        if layout.scope != "model":
            raise RemedyNotApplicable(
                "output_activation: the loss calls parts of the model by itself, so its output cannot be changed"
            )
        return replace(treatment, output=str(level))
    activation_name = "none" if level == "linear" else str(level)
    return replace(treatment, activations={**treatment.activations, layout.output: activation_name})


def inputs(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Subtract the mean of the training inputs from every input, feature by feature."""
    return replace(treatment, centered=level == "centred")


def units(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Set the width of the bottleneck; the factory receives the keyword `units` before the model is inspected."""
    return replace(treatment, units=int(level))


def free_bits(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Give the KL divergence of each unit a floor, in nats: a unit below it has no gradient from the penalty.

    Source: Kingma et al. 2016, Improved variational inference with inverse autoregressive flow, appendix C.
    """
    reason = ""
    if treatment.own_penalty and case.posterior is None:
        reason = "the KL divergence of a unit is known only with Case.posterior or a KL penalty of the harness"
    elif treatment.own_penalty and layout.scope == "unknown":
        reason = "the loss calls parts of the model in its own order; no call is known to lead to the reconstruction"
    elif not treatment.own_penalty and treatment.penalty[0] != "kl":
        reason = f"the penalty {treatment.penalty[0] or 'none'} has no KL divergence per unit"
    if not reason:
        return replace(treatment, floor=True, numbers={**treatment.numbers, "free_bits": float(level)})
    if level == 0:
        return treatment
    raise RemedyNotApplicable(f"free_bits: {reason}")


def case_number(name: str, level: Level, treatment: Treatment, own: bool = False) -> Treatment:
    """Set a number of the case or of its training; `own` for a number that the case itself names."""
    if name in TRAINING_NUMBERS and not own:
        return replace(treatment, train={**treatment.train, name: level})
    return replace(treatment, numbers={**treatment.numbers, name: float(level)})


def _code(layout: ModelLayout, what: str) -> int:
    """Return the position at which the code can be changed: its activation, or its linear map if no activation follows."""
    _needs_whole_calls(layout, what)
    if layout.code is not None:
        return layout.code
    if not layout.by_module:
        raise RemedyNotApplicable(f"{what} cannot follow an output without an activation; name the bottleneck's module")
    return CODE_SITE


def _needs_whole_calls(layout: ModelLayout, what: str) -> None:
    if layout.scope == "unknown":
        raise RemedyNotApplicable(
            f"{what}: the loss calls parts of the model in its own order; no call is known to lead to the reconstruction"
        )


def _code_of(forward: ForwardPass) -> Tensor:
    assert forward.code is not None
    return flatten_units(forward.code)


def _preactivation_of(forward: ForwardPass) -> Tensor:
    assert forward.preactivation is not None
    return flatten_units(forward.preactivation)


def _kl_of_code(forward: ForwardPass, numbers: Mapping[str, Any]) -> Tensor:
    """KL on the mean sigmoid of the code in use."""
    return _kl(_code_of(forward), numbers)


def _kl_of_preactivation(forward: ForwardPass, numbers: Mapping[str, Any]) -> Tensor:
    """KL on the mean sigmoid of the preactivation; with a sigmoid activation, on the mean of the code itself."""
    return _kl(_preactivation_of(forward), numbers)


def _kl(logits: Tensor, numbers: Mapping[str, Any]) -> Tensor:
    """KL on the mean sigmoid of logits `[sample, unit]`; with `free_bits`, each unit's divergence has that floor."""
    if "free_bits" not in numbers:
        return bernoulli_kl_of_logits(numbers["rho"], logits)
    per_unit = bernoulli_kl_of_logits(numbers["rho"], logits.T[..., None])
    return with_floor(per_unit, numbers["free_bits"]).sum()


PENALTIES: dict[str, tuple[str, Callable[[ForwardPass, Mapping[str, Any]], Tensor] | None]] = {
    "none": ("", None),
    "none_sigmoid_bottleneck": ("", None),
    "topk": ("", None),
    "kl_sigmoid_of_relu": ("kl", _kl_of_code),
    "kl_sigmoid_of_preactivation": ("kl", _kl_of_preactivation),
    "kl_sigmoid_bottleneck": ("kl", _kl_of_preactivation),
    "hard_count": ("hard_count", lambda forward, numbers: hard_count(_code_of(forward))),
    "l1": ("l1", lambda forward, numbers: l1(_code_of(forward))),
}

TRAINING_NUMBERS = ("learning_rate", "batch_size", "epochs", "warmup", "warmup_cycles")

# in order of application: the penalty's sigmoid comes before the activation that would replace it
REMEDIES: dict[str, Callable[[Level, Case, ModelLayout, Treatment], Treatment]] = {
    "units": units,
    "penalty": penalty,
    "activation": activation,
    "batchnorm": batchnorm,
    "dropout": dropout,
    "output_activation": output_activation,
    "free_bits": free_bits,
    "weight_init": weight_init,
    "bias_init": bias_init,
    "resample": resample,
    "neuron_resampling": neuron_resampling,
    "codebook_restart": codebook_restart,
    "auxk": auxk,
    "rate_warmup": rate_warmup,
    "gradient_clip": gradient_clip,
    "inputs": inputs,
}
