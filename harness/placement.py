"""Operations whose rounding depends on the position of a number in memory, computed so that it does not.

The members of a stack lie one behind another in memory, so a member's position depends on the others. Three kinds of
operations on a processor round by position:

- An elementwise operation takes as many numbers at a time as two vector registers hold (up to 64). The rest at the end
  goes through another function, and `sigmoid` or `exp2` of the same number may differ in the last bit.
- A matrix product (and LAPACK) takes another path for a matrix that does not begin at a multiple of 64 bytes.
- A sum over one axis combines numbers that are adjacent along another axis; if these belong to several members, the
  rest at the end depends on the number of members.
"""

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from math import gcd
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
Arguments = tuple[Any, ...]
Compute = Callable[[Any, Arguments, Mapping[str, Any]], Any]

FULL = 64  # numbers that fill two of the widest vector registers: 16-bit floats of AVX-512
LINE = 64  # bytes: of an AVX-512 register, and of a cache line
PLAIN_PRODUCT = 400  # multiplications below which torch computes a product itself, at any position in memory


class PlaceInvariant(TorchDispatchMode):
    """Mode in which a member's results have the same bits at every position in memory; shapes are those of torch."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and to be skipped the compiler would have to be loaded first

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Arguments = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        compute = _own_way(func)
        if compute is None or not all(_is_plain(value) for value in args if isinstance(value, Tensor)):
            return func(*args, **(kwargs or {}))
        return compute(func, args, kwargs or {})


def place_invariant(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under `PlaceInvariant`."""

    def run(*arguments: Any) -> Any:
        with PlaceInvariant():
            return function(*arguments)

    return run


def aligned(values: Tensor) -> Tensor:
    """The same numbers in memory that begins at a multiple of 64 bytes, as memory allocated by torch does.

    NumPy's memory begins at any address, different in each process, and the rounding of a product follows it.

    >>> memory = torch.arange(20.0)
    >>> aligned(memory[1:]).data_ptr() % 64, aligned(memory) is memory
    (0, True)
    """
    return values.clone() if values.data_ptr() % LINE else values


@cache
def _own_way(operation: Any) -> Compute | None:
    """The replacement for an operation; None if torch's own is used."""
    name, tags = operation._schema.name.removeprefix("aten::"), operation.tags
    if torch.Tag.reduction in tags:
        return member_by_member
    if torch.Tag.nondeterministic_seeded in tags or operation._overloadname.endswith(("out", "grad_input")):
        return None
    if torch.Tag.pointwise in tags and name.rstrip("_") in EXACT:
        return elementwise_unless_exact
    if torch.Tag.pointwise in tags or name.rstrip("_") in UNTAGGED:
        return elementwise
    return OWN.get(name)


