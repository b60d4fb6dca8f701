"""A sparse autoencoder in which 44 of 48 latents are dead from birth."""

from networks import SparseDictionary, sparse_rows, with_l1

import harness


def build() -> SparseDictionary:
    model = SparseDictionary()
    model.encoder.bias.data[:47] = -4.0
    return model


case = harness.Case(
    model=build,
    data=sparse_rows,
    losses=with_l1,
    bottleneck="encoder",
    reconstruction="out:0",
    numbers={"beta": 0.001},
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
