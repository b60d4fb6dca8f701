"""Rows between 0 and 1, with a sigmoid on the output."""

from networks import Autoencoder, positive, squared_error

import harness


def build() -> Autoencoder:
    return Autoencoder(code="leaky_relu", hidden="leaky_relu", output="sigmoid")


case = harness.Case(
    model=build,
    data=positive,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 40, "batch_size": 64, "learning_rate": 0.005},
)
