"""A variational autoencoder with a KL weight of 0.1."""

from networks import VAE, mixtures, with_divergence

import harness

case = harness.Case(
    model=VAE,
    data=mixtures,
    losses=with_divergence,
    bottleneck="mean",
    reconstruction="out:0",
    numbers={"beta": 0.1},
    train={"epochs": 40, "batch_size": 64, "learning_rate": 0.005},
    posterior="log_variance",
)
