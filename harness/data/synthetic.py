"""Data with planted factors, so that the true mutual information is known.

Every factor moves the row along its own direction, all directions are orthogonal, and every feature has independent normal
noise. The most informative unit about one factor is the projection on its direction, `factor + noise`;
`planted_information` integrates its mutual information with the factor.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.errors import HarnessError, did_you_mean

if TYPE_CHECKING:
    from harness.data.rows import Rows

TRAIN, EVALUATION = 2048, 1024


@dataclass(frozen=True)
class Planted:
    """One generative factor.

    Args:
        name: name of the factor in the rows.
        distribution: `normal` (mean 0, standard deviation 1), `uniform` (0 to 1) or `classes` (equally likely).
        scale: distance by which one unit of the factor moves the row, in standard deviations of the noise.
        classes: number of classes; 0 for a continuous factor.
    """

    name: str
    distribution: str
    scale: float
    classes: int = 0

    def draw(self, generator: np.random.Generator, rows: int) -> NDArray[np.int64] | NDArray[np.float64]:
        """Draw values, `[sample]`: integers for classes, else float64."""
        if self.distribution == "classes":
            return generator.integers(self.classes, size=rows)
        return generator.normal(size=rows) if self.distribution == "normal" else generator.uniform(size=rows)


def synthetic_20() -> "tuple[Rows, Rows]":
    """20 features of two continuous and two discrete factors; the factor `kind` is the label."""
    return _draw(20, MIXED)


def synthetic_100() -> "tuple[Rows, Rows]":
    """The same factors in 100 features."""
    return _draw(100, MIXED)


def synthetic_100_clusters() -> "tuple[Rows, Rows]":
    """100 features of discrete factors only: ten clusters (the label), four, and two."""
    return _draw(100, CLUSTERS)


def synthetic_100_offset() -> "tuple[Rows, Rows]":
    """The 100 features of `synthetic_100` with 5 added to each: inputs far from zero, which can make units dead at initialization."""
    return _draw(100, MIXED, offset=5.0)


def planted_information(name: str) -> dict[str, float]:
    """Mutual information, in nats, of each factor with the rows' projection on its direction; from 0 to ln classes.

    For the normal factor it has the closed form -ln(1 - r^2)/2, with r^2 = 16/17.

    >>> round(planted_information("synthetic_20")["level"], 4), round(0.5 * np.log(17), 4).item()
    (1.4166, 1.4166)

    Raises:
        HarnessError: for a data set without planted factors.
    """
    if name not in PLANTED:
        raise HarnessError(did_you_mean("synthetic data set", name, PLANTED))
    return {planted.name: _information(planted) for planted in PLANTED[name]}


def _information(planted: Planted) -> float:
    # I(F; F + noise) = h(F + noise) - h(noise); the density of the sum is an average of shifted normals
    levels, weights = _levels(planted)
    values, step = np.linspace(levels.min() - 9, levels.max() + 9, 4001, retstep=True)
    normals = np.exp(-((values[:, None] - levels) ** 2) / 2) / np.sqrt(2 * np.pi)
    density = np.maximum(normals @ weights, 1e-300)
    return float(-(density * np.log(density)).sum() * step - 0.5 * np.log(2 * np.pi * np.e))


def _levels(planted: Planted) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    if planted.distribution == "classes":
        return planted.scale * np.arange(planted.classes), np.full(planted.classes, 1 / planted.classes)
    points = np.linspace(-8, 8, 1601) if planted.distribution == "normal" else (np.arange(1000) + 0.5) / 1000
    weights = np.exp(-(points**2) / 2) if planted.distribution == "normal" else np.ones(1000)
    return planted.scale * points, weights / weights.sum()


def directions(features: int, count: int) -> NDArray[np.float64]:
    """Return orthonormal directions `[count, feature]`, the same for every call."""
    square = np.random.default_rng(0).normal(size=(features, count))
    return np.linalg.qr(square)[0].T


def _draw(features: int, planted: Sequence[Planted], offset: float = 0.0) -> "tuple[Rows, Rows]":
    generator = np.random.default_rng(1)
    return _sample(generator, TRAIN, features, planted, offset), _sample(
        generator, EVALUATION, features, planted, offset
    )


def _sample(
    generator: np.random.Generator, rows: int, features: int, planted: Sequence[Planted], offset: float
) -> "Rows":
    from harness.data.rows import Rows
    from harness.data.tensors import tensor

    values = {factor.name: factor.draw(generator, rows) for factor in planted}
    moved = np.stack([factor.scale * values[factor.name] for factor in planted], axis=1)
    inputs = moved @ directions(features, len(planted)) + generator.normal(size=(rows, features))
    labels = next(values[factor.name] for factor in planted if factor.distribution == "classes")
    return Rows(tensor(inputs + offset), tensor(labels), {name: tensor(column) for name, column in values.items()})


MIXED = (
    Planted("level", "normal", scale=4.0),
    Planted("phase", "uniform", scale=12.0),
    Planted("kind", "classes", scale=3.0, classes=4),
    Planted("switch", "classes", scale=6.0, classes=2),
)
CLUSTERS = (
    Planted("cluster", "classes", scale=3.0, classes=10),
    Planted("kind", "classes", scale=4.0, classes=4),
    Planted("switch", "classes", scale=6.0, classes=2),
)
PLANTED: dict[str, tuple[Planted, ...]] = {
    "synthetic_20": MIXED,
    "synthetic_100": MIXED,
    "synthetic_100_clusters": CLUSTERS,
    "synthetic_100_offset": MIXED,
}
