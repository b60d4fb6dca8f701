"""A batch normalization before a leaky code."""

from networks import mixtures
from torch import nn

import harness


def build() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(20, 24), nn.LeakyReLU(), nn.Linear(24, 5), nn.BatchNorm1d(5), nn.LeakyReLU(), nn.Linear(5, 20)
    )


def losses(model, batch):
    return {"reconstruction": nn.functional.mse_loss(model(batch), batch)}


case = harness.Case(
    model=build,
    data=mixtures,
    losses=losses,
    bottleneck="2",
    reconstruction="out:0",
    train={"epochs": 40, "batch_size": 64, "learning_rate": 0.005},
)
