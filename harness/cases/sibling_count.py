"""First attempt of the same author: a 0/1 count of the active units, ending in `.item()`.

`.item()` returns a plain number without a graph: the penalty is printed and trains nothing. The rows are patches minus
their own mean. Half of their values are below 0, where the posted ReLU on the output is another fault.

Source: discuss.pytorch.org, thread 82368.
"""

from typing import Any

import torch.nn as nn
from torch import Tensor

import harness
from harness.cases.forum import SparseAutoencoder, criterion
from harness.data import Rows, load


def sparse_loss(code: Tensor) -> float:
    """Share of the code's values that fire, as a Python number."""
    active = (code > 0).float()
    return (active.sum() / active.numel()).item()


def losses(model: nn.Module, batch: Tensor) -> dict[str, Any]:
    """Mean squared error, and the count."""
    code, outputs = model(batch)
    return {"reconstruction": criterion(outputs, batch), "sparsity": sparse_loss(code)}


def data() -> Rows:
    """Natural patches of one photograph, each minus its own mean."""
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
