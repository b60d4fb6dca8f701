"""A sigmoid code on inputs with a mean of 100."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    return Autoencoder(code="sigmoid")


def data():
    return mixtures() + 100.0


case = harness.Case(
    model=build,
    data=data,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
