"""A learning rate of 1e-6: nothing is learned."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    return Autoencoder()


case = harness.Case(
    model=build,
    data=mixtures,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 1e-6},
)
