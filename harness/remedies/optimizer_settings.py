"""Remedies of the optimizer: a learning rate that rises from zero, and a largest gradient."""

from dataclasses import replace
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from harness.case import Case
from harness.factors import Level
from harness.remedies.layout import ModelLayout
from harness.remedies.not_applicable import RemedyNotApplicable
from harness.remedies.wrapper import Treatment


class RateWarmup:
    """Scheduler of a case whose learning rate rises linearly from zero; a class, so that a case can be pickled.

    Source: Goyal et al. 2017, Accurate, large minibatch SGD, section 2.2.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, optimizer: Optimizer, steps: int) -> Any:
        """Return the scheduler: the rate of the last step of the rise is the full one."""
        rise = max(1.0, self.share * steps)
        return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rise))


def rate_warmup(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Let the learning rate rise linearly from zero over this share of training."""
    if level == 0:
        return treatment
    if case.scheduler is not None:
        raise RemedyNotApplicable("rate_warmup: the case has a scheduler of its own")
    return replace(treatment, rate_warmup=float(level))


def gradient_clip(level: Level, case: Case, layout: ModelLayout, treatment: Treatment) -> Treatment:
    """Scale gradients with a norm above this level down to it; 0 keeps the case's own `clip`.

    Source: Pascanu et al. 2013, On the difficulty of training recurrent neural networks.
    """
    return treatment if level == 0 else replace(treatment, clip=float(level))


def with_schedules(case: Case, treatment: Treatment) -> Case:
    """Return the case with the treatment's scheduler and largest gradient."""
    if treatment.rate_warmup:
        case = replace(case, scheduler=RateWarmup(treatment.rate_warmup))
    return case if treatment.clip is None else replace(case, clip=treatment.clip)
