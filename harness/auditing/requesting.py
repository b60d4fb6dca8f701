"""What must hold of a case before anything is asked about it: what could never be trained is refused in one sentence."""

import math
from numbers import Real

from torch import nn
from torch.optim import Optimizer

from harness.case import Case
from harness.errors import HarnessError
from harness.user_code import failure, guarded


def check_target(case: Case) -> None:
    """Refuse a target that is no number.

    Raises:
        HarnessError: for it.
    """
    target = case.target
    number = isinstance(target, Real) and not isinstance(target, bool)
    if target is not None and not (number and math.isfinite(target)):
        raise HarnessError(f"{case.name}: target: a number or None is wanted, {target!r} was given")


def build_optimizer(case: Case, model: nn.Module) -> Optimizer | None:
    """The case's own optimizer over the model's parameters; None where it leaves that to the harness.

    Raises:
        HarnessError: when it fails, or makes something else.
    """
    if case.optimizer is None:
        return None
    try:
        with guarded():
            made = case.optimizer(list(model.parameters()))
    except Exception as error:
        raise HarnessError(f"{case.name}: optimizer(parameters) {failure(error)}") from error
    if not isinstance(made, Optimizer):
        raise HarnessError(
            f"{case.name}: optimizer(parameters) returned {made!r}; a torch.optim.Optimizer is wanted,"
            " such as `optimizer=lambda parameters: Adam(parameters)`"
        )
    return made
