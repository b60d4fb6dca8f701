"""A sigmoid on the output of rows that lie between -6 and 0."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    return Autoencoder(output="sigmoid")


def data():
    return mixtures() - 4.0


case = harness.Case(
    model=build,
    data=data,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
