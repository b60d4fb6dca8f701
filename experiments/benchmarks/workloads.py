"""What is trained: the source network and its relatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from harness import Case, load_case
from harness.data import split_of
from harness.data.rows import Rows, Split
from harness.remedies import apply_remedies

SOURCE = "source, KL on a sigmoid code"


@dataclass(frozen=True)
class Workload:
    """Cases on one set of rows.

    Args:
        cases: one a structure.
        rows: the training inputs.
    """

    cases: Sequence[Case]
    rows: Tensor


class Convolutional(nn.Module):
    """A small convolutional autoencoder on 8 x 8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.code = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Linear(128, 8)
        self.up, self.out = nn.Linear(8, 128), nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = F.relu(self.first(rows.view(-1, 1, 8, 8))).flatten(1)
        return self.out(F.relu(self.up(F.relu(self.code(hidden)))).view(-1, 8, 4, 4)).flatten(1)


class Wide(nn.Module):
    """100-400-64 and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 64), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(64, 400), nn.ReLU(), nn.Linear(400, 100))

    def forward(self, rows: Tensor) -> Tensor:
        return self.decoder(self.encoder(rows))


def squared(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error."""
    return {"reconstruction": F.mse_loss(model(batch), batch)}


def source(levels: dict[str, Any]) -> Workload:
    """The source network under these remedies, on its own data."""
    forum = load_case("forum")
    split = split_of(forum)
    return Workload([apply_remedies(forum, levels, split)], split.train.inputs)


def digits() -> Workload:
    """KL on a sigmoid code on small digits."""
    case = load_case("digits")
    rows = split_of(case).train.inputs
    own = Split(Rows(rows), Rows(rows), "digits")
    return Workload([apply_remedies(case, {"penalty": "kl_sigmoid_bottleneck"}, own)], rows)


def convolutional() -> Workload:
    """A convolutional autoencoder on the same digits."""
    rows = split_of(load_case("digits")).train.inputs
    return Workload([Case(Convolutional, lambda: rows, squared, "code")], rows)


def wide() -> Workload:
    """A wide network on the source's data."""
    rows = split_of(load_case("forum")).train.inputs
    return Workload([Case(Wide, lambda: rows, squared, "encoder.2")], rows)


def structures(count: int = 40) -> Workload:
    """Source networks that differ in the width of their bottleneck, so that none shares a stack with another."""
    forum = replace(load_case("forum"), train={})
    split = split_of(forum)
    widths = [2 + 7 * index % count for index in range(count)]  # any few in a row are narrow and wide
    cases = [apply_remedies(forum, {"penalty": "none", "units": width}, split) for width in widths]
    return Workload(cases, split.train.inputs)


WORKLOADS: dict[str, Callable[[], Workload]] = {
    SOURCE: lambda: source({"penalty": "kl_sigmoid_bottleneck"}),
    "source, as posted": lambda: source({}),
    "source, BatchNorm": lambda: source({"penalty": "none", "batchnorm": "on"}),
    "source, dropout": lambda: source({"penalty": "none", "dropout": 0.2}),
    "digits": digits,
    "convolutional": convolutional,
    "wide 100-400-64": wide,
    "40 structures, from nothing": structures,
}
