"""A leaky code with a light L1 penalty."""

from networks import Autoencoder, mixtures, with_l1

import harness


def build() -> Autoencoder:
    return Autoencoder(code="leaky_relu", hidden="leaky_relu")


case = harness.Case(
    model=build,
    data=mixtures,
    losses=with_l1,
    bottleneck="code",
    reconstruction="out:0",
    numbers={"beta": 0.001},
    train={"epochs": 40, "batch_size": 64, "learning_rate": 0.005},
)
