"""Convolutions of a stack as matrix products: faster for small models than torch's own, and the same bits in any stack.

Under `vmap` the members' convolutions become groups of a single convolution, whose kernels depend on the number of
groups. Here the samples are the innermost axis, one index selects the windows, and the weights are the other factor of a
product. The output has the same layout, so the next convolution needs no copy.
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
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def all_products(model: nn.Module) -> bool:
    """Return True if every parameter is a factor of a matrix product: two-dimensional, or of a convolution computed here."""
    ours = {id(module.weight) for module in model.modules() if isinstance(module, CONVOLUTIONS) and module.groups == 1}
    return all(parameter.dim() <= 2 or id(parameter) in ours for parameter in model.parameters())


def convolution(
    input: Tensor,  # as torch calls it
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """Compute `torch.conv1d` or `torch.conv2d` of `[sample, channel, *size]` or a single sample; return None for groups."""
    kernel = tuple(weight.shape[2:])
    if groups != 1:
        return None
    if input.dim() == len(kernel) + 1:
        return _first_sample(convolution(input[None], weight, bias, stride, padding, dilation))
    step, spread = _per_axis(stride, kernel), _per_axis(dilation, kernel)
    inner = _padded(input.movedim(0, -1), _paddings(padding, kernel, spread))
    channels, sizes, samples = inner.shape[0], tuple(inner.shape[1:-1]), inner.shape[-1]
    counts = tuple((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in zip(sizes, kernel, step, spread, strict=True))
    index = windows(channels, sizes, counts, kernel, step, spread, input.device)
    columns = inner.reshape(-1, samples).index_select(0, index).reshape(channels * prod(kernel), -1)
    products = weight.flatten(1) @ columns
    return _samples_first(products if bias is None else products + bias[:, None], counts, samples)


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
    """Compute `torch.conv_transpose1d` or `torch.conv_transpose2d`, as `convolution` does."""
    kernel = tuple(weight.shape[2:])
    if groups != 1:
        return None
    if input.dim() == len(kernel) + 1:
        return _first_sample(
            transposed_convolution(input[None], weight, bias, stride, padding, output_padding, 1, dilation)
        )
    step, spread, extra = _per_axis(stride, kernel), _per_axis(dilation, kernel), _per_axis(output_padding, kernel)
    channels, counts, samples = weight.shape[1], tuple(input.shape[2:]), input.shape[0]
    sizes = tuple(
        (n - 1) * s + d * (k - 1) + 1 + m for n, s, d, k, m in zip(counts, step, spread, kernel, extra, strict=True)
    )
    columns = weight.flatten(1).T @ input.movedim(0, -1).reshape(input.shape[1], -1)
    index = windows(channels, sizes, counts, kernel, step, spread, input.device)
    canvas = columns.new_zeros(channels * prod(sizes), samples).index_add(0, index, columns.reshape(-1, samples))
    cropped = _padded(canvas.unflatten(0, (channels, *sizes)), [(-p, -p) for p in _per_axis(padding, kernel)])
    sums = cropped.reshape(channels, -1)
    return _samples_first(sums if bias is None else sums + bias[:, None], tuple(cropped.shape[1:-1]), samples)


@lru_cache(maxsize=256)
def windows(
    channels: int, sizes: Sizes, counts: Sizes, kernel: Sizes, stride: Sizes, dilation: Sizes, device: torch.device
) -> Tensor:
    """Return the flat index into `[channel, *size]` of each element of each window, `[channel x kernel x window]`.

    >>> windows(1, (4,), (3,), (2,), (1,), (1,), torch.device("cpu")).view(2, 3).tolist()
    [[0, 1, 2], [1, 2, 3]]
    """
    position = torch.zeros((), dtype=torch.long)
    for axis, (size, count, k, s, d) in enumerate(zip(sizes, counts, kernel, stride, dilation, strict=True)):
        along = torch.arange(k)[:, None] * d + torch.arange(count) * s
        shape = [1] * 2 * len(sizes)
        shape[axis], shape[axis + len(sizes)] = k, count
        position = position * size + along.view(shape)
    start = torch.arange(channels).view(-1, *[1] * position.dim()) * prod(sizes)
    return (start + position).flatten().to(device)


def _paddings(padding: Any, kernel: Sizes, dilation: Sizes) -> list[tuple[int, int]]:
    """Return the padding before and after each axis."""
    if padding == "same":
        both = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(width // 2, width - width // 2) for width in both]
    return [(width, width) for width in _per_axis(0 if padding == "valid" else padding, kernel)]


def _padded(inner: Tensor, paddings: Sequence[tuple[int, int]]) -> Tensor:
    """Pad `[channel, *size, sample]` with zeros, or crop it where a padding is negative."""
    if not any(chain(*paddings)):
        return inner
    return F.pad(inner, (0, 0, *chain(*reversed(paddings))))


def _samples_first(products: Tensor, sizes: Sizes, samples: int) -> Tensor:
    """View `[channel, size x sample]` as `[sample, channel, *size]` without a copy."""
    return products.unflatten(1, (*sizes, samples)).movedim(-1, 0)


def _per_axis(value: Any, kernel: Sizes) -> Sizes:
    """Return a setting for every axis of the kernel."""
    sizes = (value,) if isinstance(value, int) else tuple(value)
    return sizes * len(kernel) if len(sizes) == 1 else sizes


def _first_sample(output: Tensor | None) -> Tensor | None:
    return None if output is None else output[0]


OWN: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    torch.conv1d: convolution,
    torch.conv2d: convolution,
    torch.conv_transpose1d: transposed_convolution,
    torch.conv_transpose2d: transposed_convolution,
}
