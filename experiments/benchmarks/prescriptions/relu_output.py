"""A ReLU on the output of rows that are negative half of the time."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    return Autoencoder(output="relu")


def data():
    return mixtures() - 3.0


case = harness.Case(
    model=build,
    data=data,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
