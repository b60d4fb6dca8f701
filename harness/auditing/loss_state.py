"""State of a loss function outside the model (warm-up counters), and the keywords that depend on the training step."""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from harness.case import Case

PLAIN = (int, float, bool)
MOST_OBJECTS = 32
MOST_ENTRIES = 16  # of a list or dict of counters


@contextmanager
def preserved_loss(losses: Callable[..., Any]) -> Iterator[None]:
    """Restore the counters of a loss when the block ends: attributes, closure variables and module-level numbers."""
    restore = [function for holder in _holders(losses) for function in _restorers(holder)]
    try:
        yield
    finally:
        for function in restore:
            function()


def loss_arguments(case: Case, step: int = 0, steps: int = 1) -> dict[str, Any]:
    """Return the keywords of the loss: numbers of the case, and `step` and `progress` where the loss names them."""
    return case.loss_arguments(schedule_values(step, steps) | dict(case.numbers))


def schedule_values(step: int, steps: int) -> dict[str, float]:
    """Return the values of the keywords that name the training step and the share of training done."""
    return {"step": step, "progress": min(1.0, step / max(1, steps))}


def schedule_keywords(case: Case) -> list[str]:
    """Return the keywords of the loss that name the training step or the share of training done."""
    return [name for name in case.supplied_keywords() if name != "target"]


def loss_numbers(losses: Callable[..., Any]) -> list[str]:
    """Return the counters of a loss in a form that can be compared."""
    numbers = []
    for holder in _holders(losses):
        values = list(getattr(holder, "__dict__", {}).values())
        if isinstance(holder, types.FunctionType):
            values += [*_cell_values(holder), *(value for _, value in _globals(holder))]
        elif isinstance(holder, list | dict):
            values += list(holder) if isinstance(holder, list) else list(holder.values())
        numbers += [repr(value) for value in values if isinstance(value, PLAIN)]
    return numbers


def _holders(losses: Any) -> list[Any]:
    """Return the functions and objects that may hold a counter: the loss, and what it refers to."""
    holders: list[Any] = []
    queue = [losses]
    while queue and len(holders) < MOST_OBJECTS:
        holder = queue.pop(0)
        if any(holder is earlier for earlier in holders) or isinstance(holder, nn.Module | types.ModuleType | type):
            continue
        holders.append(holder)
        if isinstance(holder, functools.partial):
            queue += [holder.func, *holder.args, *holder.keywords.values()]
        elif isinstance(holder, types.MethodType):
            queue += [holder.__func__, holder.__self__]
        elif isinstance(holder, types.FunctionType):
            referred = [*_cell_values(holder), *(value for _, value in _globals(holder))]
            queue += [value for value in referred if _may_hold(value, holder.__module__)]
        elif hasattr(holder, "__dict__"):
            methods = [vars(base).get("__call__") for base in type(holder).__mro__]
            queue += [method for method in methods if isinstance(method, types.FunctionType)]
            queue += [value for value in vars(holder).values() if _may_hold(value, type(holder).__module__)]
    return holders


def _may_hold(value: Any, module: str) -> bool:
    if isinstance(
        value, types.FunctionType | types.MethodType | functools.partial | list | dict | types.SimpleNamespace
    ):
        return True
    return hasattr(value, "__dict__") and type(value).__module__ == module


def _cell_values(function: types.FunctionType) -> list[Any]:
    values = []
    for cell in function.__closure__ or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:  # a variable without a value yet
            continue
    return values


def _globals(function: types.FunctionType) -> list[tuple[str, Any]]:
    names = function.__code__.co_names
    return [(name, function.__globals__[name]) for name in names if name in function.__globals__]


def _restorers(holder: Any) -> list[Callable[[], None]]:
    if isinstance(holder, list | dict):
        return [functools.partial(_refill, holder, holder.copy())] if 0 < len(holder) <= MOST_ENTRIES else []
    restorers: list[Callable[[], None]] = []
    if isinstance(holder, types.FunctionType):
        for cell, value in zip(holder.__closure__ or (), _cell_values(holder), strict=False):
            if isinstance(value, PLAIN):
                restorers.append(functools.partial(setattr, cell, "cell_contents", value))
        for name, value in _globals(holder):
            if isinstance(value, PLAIN):
                restorers.append(functools.partial(holder.__globals__.__setitem__, name, value))
    attributes = getattr(holder, "__dict__", None)
    if isinstance(attributes, dict):
        restorers.append(functools.partial(_refill, attributes, attributes.copy()))
    return restorers


def _refill(container: Any, values: Any) -> None:
    container.clear()
    container.extend(values) if isinstance(container, list) else container.update(values)
