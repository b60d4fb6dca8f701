"""Weights a million times too small before a sigmoid code."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    model = Autoencoder(code="sigmoid")
    for parameter in model.parameters():
        parameter.data.mul_(1e-4)
    return model


case = harness.Case(
    model=build,
    data=mixtures,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 5, "batch_size": 64, "learning_rate": 0.001},
)
