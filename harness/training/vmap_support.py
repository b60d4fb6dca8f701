"""Whether a case can be batched, and which of its numbers can differ within a stack: tried, never guessed.

The answer depends on the case alone, so a member's numbers do not depend on who shares its stack.
"""

import random
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.case import Case
from harness.models import SIXTEEN_BITS, build_model, precision_for
from harness.training.convolution import all_products
from harness.training.kernels import StackKernels
from harness.training.optimizers import OptimizerSpec, optimizer_spec
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine
from harness.user_code import guarded

# members agree bit for bit whatever the stack only at multiples of this: BatchNorm adds in another order at other sizes
FILLED_TO = 8
# and where all layers are matrix products, from two members on: a single matrix goes through another kernel than several
FILLED_TO_OF_PRODUCTS = 2
# and on a GPU, where fewer matrices are multiplied by another kernel; more cost nothing there
FILLED_TO_ON_A_GPU = 64
# parameters: larger models fill a core, or a GPU, by themselves, and several of them would fill the memory
LARGEST_SHARING, LARGEST_SHARING_ON_A_GPU = 1 << 16, 1 << 20
# numbers in the windows of a batch's convolutions: more leave the cache, and torch's own kernels are faster
LARGEST_WINDOWS = 1 << 20


@dataclass(frozen=True)
class VmapSupport:
    """How a case trains.

    Args:
        rule: the optimiser that a stack takes over; None when members train alone.
        fixed: numbers that its loss takes as plain floats only: members that differ in them split.
        reason: why members train alone; empty when they stack.
        shares: False where the model is so large that each member is a stack of its own.
        multiple: of how many members stacks are.
        single: to how many one member is filled: 2 where all layers are matrix products, else to the multiple.
    """

    rule: OptimizerSpec | None
    fixed: frozenset[str]
    reason: str
    shares: bool = True
    multiple: int = FILLED_TO
    single: int = FILLED_TO

    def filled(self, members: int) -> int:
        """The size to which copies of the last member fill a stack, so that its bits are those of any other.

        >>> VmapSupport(None, frozenset(), "").filled(5), VmapSupport(None, frozenset(), "", single=2).filled(1)
        (8, 2)
        """
        if not self.shares:
            return members
        return self.single if members == 1 else members + -members % self.multiple


def check_vmap_support(case: Case, rows: Tensor, plan: bool = False) -> VmapSupport:
    """Try two members on a few rows, as a stack and one by one, and compare.

    Args:
        case: a treated case.
        rows: training inputs, `[sample, *feature]`, on the device on which it will train.
        plan: nothing will be trained now: the gradient, for which torch loads sympy (half a second), is left out
            where the model has no buffers that it could find changed.
    """
    model = build_model(case, 0, rows[:4])
    rule = optimizer_spec(case, model)
    stepped = not plan or any(True for _ in model.buffers())
    sizes = _sizes(model, rows)
    if rule is None:
        return VmapSupport(None, frozenset(), "its optimiser is none that a stack can take over")
    if precision_for(model, rows) in SIXTEEN_BITS:
        return VmapSupport(None, frozenset(), "its 16-bit floats would be rounded at other places in a stack")
    if any(_hooked(each) for each in model.parameters()):
        return VmapSupport(None, frozenset(), "its parameters have hooks, and those of a stack would have none")
    left_behind = _left_behind(case, rows)
    if left_behind:
        return VmapSupport(None, frozenset(), left_behind)
    shares = _shares(case, model, rows)
    keywords = frozenset(case.loss_keywords())
    failure = _failure(case, rule, rows, frozenset(), stepped)
    if not failure:
        return VmapSupport(rule, frozenset(), "", shares, *sizes)
    if not keywords or _failure(case, rule, rows, keywords, stepped):
        return VmapSupport(None, frozenset(), failure)
    needed = frozenset(name for name in keywords if _failure(case, rule, rows, keywords - {name}, stepped))
    return VmapSupport(rule, needed, "", shares, *sizes)


def _hooked(parameter: Tensor) -> bool:
    """Whether the author's code changes a gradient on its way to this parameter, or waits for it."""
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))


def _shares(case: Case, model: torch.nn.Module, rows: Tensor) -> bool:
    """Whether several such models are faster together than one by one."""
    parameters = list(model.parameters())
    if sum(each.numel() for each in parameters) > (LARGEST_SHARING_ON_A_GPU if rows.is_cuda else LARGEST_SHARING):
        return False
    if all(each.dim() <= 2 for each in parameters):
        return True
    with StackKernels() as seen, torch.random.fork_rng(), warnings.catch_warnings(), suppress(Exception), guarded():
        warnings.simplefilter("ignore")
        case.losses(model.to(precision_for(model, rows)), rows[:4], **_plain_numbers(case))
    return seen.picked * int(case.training()["batch_size"]) <= LARGEST_WINDOWS * len(rows[:4])


def _plain_numbers(case: Case) -> dict[str, float]:
    return {name: float(case.numbers[name]) for name in case.loss_keywords()}


