"""Biases of four of five units at -8."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    model = Autoencoder()
    model.code.bias.data[:4] = -8.0
    return model


case = harness.Case(
    model=build,
    data=mixtures,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
