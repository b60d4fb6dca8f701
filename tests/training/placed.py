"""Operations of each kind, and numbers for them."""

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


def numbers(operation, count, dtype):
    """Operands between 0.01 and 0.99, where every operation of the table is defined."""
    generator = torch.Generator().manual_seed(0)
    operands = len(inspect.signature(operation).parameters)
    return [0.98 * torch.rand(count, generator=generator, dtype=dtype) + 0.01 for _ in range(operands)]


ELEMENTWISE = {
    "acosh": lambda x: (x + 1).acosh(),
    "add": lambda x, y: x + y,
    "add alpha": lambda x, y: torch.add(x, y, alpha=0.37),
    "add scalar alpha": lambda x: torch.add(x, 1.3, alpha=0.7),
    "addcdiv": lambda x, y, z: torch.addcdiv(x, y, z, value=0.7),
    "addcmul": lambda x, y, z: torch.addcmul(x, y, z, value=0.7),
    "atan2": lambda x, y: torch.atan2(x, y),
    "atanh": lambda x: x.atanh(),
    "clamp": lambda x: x.clamp(0.2, 0.7),
    "complex": lambda x, y: (torch.complex(x, y) * torch.complex(y, x)).abs(),
    "cosh": lambda x: x.cosh(),
    "div": lambda x, y: x / y,
    "div floor": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "elu": lambda x: F.elu(x - 0.5),
    "elu backward": lambda x, y: aten.elu_backward(x, 1.0, 1.0, 1.0, True, y - 0.5),
    "erf": lambda x: x.erf(),
    "exp": lambda x: x.exp(),
    "exp2": lambda x: x.exp2(),
    "expm1": lambda x: x.expm1(),
    "gelu": lambda x: F.gelu(x),
    "gelu backward": lambda x, y: aten.gelu_backward(x, y),
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish backward": lambda x, y: aten.hardswish_backward(x, y),
    "hypot": lambda x, y: torch.hypot(x, y),
    "lerp": lambda x, y, z: torch.lerp(x, y, z),
    "log": lambda x: x.log(),
    "log sigmoid": lambda x: F.logsigmoid(x),
    "log sigmoid backward": lambda x, y: aten.log_sigmoid_backward(x, y, aten.log_sigmoid_forward(y)[1]),
    "logaddexp": lambda x, y: torch.logaddexp(x, y),
    "mish": lambda x: F.mish(x),
    "mish backward": lambda x, y: aten.mish_backward(x, y),
    "pow": lambda x, y: x**y,
    "power": lambda x: x**2.5,
    "power of a number": lambda x: 2.3**x,
    "relu": lambda x: (x - 0.5).relu(),
    "rsqrt": lambda x: x.rsqrt(),
    "sigmoid": lambda x: x.sigmoid(),
    "sigmoid backward": lambda x, y: aten.sigmoid_backward(x, y),
    "silu": lambda x: F.silu(x),
    "silu backward": lambda x, y: aten.silu_backward(x, y),
    "sin": lambda x: x.sin(),
    "sinh": lambda x: x.sinh(),
    "softplus": lambda x: F.softplus(x),
    "softplus backward": lambda x, y: aten.softplus_backward(x, y, 1.0, 20.0),
    "sqrt": lambda x: x.sqrt(),
    "tanh": lambda x: x.tanh(),
    "tanh backward": lambda x, y: aten.tanh_backward(x, y),
    "where": lambda x, y, z: torch.where(x > 0.5, y, z),
    "xlogy": lambda x, y: torch.xlogy(x, y),
}

REDUCTIONS = {
    "length": lambda values: values.norm(dim=1),
    "logsumexp": lambda values: values.logsumexp(1),
    "maximum": lambda values: values.amax(1),
    "mean": lambda values: values.mean(1),
    "norm": lambda values: torch.linalg.vector_norm(values, 3, dim=1),
    "product": lambda values: values.prod(1),
    "standard deviation": lambda values: values.std(1),
    "sum": lambda values: values.sum(1),
    "variance": lambda values: values.var(1),
}


def solved(matrices: Tensor) -> Tensor:
    return torch.linalg.solve(matrices, matrices[..., :2] + 1)


LINEAR_ALGEBRA = {
    "cholesky": torch.linalg.cholesky,
    "determinant": torch.linalg.det,
    "distances": lambda matrices: torch.cdist(matrices, matrices + 1, compute_mode="use_mm_for_euclid_dist"),
    "eigenvalues": torch.linalg.eigvalsh,
    "exponential": lambda matrices: torch.linalg.matrix_exp(0.01 * matrices),
    "inverse": torch.linalg.inv,
    "logarithm of the determinant": torch.logdet,
    "orthogonal": lambda matrices: torch.linalg.qr(matrices).R,
    "singular values": torch.linalg.svdvals,
    "solved": solved,
}