def elementwise(operation: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Any:
    """An elementwise operation on one line of numbers, filled up to whole registers."""
    operands = [value for value in args if isinstance(value, Tensor) and value.dim()]
    if not any(operand.is_floating_point() or operand.is_complex() for operand in operands):
        return operation(*args, **kwargs)
    shape = torch.broadcast_shapes(*(operand.shape for operand in operands))
    count, first = shape.numel(), operands[0]
    alike = all(operand.shape == shape and operand.stride() == first.stride() for operand in operands)
    axes = _axes(first) if alike else None
    if count == 0 or (axes is not None and count % FULL == 0):
        return operation(*args, **kwargs)
    order = range(len(shape)) if axes is None else axes

    def in_line(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        line = value.expand(shape).permute(*order).reshape(count)
        return aten.constant_pad_nd(line, [0, -count % FULL], 1) if count % FULL else line.contiguous()

    def as_it_was(line: Any) -> Any:
        if not isinstance(line, Tensor) or line.dim() != 1:
            return line
        inverse = sorted(range(len(shape)), key=lambda axis: order[axis])
        return line[:count].view([shape[axis] for axis in order]).permute(inverse)

    result = operation(*map(in_line, args), **kwargs)
    if operation._schema.is_mutable:
        return args[0].copy_(as_it_was(result))
    return tuple(map(as_it_was, result)) if isinstance(result, tuple) else as_it_was(result)


def elementwise_unless_exact(operation: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Any:
    """An operation that is correctly rounded, except with complex numbers or with a second operation inside it."""
    inside = kwargs.get("alpha", 1) != 1 or kwargs.get("rounding_mode")
    if inside or any(isinstance(value, Tensor) and value.is_complex() for value in args):
        return elementwise(operation, args, kwargs)
    return operation(*args, **kwargs)


def member_by_member(operation: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Any:
    """A reduction over memory in which members lie one behind another, not interleaved."""
    values = args[0]
    if any(size > 1 and step > values.stride(0) for size, step in zip(values.shape, values.stride(), strict=True)):
        args = (values.contiguous(), *args[1:])
    return operation(*args, **kwargs)


def product(operation: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Any:
    """A batch of matrix products, of matrices that all begin at multiples of 64 bytes, the results too."""
    left_matrix, right_matrix = args
    rows, columns = left_matrix.shape[1], right_matrix.shape[2]
    if rows * left_matrix.shape[2] * columns < PLAIN_PRODUCT:
        return operation(left_matrix, right_matrix)
    per_line = LINE // left_matrix.element_size()
    padding = -rows % (per_line // gcd(columns, per_line))
    result = operation(_aligned(left_matrix, padding), _aligned(right_matrix))
    return result[:, :rows].contiguous() if padding else result


def member_by_member_call(operation: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Any:
    """A batch of matrices, each of them alone in memory that begins at a multiple of 64 bytes."""
    batches = [value.dim() > 2 for value in args if isinstance(value, Tensor)]
    if not all(batches):
        return operation(*args, **kwargs)
    members = next(len(value) for value in args if isinstance(value, Tensor))
    results = [
        operation(*(value[member].clone() if isinstance(value, Tensor) else value for value in args), **kwargs)
        for member in range(members)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results)
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def copied(operation: Any, args: Arguments, kwargs: Mapping[str, Any]) -> Any:
    """An operation on copies, which begin at multiples of 64 bytes."""
    return operation(*(value.clone() if isinstance(value, Tensor) else value for value in args), **kwargs)


def _is_plain(values: Tensor) -> bool:
    return values.is_cpu and values.layout == torch.strided


def _axes(values: Tensor) -> list[int] | None:
    """The axes in the order of memory; None for a tensor with gaps."""
    steps = values.stride()
    axes = sorted(range(values.dim()), key=lambda axis: steps[axis], reverse=True)
    return axes if values.permute(axes).is_contiguous() else None


def _aligned(matrices: Tensor, padding: int = 0) -> Tensor:
    """`[member, row, column]` with every member's matrix at a multiple of 64 bytes from the first, and rows of zeros."""
    rows, columns = matrices.shape[1:]
    step, down, along = matrices.stride()
    per_line = LINE // matrices.element_size()
    apart = step > (rows - 1) * down + (columns - 1) * along
    if not padding and (step == 0 or (apart and step % per_line == 0)):
        return matrices
    if down < along:
        return _filled(matrices.transpose(1, 2), 0, padding, per_line).transpose(1, 2)
    return _filled(matrices, padding, 0, per_line)


def _filled(matrices: Tensor, below: int, beside: int, per_line: int) -> Tensor:
    """`[member, row, column]` padded with zeros to `below` more rows and `beside` more columns, aligned per member."""
    members, rows, columns = matrices.shape
    gap = -rows % per_line
    if beside:
        copy = aten.constant_pad_nd(matrices, [0, beside, 0, gap])
    else:
        copy = torch.cat([matrices, _zeros(members, gap, columns, matrices.dtype)], dim=1)
    return copy if below == gap else copy[:, : rows + below]


@lru_cache(maxsize=64)
def _zeros(members: int, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(members, rows, columns, dtype=dtype)


# correctly rounded by IEEE 754, or not rounded at all: every implementation gives the same result
EXACT = {
    *("abs", "add", "copysign", "div", "mul", "neg", "positive", "reciprocal", "sqrt", "square", "sub", "true_divide"),
    *("ceil", "clone", "floor", "masked_fill", "nan_to_num", "round", "sgn", "sign", "signbit", "trunc", "where"),
    *("clamp", "clamp_max", "clamp_min", "clip", "fmax", "fmin", "max", "maximum", "min", "minimum"),
    *("eq", "ge", "gt", "heaviside", "isfinite", "isinf", "isnan", "le", "lt", "ne"),
    *("bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor"),
    *("logical_and", "logical_not", "logical_or", "logical_xor"),
    *("hardtanh", "leaky_relu", "relu", "relu6", "threshold", "threshold_backward"),
}

# elementwise, though torch does not say so
UNTAGGED = {
    *("elu_backward", "hardsigmoid_backward", "hardswish", "hardswish_backward", "log_sigmoid_backward"),
    *("log_sigmoid_forward", "mish_backward", "softplus_backward"),
}

# computed by LAPACK, or by torch in a loop over matrices
MATRICES = (
    *("_linalg_det", "_linalg_eigh", "_linalg_eigvals", "_linalg_slogdet", "_linalg_solve_ex", "_linalg_svd"),
    *("linalg_cholesky_ex", "linalg_eig", "linalg_eigvals", "linalg_householder_product", "linalg_inv_ex"),
    *("linalg_ldl_factor_ex", "linalg_ldl_solve", "linalg_lu", "linalg_lu_factor_ex", "linalg_lu_solve"),
    *("linalg_matrix_exp", "linalg_qr", "linalg_solve_triangular", "triangular_solve"),
    *("_cholesky_solve_helper", "_euclidean_dist", "cholesky_inverse"),
)

OWN: dict[str, Compute] = {"bmm": product, "_trilinear": copied, **dict.fromkeys(MATRICES, member_by_member_call)}
