"""Test of a case under `vmap`: two members are trained as a stack and one by one, and compared.

The result depends on the case alone, so a member's numbers do not depend on its stack.
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
from harness.loss_terms import bind_losses, step_values
from harness.models import SIXTEEN_BITS, build_model, precision_for
from harness.training.convolution import all_products
from harness.training.kernels import StackKernels
from harness.training.optimizers import OptimizerSpec, optimizer_spec
from harness.training.schedules import training_steps, why_no_schedule
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine
from harness.user_code import guarded

# stack sizes at which members agree bit for bit are multiples of this: BatchNorm adds in another order at other sizes
STACK_MULTIPLE = 8
# smallest size where all layers are matrix products: a single matrix goes through another kernel than several
SINGLE_SIZE_OF_PRODUCTS = 2
# on a GPU, where fewer matrices are multiplied by another kernel
STACK_MULTIPLE_ON_GPU = 64
# largest number of parameters: larger models fill a core, or a GPU, by themselves
LARGEST_STACKED, LARGEST_STACKED_ON_GPU = 1 << 16, 1 << 20
# largest number of elements in the windows of a batch's convolutions: beyond it torch's own kernels are faster
LARGEST_WINDOWS = 1 << 20


@dataclass(frozen=True)
class VmapSupport:
    """Result of the test: how a case trains.

    Args:
        rule: the optimizer of the stack; None when members train alone.
        fixed: numbers that the loss takes only as plain floats; members that differ in them are in different stacks.
        reason: reason for training alone; empty when members stack.
        shares: False for a model so large that each member is a stack of its own.
        multiple: stack sizes are multiples of this number.
        single: size of the stack of one member: 2 where all layers are matrix products, else `multiple`.
    """

    rule: OptimizerSpec | None
    fixed: frozenset[str]
    reason: str
    shares: bool = True
    multiple: int = STACK_MULTIPLE
    single: int = STACK_MULTIPLE

    def filled(self, members: int) -> int:
        """Return the size to which a stack is padded with copies of its last member.

        >>> VmapSupport(None, frozenset(), "").filled(5), VmapSupport(None, frozenset(), "", single=2).filled(1)
        (8, 2)
        """
        if not self.shares:
            return members
        return self.single if members == 1 else members + -members % self.multiple


def check_vmap_support(case: Case, rows: Tensor, plan: bool = False, targets: Tensor | None = None) -> VmapSupport:
    """Train two members on a few rows, as a stack and one by one, and compare.

    Args:
        case: a treated case.
        rows: training inputs, `[sample, *feature]`, on the device of training.
        plan: True when nothing will be trained: the gradient, for which torch loads sympy (half a second), is left
            out for a model without buffers.
        targets: targets of the rows, for a loss that names `target`.
    """
    if case.fit is not None:
        return VmapSupport(None, frozenset(), "its own fit function trains it")
    model = build_model(case, 0, rows[:4])
    rule = optimizer_spec(case, model)
    stepped = not plan or any(True for _ in model.buffers())
    sizes = _sizes(model, rows)
    if rule is None:
        return VmapSupport(None, frozenset(), "optimizer not supported in stacks (only plain SGD, Adam, AdamW)")
    if precision_for(model, rows) in SIXTEEN_BITS:
        return VmapSupport(None, frozenset(), "16-bit models are trained one by one: stacking would change rounding")
    if any(_hooked(parameter) for parameter in model.parameters()):
        return VmapSupport(None, frozenset(), "its parameters have hooks, which a stack cannot run")
    no_schedule = why_no_schedule(case, rule.rate(case), training_steps(case, len(rows)))
    if no_schedule:
        return VmapSupport(None, frozenset(), no_schedule)
    try:
        with guarded():
            side_effect = _side_effect(bind_losses(case, targets), rows)
    except Exception as error:  # the loss may take batches of the training size only
        side_effect = refused_by_vmap(error)
    if side_effect:
        return VmapSupport(None, frozenset(), side_effect)
    shares = _shares(bind_losses(case, targets), model, rows)
    keywords = frozenset(case.loss_keywords())
    failure = _failure(case, rule, rows, frozenset(), stepped, targets)
    if not failure:
        return VmapSupport(rule, frozenset(), "", shares, *sizes)
    if not keywords or _failure(case, rule, rows, keywords, stepped, targets):
        return VmapSupport(None, frozenset(), failure)
    needed = frozenset(name for name in keywords if _failure(case, rule, rows, keywords - {name}, stepped, targets))
    return VmapSupport(rule, needed, "", shares, *sizes)


def _hooked(parameter: Tensor) -> bool:
    """Return True if a hook changes or reads the gradient of this parameter."""
    return bool(parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None))


def _shares(case: Case, model: torch.nn.Module, rows: Tensor) -> bool:
    """Return True if several such models are faster together than one by one."""
    parameters = list(model.parameters())
    if sum(parameter.numel() for parameter in parameters) > (
        LARGEST_STACKED_ON_GPU if rows.is_cuda else LARGEST_STACKED
    ):
        return False
    if all(parameter.dim() <= 2 for parameter in parameters):
        return True
    with StackKernels() as kernels, torch.random.fork_rng(), warnings.catch_warnings(), suppress(Exception), guarded():
        warnings.simplefilter("ignore")
        case.losses(model.to(precision_for(model, rows)), rows[:4], **_plain_numbers(case))
    return kernels.picked * int(case.training()["batch_size"]) <= LARGEST_WINDOWS * len(rows[:4])


def _plain_numbers(case: Case) -> dict[str, float]:
    return {name: float(value) for name, value in case.loss_arguments(case.numbers).items()}


def _sizes(model: torch.nn.Module, rows: Tensor) -> tuple[int, int]:
    """Return the multiple of stack sizes, and the size of the stack of one member."""
    if rows.is_cuda:
        return STACK_MULTIPLE_ON_GPU, STACK_MULTIPLE_ON_GPU
    products = not any(True for _ in model.buffers()) and all_products(model)
    return STACK_MULTIPLE, SINGLE_SIZE_OF_PRODUCTS if products else STACK_MULTIPLE


def _failure(
    case: Case, rule: OptimizerSpec, rows: Tensor, fixed: frozenset[str], stepped: bool, targets: Tensor | None
) -> str:
    """Return the reason why two members cannot be batched with these numbers as floats; empty when they can."""
    batch = rows[:6].expand(2, *rows[:6].shape)
    target = None if targets is None else targets[:6].to(rows.device).expand(2, *targets[:6].shape)
    extras = step_values(target, step=1, progress=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with guarded():
                expected = SequentialEngine([case, case], [0, 1], rows).totals(batch, extras)
                stack = StackedEngine([case, case], [0, 1], rule, rows, fixed)
                totals = _exercise(stack, batch, stepped, extras)
        except Exception as error:
            return refused_by_vmap(error)
    if torch.allclose(totals, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
        return ""
    return "its loss under vmap differs from the loss of one model"


def refused_by_vmap(error: Exception) -> str:
    r"""Return the reason for training alone after a stack raised this error.

    >>> refused_by_vmap(ValueError("no rows\nat all")), refused_by_vmap(KeyError())
    ('it cannot be batched: ValueError: no rows', 'it cannot be batched: KeyError')
    """
    lines = str(error).strip().splitlines()[:1]
    return ": ".join(["it cannot be batched", type(error).__name__, *(line[:160] for line in lines)])


def is_vmap_error(error: Exception) -> bool:
    """Return True if `vmap` itself raised the error, whatever the members' numbers are."""
    return any(word in str(error) for word in ("vmap", "Batching rule", "functorch"))


