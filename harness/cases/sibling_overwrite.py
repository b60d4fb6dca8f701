"""Second attempt of the same author: values overwritten with 0 and 1 in place, then averaged.

Overwritten values do not depend on the parameters, so the gradient exists and is exactly zero. An in-place write to the
output of a ReLU raises in `backward`; the penalty therefore uses the bottleneck's linear output.

Source: discuss.pytorch.org, thread 82449.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

import harness
from harness.cases.forum import SparseAutoencoder, criterion
from harness.cases.sibling_count import data, evaluation


def sparse_loss(model: SparseAutoencoder, x: Tensor) -> Tensor:
    """Mean of the bottleneck's values after each is replaced by 0 or 1."""
    values = F.relu(model.enc1(x))
    values = F.relu(model.enc2(values))
    values = model.enc3(values)
    values[values > 0] = 1
    values[values <= 0] = 0
    return torch.mean(values)


def losses(model: SparseAutoencoder, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error, and the mean of the overwritten values."""
    _, outputs = model(batch)
    return {"reconstruction": criterion(outputs, batch), "sparsity": sparse_loss(model, batch)}


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
