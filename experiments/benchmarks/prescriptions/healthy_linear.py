"""A code without an activation."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    return Autoencoder(code="", hidden="leaky_relu")


case = harness.Case(
    model=build,
    data=mixtures,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 40, "batch_size": 64, "learning_rate": 0.005},
)
