"""Resampling of dormant units as a remedy."""

from dataclasses import replace

from harness.case import Case
from harness.factors import Level
from harness.remedies.layout import ModelLayout
from harness.remedies.not_applicable import RemedyNotApplicable
from harness.remedies.wrapper import Treatment


def resample(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Give dormant units new incoming weights and outgoing weights of zero, so many times during training.

    Source: Sokar et al. 2023, The dormant neuron phenomenon in deep reinforcement learning, arXiv 2302.12902.
    """
    if level == 0:
        return treatment
    if not layout.by_module or layout.channels != layout.units:
        raise RemedyNotApplicable("resample: the code is not the output of a linear layer, `[sample, unit]`")
    if not layout.reader:
        raise RemedyNotApplicable("resample: no linear layer reads the code as it is")
    if not layout.linear:
        raise RemedyNotApplicable("resample: the bottleneck is no linear layer with a weight per unit")
    return replace(treatment, resamples=int(level))
