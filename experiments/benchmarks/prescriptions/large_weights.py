"""Weights of the encoder times 100: a tanh code of signs."""

from networks import Autoencoder, mixtures, squared_error

import harness


def build() -> Autoencoder:
    model = Autoencoder(code="tanh")
    model.into.weight.data.mul_(10.0)
    model.code.weight.data.mul_(200.0)
    return model


case = harness.Case(
    model=build,
    data=mixtures,
    losses=squared_error,
    bottleneck="code",
    reconstruction="out:0",
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
