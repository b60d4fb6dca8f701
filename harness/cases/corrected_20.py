"""The intent of the third sibling with a gradient: a sigmoid code, and the KL of each unit's mean activation."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import harness
from harness.cases.sibling_threshold import WideAutoencoder, data, evaluation
from harness.penalties import bernoulli_kl_of_logits


class SigmoidAutoencoder(WideAutoencoder):
    """20-80-40-4-40-80-20 with a sigmoid code, a linear output and zero biases."""

    def __init__(self, features: int = 20, units: int = 4) -> None:
        super().__init__(features, units)
        for layer in (self.enc1, self.enc2, self.enc3, self.dec1, self.dec2, self.dec3):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]  # the logits are added
        """`[sample, feature]` to the code `[sample, unit]` in (0, 1), the reconstruction, and the logits of the code."""
        logits = self.enc3(F.relu(self.enc2(F.relu(self.enc1(x)))))
        code = torch.sigmoid(logits)
        return code, self.dec3(F.relu(self.dec2(F.relu(self.dec1(code))))), logits


def losses(model: nn.Module, batch: Tensor, rho: float) -> dict[str, Tensor]:
    """Mean squared error, and the KL of each unit's mean over the batch."""
    _, reconstruction, logits = model(batch)
    return {"reconstruction": F.mse_loss(reconstruction, batch), "sparsity": bernoulli_kl_of_logits(rho, logits)}


case = harness.Case(
    model=SigmoidAutoencoder,
    data=data,
    evaluation=evaluation,
    losses=losses,
    bottleneck="enc3",
    reconstruction="out:1",
    numbers={"rho": 0.05, "beta": 0.001},
    train={"epochs": 30, "batch_size": 64, "learning_rate": 0.001},
)
