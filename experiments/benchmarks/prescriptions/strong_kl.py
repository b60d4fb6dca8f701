"""A KL penalty on a ReLU code, far too strong."""

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
    numbers={"rho": 0.05, "beta": 10.0},
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
