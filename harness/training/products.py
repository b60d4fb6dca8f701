"""Products with a matrix that all members share, as one product a member.

Under `vmap` the rows of all members become those of one matrix, and how a row of it is rounded may depend on how many
there are and on where it stands among them.
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
    """The arguments of a product, with a copy a member of what all members share, where its first factor is a member's.

    A first factor that is shared, as the rows that are observed, is never laid together with others.
    """
    first = next(iter((*args, *kwargs.values())[FIRST_FACTOR[product] :]), None)
    if first is None or not is_member_product(first):
        return args, dict(kwargs)
    one = first.new_ones((), dtype=torch.bool)

    def own(value: Any) -> Any:
        return torch.where(one, value, value) if isinstance(value, Tensor) and not is_member_product(value) else value

    return tuple(map(own, args)), {name: own(value) for name, value in kwargs.items()}


def is_member_product(value: Any) -> bool:
    """Whether a value below `vmap` is a tensor that differs from member to member."""
    while isinstance(value, Tensor) and _functorch.is_functorch_wrapped_tensor(value):
        if _functorch.is_batchedtensor(value):
            return True
        value = _functorch.get_unwrapped(value)
    return False


# where among a product's arguments its first factor is
FIRST_FACTOR: dict[Callable[..., Any], int] = {
    **dict.fromkeys((F.linear, torch.inner, torch.matmul, torch.mm, torch.mv, torch.tensordot), 0),
    **dict.fromkeys((Tensor.__matmul__, Tensor.inner, Tensor.matmul, Tensor.mm, Tensor.mv), 0),
    **dict.fromkeys((torch.addmm, torch.addmv, Tensor.addmm, Tensor.addmv), 1),
}
