"""The same author's first try: a 0/1 count of the active units, ending in `.item()`.

`.item()` leaves a plain number without a graph: the penalty is printed and trains nothing. The rows are patches without
their own mean, half of them below 0, where the posted ReLU on the output is a fault of its own.

Source: discuss.pytorch.org, thread 82368.
"""

from typing import Any

import torch.nn as nn
from torch import Tensor

import harness
from harness.cases.forum import SparseAutoencoder, criterion
from harness.data import Rows, load


def sparse_loss(code: Tensor) -> float:
    """How many of the code's values fire, as a share: a Python number."""
    active = (code > 0).float()
    return (active.sum() / active.numel()).item()


def losses(model: nn.Module, batch: Tensor) -> dict[str, Any]:
    """Mean squared error, and the count."""
    code, outputs = model(batch)
    return {"reconstruction": criterion(outputs, batch), "sparsity": sparse_loss(code)}


def data() -> Rows:
    """Natural patches of one photograph, each without its own mean."""
    return load("patches_contrast")[0]


def evaluation() -> Rows | None:
    """Patches of another photograph."""
    return load("patches_contrast")[1]


case = harness.Case(
    model=SparseAutoencoder,
    data=data,
    evaluation=evaluation,
    losses=losses,
    bottleneck="enc3",
    reconstruction="out:1",
    numbers={"beta": 0.001},
    train={"epochs": 30, "batch_size": 64, "learning_rate": 0.001},
)