def _sizes(model: torch.nn.Module, rows: Tensor) -> tuple[int, int]:
    """The multiple that stacks are filled to, and the size to which one member is."""
    if rows.is_cuda:
        return FILLED_TO_ON_A_GPU, FILLED_TO_ON_A_GPU
    products = not any(True for _ in model.buffers()) and all_products(model)
    return FILLED_TO, FILLED_TO_OF_PRODUCTS if products else FILLED_TO


def _failure(case: Case, rule: OptimizerSpec, rows: Tensor, fixed: frozenset[str], stepped: bool) -> str:
    """Why two members cannot be batched with these numbers as floats; empty when they can."""
    batch = rows[:6].expand(2, *rows[:6].shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = SequentialEngine([case, case], [0, 1], rows).totals(batch)
        try:
            with guarded():
                stack = StackedEngine([case, case], [0, 1], rule, rows, fixed)
                found = _asked_everything(stack, batch, stepped)
        except Exception as error:
            return refused_by_vmap(error)
    if torch.allclose(found, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
        return ""
    return "batched, its loss differs from the loss of one model"


def refused_by_vmap(error: Exception) -> str:
    """Why a member trains alone whose stack raised this.

    >>> refused_by_vmap(ValueError("no rows\\nat all")), refused_by_vmap(KeyError())
    ('it cannot be batched: ValueError: no rows', 'it cannot be batched: KeyError')
    """
    said = str(error).strip().splitlines()[:1]
    return ": ".join(["it cannot be batched", type(error).__name__, *(line[:160] for line in said)])


def is_vmap_error(error: Exception) -> bool:
    """Whether it is `vmap` itself that refused, whatever the members' numbers are."""
    return any(word in str(error) for word in ("vmap", "Batching rule", "functorch"))


def _asked_everything(stack: StackedEngine, batch: Tensor, stepped: bool) -> Tensor:
    """The totals of a step, or of what comes before it, once the stack has done all that will be asked of it."""
    totals = stack.step(batch)[0] if stepped else stack.totals(batch)
    stack.losses(batch)
    seen = stack.observe(batch[0])
    stack.observe(batch[0], held=seen.code[:, 0])
    if stepped:
        stack.gradients(batch)
    return totals


def _left_behind(case: Case, rows: Tensor) -> str:
    """What two evaluations of the loss leave behind where a stack would not look for it; empty for nothing."""
    model = build_model(case, 0, rows[:4])
    model = model.to(precision_for(model, rows))
    numbers = _plain_numbers(case)
    versions = [(each, each._version) for each in model.parameters()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # the user's code may use the global state
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.losses(model, rows[:4], **numbers)
        before = _state(case, model)
        case.losses(model, rows[:4], **numbers)
        after = _state(case, model)
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    if any(each._version != version for each, version in versions):
        return "its loss, or its model as it runs, changes parameters in place"
    return "its loss keeps state in Python, or draws from Python's or NumPy's generator" if before != after else ""


def _state(case: Case, model: torch.nn.Module) -> str:
    seen: set[int] = set()
    own = [{k: v for k, v in vars(each).items() if not k.startswith("_")} for each in model.modules()]
    numpy_state = np.random.get_state()  # noqa: NPY002
    return repr(
        (
            _walk(case.losses, seen, 6),
            [_walk(each, seen, 4) for each in own],
            random.getstate()[1][-1],
            str(numpy_state),
        )
    )


def _walk(value: Any, seen: set[int], depth: int) -> Any:
    """Everything plain that can be reached from a value, as something comparable."""
    if isinstance(value, int | float | str | bool | bytes | type(None)):
        return value
    if depth == 0 or id(value) in seen or isinstance(value, type | torch.nn.Module):
        return type(value).__name__
    seen = seen | {id(value)}
    if isinstance(value, Tensor):
        return (tuple(value.shape), float(value.detach().double().sum()) if value.numel() < 10_000 else None)
    if isinstance(value, Mapping):
        return [(str(key), _walk(each, seen, depth - 1)) for key, each in list(value.items())[:200]]
    if isinstance(value, list | tuple | set):
        return [len(value), *(_walk(each, seen, depth - 1) for each in list(value)[:50])]
    if callable(value) and hasattr(value, "__code__"):
        return _walk(_reached(value), seen, depth - 1)
    if hasattr(value, "__dict__"):
        return [type(value).__name__, _walk(vars(value), seen, depth - 1)]
    return (
        repr(value)
        if type(value).__module__ in ("itertools", "collections", "numpy", "random")
        else type(value).__name__
    )


def _reached(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function can reach: its closure, its defaults, the globals that it names, what it is bound to."""
    code = function.__code__
    cells = getattr(function, "__closure__", None) or ()
    held: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            held[name] = cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            held[name] = None
    names = getattr(function, "__globals__", {})
    reached = {name: names[name] for name in code.co_names if name in names and not hasattr(names[name], "__path__")}
    bound = getattr(function, "__self__", None)
    return {**reached, **held, "self": bound, "defaults": function.__defaults__}
