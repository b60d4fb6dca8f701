"""A sparse autoencoder whose L1 weight silences every latent."""

from networks import SparseDictionary, sparse_rows, with_l1

import harness

case = harness.Case(
    model=SparseDictionary,
    data=sparse_rows,
    losses=with_l1,
    bottleneck="encoder",
    reconstruction="out:0",
    numbers={"beta": 20.0},
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
)
