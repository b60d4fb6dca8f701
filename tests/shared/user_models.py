"""Models as strangers write them, for the printed code of remedies: calls in `forward`, modules, convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


class Functional(nn.Module):
    """Two activations in one statement, and one that spans lines."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.code = nn.Linear(12, 8), nn.Linear(8, 3)
        self.back, self.last = nn.Linear(3, 8), nn.Linear(8, 12)

    def forward(self, batch: Tensor) -> Tensor:
        code = F.relu(self.code(F.relu(self.first(batch))))
        hidden = torch.relu(
            self.back(code),  # the call spans lines
        )
        return torch.relu(self.last(hidden))


class Folded(nn.Module):
    """Modules inside modules."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 12), nn.Sigmoid())

    def forward(self, batch: Tensor) -> Tensor:
        return self.decoder(self.encoder(batch))


class Convolutional(nn.Module):
    """A code of channels, with an activation module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.code, self.up = (
            nn.Conv2d(1, 4, 3, 2, 1),
            nn.Conv2d(4, 2, 3, 1, 1),
            nn.ConvTranspose2d(2, 1, 2, 2),
        )
        self.act, self.rectify = nn.ReLU(), nn.ReLU()

    def forward(self, batch: Tensor) -> Tensor:
        return self.up(self.rectify(self.code(self.act(self.down(batch)))))


class Looped(nn.Module):
    """One source line and one module that serve all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(3, 12)])

    def forward(self, batch: Tensor) -> Tensor:
        for layer in self.layers:
            batch = F.relu(layer(batch))
        return batch


def sequential() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 8), nn.ReLU(inplace=True), nn.Linear(8, 3), nn.ReLU(inplace=True), nn.Linear(3, 12)
    )


def rows() -> Tensor:
    return torch.rand(60, 12, generator=torch.Generator().manual_seed(3))


def images() -> Tensor:
    return torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(3))


def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    return {"reconstruction": F.mse_loss(model(batch), batch), "size": model(batch).abs().mean()}


STRANGERS = {
    "functional": harness.Case(Functional, rows, losses, "code"),
    "sequential": harness.Case(sequential, rows, losses, "2"),
    "convolutional": harness.Case(Convolutional, images, losses, "code"),
    "folded": harness.Case(Folded, rows, losses, "encoder.2"),
}
LOOPED = harness.Case(Looped, rows, losses, "layers.1")