def _exercise(stack: StackedEngine, batch: Tensor, stepped: bool, extras: Mapping[str, Any]) -> Tensor:
    """Run everything that training runs on a stack, and return the totals of its first step."""
    totals = stack.step(batch, extras)[0] if stepped else stack.totals(batch, extras)
    stack.losses(batch, extras)
    view = stack.observe(batch[0])
    stack.observe(batch[0], clamp=view.code[:, 0])
    if stepped:
        stack.gradients(batch, extras)
    return totals


def _side_effect(case: Case, rows: Tensor) -> str:
    """Return the reason for training alone if evaluating the loss changes state outside buffers; empty otherwise."""
    model = build_model(case, 0, rows[:4])
    model = model.to(precision_for(model, rows))
    numbers = _plain_numbers(case)
    versions = [(parameter, parameter._version) for parameter in model.parameters()]
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # the user's code may use the global state
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.losses(model, rows[:4], **numbers)
        before = _state(case, model)
        case.losses(model, rows[:4], **numbers)
        after = _state(case, model)
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    if any(parameter._version != version for parameter, version in versions):
        return "its loss or its model changes parameters in place"
    return "its loss keeps state in Python or draws from Python's or NumPy's generator" if before != after else ""


def _state(case: Case, model: torch.nn.Module) -> str:
    visited: set[int] = set()
    own = [{k: v for k, v in vars(module).items() if not k.startswith("_")} for module in model.modules()]
    numpy_state = np.random.get_state()  # noqa: NPY002
    return repr(
        (
            _walk(case.losses, visited, 6),
            [_walk(attributes, visited, 4) for attributes in own],
            random.getstate()[1][-1],
            str(numpy_state),
        )
    )


def _walk(value: Any, visited: set[int], depth: int) -> Any:
    """Return the plain values that can be reached from a value, in comparable form."""
    if isinstance(value, int | float | str | bool | bytes | type(None)):
        return value
    if depth == 0 or id(value) in visited or isinstance(value, type | torch.nn.Module):
        return type(value).__name__
    visited = visited | {id(value)}
    if isinstance(value, Tensor):
        return (tuple(value.shape), float(value.detach().double().sum()) if value.numel() < 10_000 else None)
    if isinstance(value, Mapping):
        return [(str(key), _walk(item, visited, depth - 1)) for key, item in list(value.items())[:200]]
    if isinstance(value, list | tuple | set):
        return [len(value), *(_walk(item, visited, depth - 1) for item in list(value)[:50])]
    if callable(value) and hasattr(value, "__code__"):
        return _walk(_reached(value), visited, depth - 1)
    if hasattr(value, "__dict__"):
        return [type(value).__name__, _walk(vars(value), visited, depth - 1)]
    return (
        repr(value)
        if type(value).__module__ in ("itertools", "collections", "numpy", "random")
        else type(value).__name__
    )


def _reached(function: Callable[..., Any]) -> dict[str, Any]:
    """Return what a function can reach: closure, defaults, globals that it names, bound object."""
    code = function.__code__
    cells = getattr(function, "__closure__", None) or ()
    captured: dict[str, Any] = {}
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            captured[name] = cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            captured[name] = None
    names = getattr(function, "__globals__", {})
    reached = {name: names[name] for name in code.co_names if name in names and not hasattr(names[name], "__path__")}
    bound = getattr(function, "__self__", None)
    return {**reached, **captured, "self": bound, "defaults": function.__defaults__}
