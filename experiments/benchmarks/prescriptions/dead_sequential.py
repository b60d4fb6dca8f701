"""A sequential model whose code has biases of -6."""

from networks import mixtures
from torch import nn

import harness


def build() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 20))
    nn.init.constant_(model[2].bias, -6.0)
    return model


def losses(model, batch):
    return {"reconstruction": nn.functional.mse_loss(model(batch), batch)}


case = harness.Case(
    model=build,
    data=mixtures,
    losses=losses,
    bottleneck="2",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
