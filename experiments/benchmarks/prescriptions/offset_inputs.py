"""Inputs with a mean of 30 and a standard deviation of 1."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    return Autoencoder()


def data():
    return mixtures() + 30.0


case = harness.Case(
    model=build,
    data=data,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
