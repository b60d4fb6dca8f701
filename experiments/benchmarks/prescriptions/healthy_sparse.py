"""A sparse autoencoder with a light L1 penalty."""

from networks import SparseDictionary, sparse_rows, with_l1

import harness

case = harness.Case(
    model=SparseDictionary,
    data=sparse_rows,
    losses=with_l1,
    bottleneck="encoder",
    reconstruction="out:0",
    numbers={"beta": 0.01},
    train={"epochs": 40, "batch_size": 64, "learning_rate": 0.005},
)
