"""Convolutions of a stack as matrix products: faster for small models than torch's own, and the same bits in any stack.

Under `vmap` the members' convolutions become the groups of one, whose kernels depend on how many there are. Here the
samples lie innermost instead, windows are picked by one index, and the weights are the other factor of a product. What
comes out is laid out the same way, so that the next convolution finds its rows where it wants them.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sizes = tuple[int, ...]
MODULES = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def all_products(model: nn.Module) -> bool:
    """Whether all its parameters are factors of matrix products: of two dimensions, or of convolutions taken over."""
    ours = {id(each.weight) for each in model.modules() if isinstance(each, MODULES) and each.groups == 1}
    return all(each.dim() <= 2 or id(each) in ours for each in model.parameters())


def convolution(
    input: Tensor,  # as torch calls it
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """`torch.conv1d` and `torch.conv2d` of `[sample, channel, *size]` or one sample; None for groups."""
    kernel = tuple(weight.shape[2:])
    if groups != 1:
        return None
    if input.dim() == len(kernel) + 1:
        return _one(convolution(input[None], weight, bias, stride, padding, dilation))
    step, spread = _each(stride, kernel), _each(dilation, kernel)
    inner = _padded(input.movedim(0, -1), _paddings(padding, kernel, spread))
    channels, sizes, samples = inner.shape[0], tuple(inner.shape[1:-1]), inner.shape[-1]
    made = tuple((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(sizes, kernel, step, spread, strict=True))
    index = windows(channels, sizes, made, kernel, step, spread, input.device)
    columns = inner.reshape(-1, samples).index_select(0, index).reshape(channels * prod(kernel), -1)
    products = weight.flatten(1) @ columns
    return _outside(products if bias is None else products + bias[:, None], made, samples)


def transposed_convolution(
    input: Tensor,  # as torch calls it
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    """`torch.conv_transpose1d` and `torch.conv_transpose2d`, as `convolution`."""
    kernel = tuple(weight.shape[2:])
    if groups != 1:
        return None
    if input.dim() == len(kernel) + 1:
        return _one(transposed_convolution(input[None], weight, bias, stride, padding, output_padding, 1, dilation))
    step, spread, more = _each(stride, kernel), _each(dilation, kernel), _each(output_padding, kernel)
    channels, counts, samples = weight.shape[1], tuple(input.shape[2:]), input.shape[0]
    sizes = tuple(
        (n - 1) * s + d * (k - 1) + 1 + m for n, s, d, k, m in zip(counts, step, spread, kernel, more, strict=True)
    )
    columns = weight.flatten(1).T @ input.movedim(0, -1).reshape(input.shape[1], -1)
    index = windows(channels, sizes, counts, kernel, step, spread, input.device)
    canvas = columns.new_zeros(channels * prod(sizes), samples).index_add(0, index, columns.reshape(-1, samples))
    made = _padded(canvas.unflatten(0, (channels, *sizes)), [(-p, -p) for p in _each(padding, kernel)])
    sums = made.reshape(channels, -1)
    return _outside(sums if bias is None else sums + bias[:, None], tuple(made.shape[1:-1]), samples)


@lru_cache(maxsize=256)
def windows(
    channels: int, sizes: Sizes, counts: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, device: torch.device
) -> Tensor:
    """Which place of `[channel, *size]` each window has at each of its own, `[channel x kernel x window]`.

    >>> windows(1, (4,), (3,), (2,), (1,), (1,), torch.device("cpu")).view(2, 3).tolist()
    [[0, 1, 2], [1, 2, 3]]
    """
    place = torch.zeros((), dtype=torch.long)
    for axis, (size, count, k, s, d) in enumerate(zip(sizes, counts, kernel, stride, dilation, strict=True)):
        along = torch.arange(k)[:, None] * d + torch.arange(count) * s
        shape = [1] * 2 * len(sizes)
        shape[axis], shape[axis + len(sizes)] = k, count
        place = place * size + along.view(shape)
    start = torch.arange(channels).view(-1, *[1] * place.dim()) * prod(sizes)
    return (start + place).flatten().to(device)


def _paddings(padding: Any, kernel: Sizes, dilation: Sizes) -> list[tuple[int, int]]:
    """What is added before and after each axis."""
    if padding == "same":
        both = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(each // 2, each - each // 2) for each in both]
    return [(each, each) for each in _each(0 if padding == "valid" else padding, kernel)]


def _padded(inner: Tensor, paddings: Sequence[tuple[int, int]]) -> Tensor:
    """`[channel, *size, sample]` with zeros around it, or cut where the paddings are negative."""
    if not any(chain(*paddings)):
        return inner
    return F.pad(inner, (0, 0, *chain(*reversed(paddings))))


def _outside(products: Tensor, sizes: Sizes, samples: int) -> Tensor:
    """`[channel, size x sample]` as `[sample, channel, *size]`, which lies as it lay."""
    return products.unflatten(1, (*sizes, samples)).movedim(-1, 0)


def _each(value: Any, kernel: Sizes) -> Sizes:
    """A setting for every axis of the kernel."""
    given = (value,) if isinstance(value, int) else tuple(value)
    return given * len(kernel) if len(given) == 1 else given


def _one(made: Tensor | None) -> Tensor | None:
    return None if made is None else made[0]


OWN: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    torch.conv1d: convolution,
    torch.conv2d: convolution,
    torch.conv_transpose1d: transposed_convolution,
    torch.conv_transpose2d: transposed_convolution,
}
