"""Biases of a tanh code at 30: constant at 1."""

from networks import Autoencoder, mixtures, squared_error
from torch import nn

import harness


def build() -> Autoencoder:
    model = Autoencoder(code="tanh")
    nn.init.constant_(model.code.bias, 30.0)
    return model


case = harness.Case(
    model=build,
    data=mixtures,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
