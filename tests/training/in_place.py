"""Pairs of programs that compute the same, of which the second writes to the bottleneck's output."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Case

SHIFT, SCALE = torch.tensor([0.5, -1.0, 0.25, 0.0]), torch.tensor([1.0, 0.0, 2.0, 0.5])


def added(values):
    values += SHIFT.to(values)
    return F.relu(values)


def subtracted(values):
    values -= SHIFT.to(values)
    return F.relu(values, inplace=True)


def multiplied(values):
    values *= SCALE.to(values)
    return torch.tanh(values)


def divided(values):
    values /= 2
    return F.relu(values)


def masked_linear(values):
    values *= SCALE.to(values)
    return values


def masked_leaky(values):
    code = F.leaky_relu(values)
    code *= SCALE.to(values)
    return code


def filled_leaky(values):
    code = F.leaky_relu(values)
    code.masked_fill_(SCALE == 0, 0.0)
    return code


def assigned(values):
    values[values < 0] = 0
    return values


def rectified(values):
    values *= values > 0
    return values


def gated(values):
    return values.mul_(torch.sigmoid(values))


def through_a_view(values):
    F.relu_(values[:, None])
    return values


def not_returned(values):
    F.relu(values, inplace=True)
    return values


def summed(values):
    values += values.roll(1, 1)
    return values


def dropped_leaky(values):
    return F.dropout(F.leaky_relu(values), 0.3, training=True, inplace=True)


PAIRS = {
    "nn.ReLU": (nn.ReLU(), nn.ReLU(inplace=True)),
    "F.relu": (F.relu, lambda values: F.relu(values, inplace=True)),
    "F.relu_": (F.relu, F.relu_),
    "torch.relu_": (torch.relu, torch.relu_),
    "Tensor.relu_": (F.relu, lambda values: values.relu_()),
    "F.relu, not returned": (F.relu, not_returned),
    "clamp_": (lambda values: values.clamp(min=0), lambda values: values.clamp_(min=0)),
    "clamp_min_": (lambda values: values.clamp(min=0), lambda values: torch.clamp_min_(values, 0)),
    "leaky_relu_": (lambda values: F.leaky_relu(values, 0.1), lambda values: F.leaky_relu_(values, 0.1)),
    "nn.LeakyReLU": (nn.LeakyReLU(), nn.LeakyReLU(inplace=True)),
    "elu": (F.elu, lambda values: F.elu(values, inplace=True)),
    "elu_": (F.elu, F.elu_),
    "celu": (nn.CELU(), nn.CELU(inplace=True)),
    "selu": (nn.SELU(), nn.SELU(inplace=True)),
    "hardtanh": (nn.Hardtanh(), nn.Hardtanh(inplace=True)),
    "hardtanh_": (F.hardtanh, F.hardtanh_),
    "relu6": (nn.ReLU6(), nn.ReLU6(inplace=True)),
    "silu": (nn.SiLU(), nn.SiLU(inplace=True)),
    "hardswish": (nn.Hardswish(), nn.Hardswish(inplace=True)),
    "threshold": (nn.Threshold(0.0, 0.0), nn.Threshold(0.0, 0.0, inplace=True)),
    "sigmoid_": (torch.sigmoid, torch.sigmoid_),
    "tanh_": (torch.tanh, lambda values: values.tanh_()),
    "x += b": (lambda values: F.relu(values + SHIFT.to(values)), added),
    "x -= b": (lambda values: F.relu(values - SHIFT.to(values)), subtracted),
    "x *= m": (lambda values: torch.tanh(values * SCALE.to(values)), multiplied),
    "x /= 2": (lambda values: F.relu(values / 2), divided),
    "x += other": (lambda values: values + values.roll(1, 1), summed),
    "linear, then x *= m": (lambda values: values * SCALE.to(values), masked_linear),
    "leaky, then x *= m": (lambda values: F.leaky_relu(values) * SCALE.to(values), masked_leaky),
    "leaky, then masked_fill_": (lambda values: F.leaky_relu(values).masked_fill(SCALE == 0, 0.0), filled_leaky),
    "leaky, then dropout": (lambda values: F.dropout(F.leaky_relu(values), 0.3, training=True), dropped_leaky),
    "dropout": (
        nn.Sequential(nn.Dropout(0.3), nn.ReLU()),
        nn.Sequential(nn.Dropout(0.3, inplace=True), nn.ReLU(inplace=True)),
    ),
    "masked_fill_": (
        lambda values: values.masked_fill(values < 0, 0.0),
        lambda values: values.masked_fill_(values < 0, 0.0),
    ),
    "assignment": (lambda values: values.masked_fill(values < 0, 0.0), assigned),
    "x *= x > 0": (lambda values: values * (values > 0), rectified),
    "gate": (lambda values: values * torch.sigmoid(values), gated),
    "a view": (lambda values: F.relu(values[:, None]).squeeze(1), through_a_view),
    "batch norm": (
        nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()),
        nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(inplace=True)),
    ),
}
# torch itself rounds the gradient of an ELU in another way when it writes
ROUNDED_BY_TORCH = ("elu", "elu_", "celu", "selu")


class Network(nn.Module):
    """12-16-4-16-12; `gate` stands behind the bottleneck, and `inner` says whether all other ReLUs write too."""

    def __init__(self, gate, inner: bool) -> None:
        super().__init__()
        self.enc, self.code = nn.Sequential(nn.Linear(12, 16), nn.ReLU(inplace=inner)), nn.Linear(16, 4)
        self.gate = copy.deepcopy(gate)
        self.dec = nn.Sequential(nn.Linear(4, 16), nn.ReLU(inplace=inner), nn.Linear(16, 12))

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        code = self.gate(self.code(self.enc(batch)))
        return code, self.dec(code)


def rows() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(256, 4, generator=draw) @ torch.randn(4, 12, generator=draw) / 2


def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    code, made = model(batch)
    return {"reconstruction": F.mse_loss(made, batch), "l1": 0.05 * code.abs().mean()}


def twins(name: str) -> tuple[Case, Case]:
    """The case that writes nowhere, and the one that writes wherever it can."""
    first, second = (
        Case(
            model=lambda gate=gate, inner=inner: Network(gate, inner),
            data=rows,
            losses=losses,
            bottleneck="code",
            reconstruction="out:1",
        )
        for gate, inner in zip(PAIRS[name], (False, True), strict=True)
    )
    return first, second
