"""Weights of a sigmoid code times 400, with biases of 60: saturated from birth."""

from networks import Autoencoder, mixtures, squared_error
from torch import nn

import harness


def build() -> Autoencoder:
    model = Autoencoder(code="sigmoid")
    model.code.weight.data.mul_(20.0)
    nn.init.constant_(model.code.bias, 60.0)
    return model


case = harness.Case(
    model=build,
    data=mixtures,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
