"""The intent of the first two siblings with a gradient: L1 on the ReLU code that the decoder reads."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import harness
from harness.cases.sibling_count import data, evaluation
from harness.penalties import l1


class ReluAutoencoder(nn.Module):
    """The posted sizes with a ReLU code, a linear output and zero biases."""

    def __init__(self, features: int = 100, units: int = 4) -> None:
        super().__init__()
        self.enc1 = nn.Linear(features, 40)
        self.enc2 = nn.Linear(40, 20)
        self.enc3 = nn.Linear(20, units)
        self.dec1 = nn.Linear(units, 20)
        self.dec2 = nn.Linear(20, 40)
        self.dec3 = nn.Linear(40, features)
        for layer in (self.enc1, self.enc2, self.enc3, self.dec1, self.dec2, self.dec3):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[sample, feature]` to the code `[sample, unit]`, not below 0, and the reconstruction."""
        code = F.relu(self.enc3(F.relu(self.enc2(F.relu(self.enc1(x))))))
        return code, self.dec3(F.relu(self.dec2(F.relu(self.dec1(code)))))


def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error, and the mean absolute code."""
    code, reconstruction = model(batch)
    return {"reconstruction": F.mse_loss(reconstruction, batch), "sparsity": l1(code)}


case = harness.Case(
    model=ReluAutoencoder,
    data=data,
    evaluation=evaluation,
    losses=losses,
    bottleneck="enc3",
    reconstruction="out:1",
    numbers={"beta": 0.001},
    train={"epochs": 30, "batch_size": 64, "learning_rate": 0.001},
)
