"""What a loss or a model may be written with, function by function, with its gradients: the same bits in any stack?

Copies of one member are computed in stacks of several sizes, under what a stack computes under, and compared with each
other. Run as a script, it prints as JSON what differs, and the instruction set that torch uses:

    python tests/training/functions.py [NAME ...]
"""

import json
import sys
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from harness.placement import place_invariant
from harness.training.functional_grad import gradient_and_value
from harness.training.kernels import StackKernels

SIZES = (2, 8, 24, 40, 64)
SIZES_OF_NORMALISATION = (8, 24, 40, 64)  # which adds in another order where its channels are no multiple of 8
SHAPES = (
    (1, 1),
    (1, 3),
    (2, 3),
    (5, 4),
    (7, 7),
    (15, 1),
    (16, 5),
    (33, 3),
    (34, 3),
    (45, 11),
    (64, 4),
    (70, 33),
    (100, 7),
)
FIXED = torch.randn(512, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

Function = Callable[[Tensor, Tensor, Tensor], Tensor]  # of rows, weights, and what all members share


def differing(function: Function, rows: int, units: int, sizes: tuple[int, ...], dtype: torch.dtype) -> list[str]:
    """In which of value, total and gradients members differ, and in stacks of which size."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(rows, units, generator=generator, dtype=dtype)
    weights = torch.randn(128, 16, generator=generator, dtype=dtype)
    fixed = FIXED.to(dtype)

    def total(member: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        made = function(member["rows"], member["weights"], fixed)
        return (made * torch.linspace(0.3, 1.7, made.numel(), dtype=made.dtype).view(made.shape)).sum(), made

    def both(member: dict[str, Tensor]) -> dict[str, Tensor]:
        with StackKernels():
            slopes, (sum_of_all, made) = gradient_and_value(total)(member)
        return {"value": made, "total": sum_of_all, **slopes}

    expected: dict[str, Tensor] = {}
    differences = []
    for size in sizes:
        copies = {"rows": values.expand(size, rows, units), "weights": weights.expand(size, 128, 16)}
        shown = place_invariant(vmap(both))({name: value.contiguous() for name, value in copies.items()})
        for name, value in shown.items():
            first = expected.setdefault(name, value[:1])
            if not torch.isclose(value, first, rtol=0, atol=0, equal_nan=True).all():
                differences.append(f"{name} of {rows} x {units} in a stack of {size}, {dtype}")
    return differences


def violations(name: str) -> Iterator[str]:
    """What differs, at every shape at which the function is defined."""
    sizes = SIZES_OF_NORMALISATION if name.startswith("batch norm") else SIZES
    for dtype in (torch.float32, torch.float64):
        for rows, units in SHAPES:
            if rows > 1 or not name.endswith("norm"):
                yield from differing(FUNCTIONS[name], rows, units, sizes, dtype)


def covariance(x: Tensor) -> Tensor:
    return x.T @ x + torch.eye(x.shape[1], dtype=x.dtype)


def beside(x: Tensor, w: Tensor, count: int) -> Tensor:
    """`[sample, unit, count]`."""
    return x[:, :, None] * w[0, :count]


def image(x: Tensor, w: Tensor) -> Tensor:
    """`[sample, 1, unit, 6]`."""
    return x[:, None, :, None] * w[:1, :6]


FUNCTIONS: dict[str, Function] = {
    "absolute power": lambda x, w, c: x.abs() ** 2.5,
    "adaptive pooling": lambda x, w, c: F.adaptive_avg_pool1d(x[:, None], 3),
    "atan2": lambda x, w, c: torch.atan2(x, w[:1, :1]),
    "attention": lambda x, w, c: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    "batch norm": lambda x, w, c: F.batch_norm(x, None, None, training=True),
    "batch norm of images": lambda x, w, c: F.batch_norm(
        image(x, w).movedim(1, 2), x[0].detach(), x[0].detach().square()
    ),
    "bilinear layer": lambda x, w, c: F.bilinear(x, x, w.flatten()[: x.shape[1]].expand(3, x.shape[1], -1)),
    "binary cross entropy": lambda x, w, c: F.binary_cross_entropy(x.sigmoid(), x.flip(0).sigmoid()),
    "binary cross entropy of logits": lambda x, w, c: F.binary_cross_entropy_with_logits(x, x.flip(0).sigmoid()),
    "cholesky": lambda x, w, c: torch.linalg.cholesky(covariance(x)),
    "convolution": lambda x, w, c: F.conv2d(image(x, w), w[:5, :3].reshape(5, 1, 1, 3), padding=(0, 1)),
    "convolution in groups": lambda x, w, c: F.conv1d(
        beside(x, w, 6), w[: x.shape[1], :3].reshape(-1, 1, 3), groups=x.shape[1]
    ),
    "convolution of volumes": lambda x, w, c: F.conv3d(image(x, w)[..., None], w[:3, :3].reshape(3, 1, 1, 3, 1)),
    "correlation": lambda x, w, c: torch.corrcoef(x.T),
    "cosine": lambda x, w, c: F.cosine_similarity(x, x.flip(0)),
    "cross entropy": lambda x, w, c: F.cross_entropy(x, torch.zeros(len(x), dtype=torch.long)),
    "cumulative": lambda x, w, c: x.cumsum(0) + x.logcumsumexp(0),
    "determinant": lambda x, w, c: torch.linalg.slogdet(covariance(x)).logabsdet,
    "distances": lambda x, w, c: torch.cdist(x, x + 1),
    "einsum": lambda x, w, c: torch.einsum("su,sv->uv", x, x),
    "einsum with shared": lambda x, w, c: torch.einsum("su,uv->sv", x, c[: x.shape[1], :7]),
    "elu": lambda x, w, c: F.elu(x),
    "embedding": lambda x, w, c: F.embedding(torch.arange(len(x)) % 3, w)[:, :1] * x,
    "exponential of a scalar": lambda x, w, c: x * w[0, 0].exp(),
    "first of each": lambda x, w, c: torch.stack([row @ w[: x.shape[1]] for row in x.unbind(0)[:5]]),
    "fourier": lambda x, w, c: torch.fft.rfft(x, dim=0).abs(),
    "gaussian likelihood": lambda x, w, c: 0.5 * (x.square() / F.softplus(w[0, :1]) + F.softplus(w[0, :1]).log()),
    "gelu": lambda x, w, c: F.gelu(x),
    "gelu, by tanh": lambda x, w, c: F.gelu(x, approximate="tanh"),
    "glu": lambda x, w, c: F.glu(torch.cat([x, x.flip(0)], 1)),
    "group norm": lambda x, w, c: F.group_norm(beside(x, w, 5), x.shape[1]),
    "hidden layer": lambda x, w, c: (x @ w[: x.shape[1], :11]).tanh() @ w[:11, :7],
    "in place": lambda x, w, c: (1 * x).sigmoid_(),
    "instance norm": lambda x, w, c: F.instance_norm(beside(x, w, 5)),
    "interpolated": lambda x, w, c: F.interpolate(image(x, w), scale_factor=2, mode="bilinear"),
    "inverse": lambda x, w, c: torch.linalg.inv(covariance(x)),
    "kl of frequencies": lambda x, w, c: (lambda p: (0.05 / p).log() + (0.95 / (1 - p)).log())(x.sigmoid().mean(0)),
    "kl of rows": lambda x, w, c: F.kl_div(x.log_softmax(1), x.flip(0).softmax(1), reduction="batchmean"),
    "layer norm": lambda x, w, c: F.layer_norm(x, x.shape[1:]),
    "length of columns": lambda x, w, c: x.norm(dim=0),
    "length of weights": lambda x, w, c: x @ (w / w.norm(dim=0))[: x.shape[1]],
    "linear with shared": lambda x, w, c: F.linear(x, c[: x.shape[1], :6].T, c[0, :6]),
    "log softmax": lambda x, w, c: x.log_softmax(0) + x.log_softmax(1),
    "log sum of exponentials": lambda x, w, c: x.logsumexp(0),
    "logaddexp": lambda x, w, c: torch.logaddexp(x, w[:1, :1]),
    "logarithm of sigmoid": lambda x, w, c: F.logsigmoid(x),
    "mean of columns": lambda x, w, c: x.mean(0),
    "mean of rows, sigmoid": lambda x, w, c: x.mean(1).sigmoid(),
    "mean, sigmoid": lambda x, w, c: x.mean().sigmoid(),
    "median": lambda x, w, c: x.median(0).values,
    "mish": lambda x, w, c: F.mish(x),
    "only every other": lambda x, w, c: x[:, ::2].sigmoid(),
    "outer product": lambda x, w, c: torch.outer(x[:, 0], x[:, 0]),
    "pooling": lambda x, w, c: F.avg_pool2d(image(x, w), (1, 2)) + F.max_pool2d(image(x, w), (1, 2)),
    "product of columns": lambda x, w, c: x.prod(0),
    "product with shared": lambda x, w, c: x @ c[: x.shape[1], :7],
    "product with shared vector": lambda x, w, c: x @ c[: x.shape[1], 0],
    "quantile": lambda x, w, c: x.quantile(0.3, dim=0),
    "rms norm": lambda x, w, c: F.rms_norm(x, x.shape[1:]),
    "root": lambda x, w, c: (x.square().mean(0) + 1e-5).rsqrt(),
    "rows with rows": lambda x, w, c: x.T @ x,
    "scattered": lambda x, w, c: x.new_zeros(3, x.shape[1]).index_add(0, torch.arange(len(x)) % 3, x),
    "selu": lambda x, w, c: F.selu(x),
    "shared with product": lambda x, w, c: c.T[:5, : x.shape[1]] @ x.T,
    "sigmoid": lambda x, w, c: x.sigmoid(),
    "sigmoid, turned": lambda x, w, c: x.T.sigmoid().sum(1),
    "silu": lambda x, w, c: F.silu(x),
    "singular values": lambda x, w, c: torch.linalg.svdvals(x),
    "softmax": lambda x, w, c: x.softmax(0) + x.softmax(1),
    "softplus": lambda x, w, c: F.softplus(x),
    "solved": lambda x, w, c: torch.linalg.solve(covariance(x), x.T),
    "sorted": lambda x, w, c: x.sort(0).values.sum(1),
    "standard deviation": lambda x, w, c: x.var(1, correction=0).sqrt() + x.std(correction=0),
    "sum, turned": lambda x, w, c: x.T.contiguous().sum(0),
    "transposed convolution": lambda x, w, c: F.conv_transpose1d(
        beside(x, w, 6), w[: x.shape[1], :3].reshape(-1, 1, 3)
    ),
    "weighed sum": lambda x, w, c: torch.add(x, w[:1, :1], alpha=0.37).sum(0),
    "where": lambda x, w, c: torch.where(x > 0, x.sigmoid(), x),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {name: list(violations(name)) for name in sys.argv[1:] or FUNCTIONS}
    print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "violations": found}))
