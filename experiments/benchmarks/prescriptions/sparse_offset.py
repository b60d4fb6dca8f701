"""A sparse autoencoder on inputs with a mean of 20."""

from networks import SparseDictionary, sparse_rows, with_l1

import harness


def data():
    return sparse_rows() + 20.0


case = harness.Case(
    model=SparseDictionary,
    data=data,
    losses=with_l1,
    bottleneck="encoder",
    reconstruction="out:0",
    numbers={"beta": 0.01},
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
