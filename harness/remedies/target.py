"""The mean activation against which the units of a case are judged."""

from torch import Tensor

from harness.case import Case
from harness.remedies.apply import TreatedLosses


def judged_target(case: Case) -> float | None:
    """Target activation of the penalty that a case trains with, treated or not; None where its penalty has none.

    A penalty of the harness's own has `rho` where it is a KL, and no target otherwise (no penalty, L1, a count, top-k).
    The author's penalty has the declared `target`, or the number `rho` of the case.
    """
    losses, target = case.losses, case.rho
    if isinstance(losses, TreatedLosses) and not losses.recipe.own_penalty:
        target = case.numbers["rho"] if losses.recipe.has_target else None
    return float(target) if isinstance(target, Tensor) else target
