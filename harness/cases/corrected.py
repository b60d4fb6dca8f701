"""The source case with all of its faults corrected: a sigmoid code, and the KL of that code.

The penalty has one KL term per unit, of the unit's mean over the batch, and uses the values that the decoder reads. Biases
are zero. The output is linear, so that no feature can die and values below 0 can be reached. The KL is computed from the
logits of the code: the result is the same as from the means, and finite where float32 rounds a mean to 1. Data and
training are those of the source case.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import harness
from harness.cases.forum import data, evaluation
from harness.penalties import bernoulli_kl_of_logits


class CorrectedAutoencoder(nn.Module):
    """The posted sizes, a sigmoid code, a linear output, zero biases."""

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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`[sample, feature]` to the code `[sample, unit]` in (0, 1), the reconstruction, and the logits of the code."""
        logits = self.enc3(F.relu(self.enc2(F.relu(self.enc1(x)))))
        code = torch.sigmoid(logits)
        return code, self.dec3(F.relu(self.dec2(F.relu(self.dec1(code))))), logits


def losses(model: nn.Module, batch: Tensor, rho: float) -> dict[str, Tensor]:
    """Mean squared error, and the KL of the code that the decoder reads."""
    _, reconstruction, logits = model(batch)
    return {"reconstruction": F.mse_loss(reconstruction, batch), "sparsity": bernoulli_kl_of_logits(rho, logits)}


case = harness.Case(
    model=CorrectedAutoencoder,
    data=data,
    evaluation=evaluation,
    losses=losses,
    bottleneck="enc3",
    reconstruction="out:1",
    numbers={"rho": 0.05, "beta": 0.001},
    train={"epochs": 30, "batch_size": 64, "learning_rate": 0.01},
)
