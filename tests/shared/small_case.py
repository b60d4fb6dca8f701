"""A small case in a file, with held-out rows of its own."""

CASE = """
import harness
import torch
import torch.nn.functional as F
from torch import nn


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.code, self.decoder = nn.Linear(8, 6), nn.Linear(6, 3), nn.Linear(3, 8)

    def forward(self, batch):
        return self.decoder(F.relu(self.code(F.relu(self.first(batch)))))


def rows(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(32, 3, generator=generator) @ torch.ones(3, 8).cumsum(1) + torch.rand(32, 8, generator=generator)


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch), "size": model.code.weight.abs().mean()}


case = harness.Case(
    Autoencoder, lambda: rows(0), losses, "code", evaluation=lambda: rows(1),
    numbers={"beta": 0.1}, train={"epochs": 3, "batch_size": 32, "learning_rate": 0.01},
)
"""
