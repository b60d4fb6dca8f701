"""A KL penalty with target 0.001 on a ReLU code, which no unit can reach."""

from networks import Autoencoder, mixtures, with_kl

import harness


def build() -> Autoencoder:
    return Autoencoder()


case = harness.Case(
    model=build,
    data=mixtures,
    losses=with_kl,
    bottleneck="code",
    reconstruction="out:0",
    numbers={"rho": 0.001, "beta": 1.0},
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
