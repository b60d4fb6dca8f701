"""Torch calls that write to an argument, their out-of-place twins, and tensors that share memory."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class WriteCall(NamedTuple):
    """A torch call with its arguments."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def written_to(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the tensor that a call writes to; None for a call that writes to no argument.

    >>> values = torch.zeros(2)
    >>> written_to(F.relu, (values,), {"inplace": True}) is values, written_to(F.relu, (values,), {"inplace": False})
    (True, None)
    """
    out = kwargs.get("out")
    if isinstance(out, Tensor):
        return out
    name = getattr(func, "__name__", "")
    if kwargs.get("inplace") or name in ASSIGNMENTS or (name.endswith("_") and not name.endswith("__")):
        target = args[0] if args else kwargs.get("input")
        return target if isinstance(target, Tensor) and func not in HARMLESS else None
    return None


def twin(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> WriteCall | None:
    """Return the out-of-place call with the same result, or None.

    An ELU is its own twin and is called on a copy: torch rounds the gradients of its two forms differently.

    >>> twin(torch.relu_, (torch.zeros(2),), {}).func is torch.relu
    True
    """
    if func in ELUS:
        return WriteCall(func, args, dict(kwargs))
    if kwargs.get("inplace"):
        return WriteCall(func, args, {**kwargs, "inplace": False})
    if isinstance(kwargs.get("out"), Tensor):
        return WriteCall(func, args, {name: value for name, value in kwargs.items() if name != "out"})
    if func is Tensor.__setitem__ and _is_mask(args[1], args[0]) and isinstance(args[2], int | float):
        return WriteCall(Tensor.masked_fill, args, {})  # values[values < 0] = 0
    if func is Tensor.copy_ and isinstance(args[1], Tensor) and args[1].shape == args[0].shape:
        return WriteCall(Tensor.clone, args[1:2], {})
    out_of_place = TWINS.get(func)
    return None if out_of_place is None else WriteCall(out_of_place, args, dict(kwargs))


def _is_mask(index: Any, values: Tensor) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool and index.shape == values.shape


class TensorCopies:
    """Copies, made on demand, of a tensor that is about to be written to and of all tensors that share its memory.

    >>> values = torch.zeros(2)
    >>> aside = TensorCopies(values)
    >>> aside(values) is aside(values), aside(values) is values, aside(3)
    (True, False, 3)
    """

    def __init__(self, target: Tensor) -> None:
        self.target = target
        self.version = version_of(target)
        self._memory = numbers_of(target)
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}

    def shares(self, tensor: Tensor) -> bool:
        """Return True where writing to the target can change this tensor."""
        return numbers_of(tensor) == self._memory

    def __call__(self, value: Any) -> Any:
        """Return the copy of a tensor in the target's memory; any other object unchanged."""
        if not isinstance(value, Tensor) or not self.shares(value):
            return value
        if id(value) not in self._copies:
            self._copies[id(value)] = value, value.clone()
        return self._copies[id(value)][1]

    def pairs(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Return pairs of a copied tensor and its copy."""
        return self._copies.values()


def version_of(tensor: Tensor) -> int:
    """Number of writes to a tensor; -1 for an inference tensor, which does not count them."""
    return -1 if tensor.is_inference() else tensor._version


def numbers_of(tensor: Tensor) -> int:
    """Identity of the memory that holds a tensor's numbers: a view has that of its base, also under `vmap`.

    >>> values = torch.zeros(2, 3)
    >>> numbers_of(values) == numbers_of(values.T), numbers_of(values) == numbers_of(values.clone())
    (True, False)
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a tensor without storage, such as a sparse one
        return id(tensor)


def same_layout(first: Tensor, second: Tensor) -> bool:
    """Return True where two tensors in one memory hold the same numbers in the same order, in any shape.

    >>> values = torch.zeros(2, 3)
    >>> same_layout(values, values.flatten()), same_layout(values, values.T), same_layout(values, values[:1])
    (True, False, False)
    """
    same_range = first.numel() == second.numel() and first.storage_offset() == second.storage_offset()
    return same_range and first.is_contiguous() and second.is_contiguous()


def _twins() -> dict[Callable[..., Any], Callable[..., Any]]:
    twins: dict[Callable[..., Any], Callable[..., Any]] = {}
    for home in (Tensor, torch, F):
        for name in WITH_A_TWIN:
            writes, makes = getattr(home, f"{name}_", None), getattr(home, name, None)
            if writes is not None and makes is not None:
                twins.setdefault(writes, makes)  # F.relu_ is torch.relu_
    return twins


ASSIGNMENTS = {"__setitem__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"}
ELUS = {F.elu, F.elu_, F.selu, torch.selu_, F.celu, torch.celu_}
HARMLESS = {Tensor.requires_grad_, Tensor.share_memory_}

# names with an in-place twin `name_` that takes the same arguments and writes to the first
WITH_A_TWIN = (
    *("relu", "leaky_relu", "rrelu", "elu", "selu", "celu", "threshold", "hardtanh", "clamp", "clip", "clamp_min"),
    *("clamp_max", "sigmoid", "tanh", "exp", "abs", "sqrt", "square", "neg", "round", "floor", "sign", "pow"),
    *("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "masked_fill", "masked_scatter"),
    *("scatter", "scatter_add", "index_add", "index_fill", "nan_to_num", "lerp", "addcmul", "fill"),
)
TWINS = _twins()
