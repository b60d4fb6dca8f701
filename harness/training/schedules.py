"""Learning-rate schedules of a case: the scheduler of one model, and its rates evaluated before training."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from harness.case import Case
from harness.errors import HarnessError
from harness.minibatches import steps_per_epoch
from harness.user_code import failure, guarded

FIXED_BY_SCHEDULER = ("params", "lr", "initial_lr")
FEW_STEPS = 4  # at which two schedules are compared


def training_steps(case: Case, rows: int) -> int:
    """Return the number of optimizer steps of a training on so many rows."""
    numbers = case.training()
    return int(numbers["epochs"]) * steps_per_epoch(rows, int(numbers["batch_size"]))


def make_scheduler(case: Case, optimizer: Optimizer, steps: int) -> Any:
    """Return the case's scheduler of an optimizer; None for a case without one.

    Raises:
        HarnessError: when the function fails, or returns an object without `step`.
    """
    if case.scheduler is None:
        return None
    try:
        with guarded():
            scheduler = case.scheduler(optimizer, steps)
    except Exception as error:
        raise HarnessError(f"{case.name}: scheduler(optimizer, steps) {failure(error)}") from error
    if not callable(getattr(scheduler, "step", None)):
        raise HarnessError(
            f"{case.name}: scheduler(optimizer, steps): expected a torch.optim.lr_scheduler.LRScheduler,"
            f" got a {type(scheduler).__name__}"
        )
    return scheduler


def advance(case: Case, scheduler: Any) -> None:
    """Take one step of a scheduler.

    Raises:
        HarnessError: when its `step` fails, for example because it needs a loss.
    """
    try:
        with guarded():
            scheduler.step()
    except Exception as error:
        raise HarnessError(f"{case.name}: scheduler.step() {failure(error)}") from error


def learning_rates(case: Case, rate: float, steps: int) -> list[float] | None:
    """Return the learning rate of each step, from the case's scheduler on one unused parameter.

    Args:
        case: a case; without a scheduler the result is None.
        rate: the learning rate before the scheduler changes it.
        steps: optimizer steps of the training.

    Raises:
        HarnessError: when the scheduler cannot run without a model, or changes more than the learning rate.
    """
    if case.scheduler is None:
        return None
    rates: list[float] = []
    for now, has_changed in _simulated(case, rate, steps):
        rates.append(now)
        if has_changed:
            raise HarnessError(f"{case.name}: scheduler: it changes more than the learning rate")
    return rates


def _simulated(case: Case, rate: float, steps: int) -> Iterator[tuple[float, bool]]:
    """Yield the learning rate of each step, and True where the scheduler has changed another option (OneCycleLR: betas)."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter]) if case.optimizer is None else case.optimizer([parameter])
    for group in optimizer.param_groups:
        group["lr"] = rate
    options = _options(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make_scheduler(case, optimizer, steps)
        for _ in range(steps):
            changed = any(_options(optimizer).get(name) != value for name, value in options.items())
            yield float(optimizer.param_groups[0]["lr"]), changed
            advance(case, scheduler)


def sets_rates_itself(case: Case) -> bool:
    """Return True if the case's scheduler gives the same rates whatever the learning rate, as OneCycleLR does.

    >>> from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR
    >>> def case(scheduler): return Case(nn.Identity, lambda: None, lambda model, batch: {}, "0", scheduler=scheduler)
    >>> sets_rates_itself(case(lambda optimizer, steps: OneCycleLR(optimizer, 0.01, steps)))
    True
    >>> sets_rates_itself(case(lambda optimizer, steps: ExponentialLR(optimizer, 0.9))), sets_rates_itself(case(None))
    (False, False)
    """
    if case.scheduler is None:
        return False
    try:
        low, high = ([now for now, _ in _simulated(case, rate, FEW_STEPS)] for rate in (1e-3, 1e-2))
    except Exception:  # it needs the model, or a loss
        return False
    return low == high


def why_no_schedule(case: Case, rate: float, steps: int) -> str:
    """Return the reason why the rates cannot be evaluated before training; empty if they can."""
    try:
        first, second = learning_rates(case, rate, steps), learning_rates(case, rate, steps)
    except HarnessError as error:
        return f"its scheduler cannot be evaluated before training ({str(error).removeprefix(f'{case.name}: ')})"
    except Exception as error:  # the case's optimizer may need the parameters of its model
        return f"its scheduler cannot be evaluated before training ({type(error).__name__})"
    return "" if first == second else "its scheduler draws random numbers or keeps state"


def _options(optimizer: Optimizer) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    return {name: value for name, value in group.items() if name not in FIXED_BY_SCHEDULER}
