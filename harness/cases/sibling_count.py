"""The same author's first try: a 0/1 count of the active units, ending in `.item()`.

`.item()` leaves a plain number without a graph: the penalty is printed and trains nothing.

Source: discuss.pytorch.org, thread 82368.
"""

from typing import Any

import torch.nn as nn
from torch import Tensor

import harness
from harness.cases.forum import SparseAutoencoder, criterion, data, evaluation


def sparse_loss(code: Tensor) -> float:
    """How many of the code's values fire, as a share: a Python number."""
    active = (code > 0).float()
    return (active.sum() / active.numel()).item()


def losses(model: nn.Module, batch: Tensor) -> dict[str, Any]:
    """Mean squared error, and the count."""
    code, outputs = model(batch)
    return {"reconstruction": criterion(outputs, batch), "sparsity": sparse_loss(code)}


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
