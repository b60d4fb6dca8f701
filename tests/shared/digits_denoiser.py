"""A denoising autoencoder of digits, as a stranger wrote it: F.relu in `forward`, weighted error, L1 on the code."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness
from harness.data import load


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.code = nn.Linear(64, 32), nn.Linear(32, 6)
        self.fc2, self.out = nn.Linear(6, 32), nn.Linear(32, 64)

    def encode(self, batch: Tensor) -> Tensor:
        return F.relu(self.code(F.relu(self.fc1(batch))))

    def forward(self, batch: Tensor) -> Tensor:
        return self.out(F.relu(self.fc2(self.encode(batch))))


def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    noisy = batch + 0.1 * torch.randn_like(batch) if model.training else batch
    weights = 0.1 + batch.square()  # strokes count, the empty background hardly does
    return {
        "reconstruction": (weights * (model(noisy) - batch) ** 2).mean(),
        "sparsity": model.encode(batch).abs().sum(1).mean(),
    }


case = harness.Case(
    model=Denoiser,
    data=lambda: load("digits")[0],
    losses=losses,
    bottleneck="code",
    numbers={"beta": 0.03},
    optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
    train={"epochs": 60, "batch_size": 64, "learning_rate": 3e-3},
)
