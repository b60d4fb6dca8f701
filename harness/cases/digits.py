"""The posted network and loss on scikit-learn's digits: 64 features from 0 to 1, with ten classes as labels.

The ReLU on the output can reach these data. Mutual information is measured with the labels.
"""

from functools import partial

import harness
from harness.cases.forum import SparseAutoencoder, losses
from harness.data import Rows, load


def data() -> Rows:
    """1797 digits with their labels; a fixed fifth is held out."""
    return load("digits")[0]


case = harness.Case(
    model=partial(SparseAutoencoder, features=64),
    data=data,
    losses=losses,
    bottleneck="enc3",
    reconstruction="out:1",
    numbers={"rho": 0.05, "beta": 0.001},
    train={"epochs": 30, "batch_size": 64, "learning_rate": 0.001},
)
