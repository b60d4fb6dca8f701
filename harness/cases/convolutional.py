"""A convolutional autoencoder of 8 x 8 digits: modules instead of functions, and the bottleneck inside an encoder."""

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import harness
from harness.data import Rows, load
from harness.penalties import l1


class ConvolutionalAutoencoder(nn.Module):
    """Two strided convolutions down to a code of `units` units, and back by two transposed ones."""

    def __init__(self, units: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64, units),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.Linear(units, 64),
            nn.ReLU(),
            nn.Unflatten(-1, (16, 2, 2)),
            nn.ConvTranspose2d(16, 8, 2, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, stride=2),
        )

    def forward(self, images: Tensor) -> Tensor:
        """`[sample, 1, 8, 8]` to their reconstruction."""
        return self.decoder(self.encoder(images))


def losses(model: ConvolutionalAutoencoder, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error, and L1 on the code."""
    code = model.encoder(batch)
    return {"reconstruction": F.mse_loss(model.decoder(code), batch), "sparsity": l1(code)}


def data() -> Rows:
    """1797 digits as images `[sample, 1, 8, 8]` with their labels."""
    rows = load("digits")[0]
    return Rows(rows.inputs.view(-1, 1, 8, 8), rows.labels)


case = harness.Case(
    model=ConvolutionalAutoencoder,
    data=data,
    losses=losses,
    bottleneck="encoder.5",
    numbers={"beta": 0.001},
    train={"epochs": 30, "batch_size": 64, "learning_rate": 0.002},
)
