"""Third attempt of the same author: 20-80-40-4-40-80-20, and `(code > 0).sum(0)` divided to the scale of the input.

A comparison has no gradient: the penalty counts and trains nothing. The thread does not give its rows; this case uses 20
features with planted factors.

Source: discuss.pytorch.org, thread 96005.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import harness
from harness.data import Rows, load


class WideAutoencoder(nn.Module):
    """20-80-40-4-40-80-20 by default, with ReLU everywhere, as in the author's other networks."""

    def __init__(self, features: int = 20, units: int = 4) -> None:
        super().__init__()
        self.enc1 = nn.Linear(in_features=features, out_features=80)
        self.enc2 = nn.Linear(in_features=80, out_features=40)
        self.enc3 = nn.Linear(in_features=40, out_features=units)
        self.dec1 = nn.Linear(in_features=units, out_features=40)
        self.dec2 = nn.Linear(in_features=40, out_features=80)
        self.dec3 = nn.Linear(in_features=80, out_features=features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[sample, feature]` to the code `[sample, unit]` and the reconstruction `[sample, feature]`."""
        x = F.relu(self.enc1(x))
        x = F.relu(self.enc2(x))
        x = F.relu(self.enc3(x))
        y = x  # encoded data
        x = F.relu(self.dec1(x))
        x = F.relu(self.dec2(x))
        x = F.relu(self.dec3(x))
        return y, x


def sparse_loss(code: Tensor, input_dim: int) -> Tensor:
    """Number of samples on which each unit fires, divided by batch_size / input_dim, summed over units."""
    batch_size = code.shape[0]
    active = (code > 0).sum(0)
    return torch.sum(active / (batch_size / input_dim))


def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error, and the count per unit."""
    code, outputs = model(batch)
    return {"reconstruction": F.mse_loss(outputs, batch), "sparsity": sparse_loss(code, batch.shape[1])}


def data() -> Rows:
    """2048 rows of 20 features: two continuous factors, two discrete ones, noise."""
    return load("synthetic_20")[0]


def evaluation() -> Rows | None:
    """1024 new rows of the same distribution."""
    return load("synthetic_20")[1]


case = harness.Case(
    model=WideAutoencoder,
    data=data,
    evaluation=evaluation,
    losses=losses,
    bottleneck="enc3",
    reconstruction="out:1",
    numbers={"beta": 0.001},
    train={"epochs": 30, "batch_size": 64, "learning_rate": 0.001},
)
