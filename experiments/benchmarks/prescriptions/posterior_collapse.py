"""A KL weight of 20: the latents keep to their prior."""

from networks import VAE, mixtures, with_divergence

import harness

case = harness.Case(
    model=VAE,
    data=mixtures,
    losses=with_divergence,
    bottleneck="mean",
    reconstruction="out:0",
    numbers={"beta": 20.0},
    train={"epochs": 15, "batch_size": 64, "learning_rate": 0.005},
    posterior="log_variance",
)
