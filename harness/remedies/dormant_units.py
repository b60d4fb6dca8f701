"""Remedies for units and codebook entries that are not in use: resampling during training, and an auxiliary loss."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.capture import ForwardPass, flatten_units, reconstruction_of
from harness.case import Case
from harness.factors import Level
from harness.remedies.layout import ModelLayout
from harness.remedies.not_applicable import RemedyNotApplicable
from harness.remedies.wrapper import TreatedModel, Treatment


def resample(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Give dormant units new incoming weights and outgoing weights of zero, so many times during training.

    Source: Sokar et al. 2023, The dormant neuron phenomenon in deep reinforcement learning, arXiv 2302.12902.
    """
    return _resampled("resample", level, _why_no_units("resample", layout), treatment)


def neuron_resampling(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Point units that never fire at rows which are reconstructed badly, so many times during training.

    Source: Bricken et al. 2023, Towards monosemanticity, appendix "Neuron resampling".
    """
    reason = _why_no_units("neuron_resampling", layout) or _why_no_dictionary("neuron_resampling", layout)
    return _resampled("neuron_resampling", level, reason, treatment)


def codebook_restart(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Move codebook entries that no row uses to random codes, so many times during training.

    Source: Dhariwal et al. 2020, Jukebox, section 3.1, arXiv 2005.00341.
    """
    reason = (
        ""
        if layout.codebook
        else "codebook_restart: the model has no codebook (an nn.Embedding whose entries are the code)"
    )
    return _resampled("codebook_restart", level, reason, treatment)


def auxk(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Let dead units reconstruct the error that the others leave, as a loss of this weight beside the objective.

    Source: Gao et al. 2024, Scaling and evaluating sparse autoencoders, section 2.4, arXiv 2406.04093.
    """
    if level == 0:
        return treatment
    reason = _why_no_units("auxk", layout) or _why_no_dictionary("auxk", layout, rows=False)
    if "target" in case.supplied_keywords():
        reason = reason or "auxk: the loss compares the output with targets, not with the rows"
    if reason or layout.scope != "model":
        raise RemedyNotApplicable(reason or "auxk: the loss calls parts of the model by itself")
    return replace(treatment, auxk=float(level))


def auxk_loss(case: Case, model: TreatedModel, forward: ForwardPass, batch: Tensor) -> Any:
    """Mean squared error of the reconstruction's error by dead units: those that are off on every row of the batch.

    Of the dead units, as many enter as half of the features, those of the largest preactivations in a row. They enter
    by their preactivations: a unit that a ReLU keeps off would have no gradient otherwise.
    """
    assert forward.code is not None
    assert forward.preactivation is not None
    code, before = flatten_units(forward.code), flatten_units(forward.preactivation)
    reconstruction = reconstruction_of(forward.outputs, batch, case.reconstruction)
    assert reconstruction is not None
    dead = (code <= 0).all(dim=-2, keepdim=True)
    count = min(before.shape[-1], max(1, batch.shape[-1] // 2))
    chosen = before.masked_fill(~dead, -torch.inf).topk(count, dim=-1)
    values = chosen.values.masked_fill(chosen.values.isinf(), 0.0)
    sparse = torch.zeros_like(before).scatter(-1, chosen.indices, values)
    error = (batch - reconstruction).detach()
    weight: Any = model.model.get_submodule(model.layout.reader).weight
    return (error - sparse @ weight.T).square().mean() * dead.any()


def _resampled(name: str, level: Level, reason: str, treatment: Treatment) -> Treatment:
    if level == 0:
        return treatment
    if not reason and treatment.resamples:
        reason = f"{name}: {treatment.resampling} resamples too; use one of them"
    if reason:
        raise RemedyNotApplicable(reason)
    return replace(treatment, resamples=int(level), resampling=name)


def _why_no_units(name: str, layout: ModelLayout) -> str:
    if not layout.by_module or layout.channels != layout.units:
        return f"{name}: the code is not the output of a linear layer, `[sample, unit]`"
    if not layout.reader:
        return f"{name}: no linear layer reads the code as it is"
    return "" if layout.linear else f"{name}: the bottleneck is no linear layer with a weight per unit"


def _why_no_dictionary(name: str, layout: ModelLayout, rows: bool = True) -> str:
    """Reason why units have no direction in the rows; `rows` if the bottleneck has to read them too."""
    if not layout.readout:
        return f"{name}: the layer that reads the code does not make the reconstruction"
    return f"{name}: the bottleneck does not read the rows as they are" if rows and not layout.reads_rows else ""
