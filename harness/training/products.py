"""Products with a matrix that all members share, as one product per member.

Under `vmap` the rows of all members become those of a single matrix, and the rounding of a row may depend on the number
of rows and on its position among them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import _functorch


def separate_factors(
    product: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a product, shared tensors copied per member where the first factor differs by member.

    A first factor that is shared, such as the observed rows, is never merged with others.
    """
    first = next(iter((*args, *kwargs.values())[FIRST_FACTOR[product] :]), None)
    if first is None or not is_member_product(first):
        return args, dict(kwargs)
    true = first.new_ones((), dtype=torch.bool)

    def own(value: Any) -> Any:
        return torch.where(true, value, value) if isinstance(value, Tensor) and not is_member_product(value) else value

    return tuple(map(own, args)), {name: own(value) for name, value in kwargs.items()}


def is_member_product(value: Any) -> bool:
    """Return True if a value under `vmap` is a tensor that differs from member to member."""
    while isinstance(value, Tensor) and _functorch.is_functorch_wrapped_tensor(value):
        if _functorch.is_batchedtensor(value):
            return True
        value = _functorch.get_unwrapped(value)
    return False


# position of the first factor among a product's arguments
FIRST_FACTOR: dict[Callable[..., Any], int] = {
    **dict.fromkeys((F.linear, torch.inner, torch.matmul, torch.mm, torch.mv, torch.tensordot), 0),
    **dict.fromkeys((Tensor.__matmul__, Tensor.inner, Tensor.matmul, Tensor.mm, Tensor.mv), 0),
    **dict.fromkeys((torch.addmm, torch.addmv, Tensor.addmm, Tensor.addmv), 1),
}
