"""An L1 penalty a thousand times too strong."""

from networks import Autoencoder, mixtures, with_l1

import harness


def build() -> Autoencoder:
    return Autoencoder()


case = harness.Case(
    model=build,
    data=mixtures,
    losses=with_l1,
    bottleneck="code",
    reconstruction="out:0",
    numbers={"beta": 10.0},
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
