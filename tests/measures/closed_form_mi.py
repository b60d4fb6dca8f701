"""Units and references whose mutual information is known exactly: each draws `(unit, reference, nats)`."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, special, stats

Array = NDArray[np.float64]
Drawn = tuple[Array, NDArray[np.generic], float]
Task = Callable[[np.random.Generator, int], Drawn]


def _pair(generator: np.random.Generator, rows: int, correlation: float) -> tuple[Array, Array]:
    first, second = generator.standard_normal((2, rows))
    return first, correlation * first + np.sqrt(1 - correlation**2) * second


def binormal(correlation: float) -> Task:
    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        return *_pair(generator, rows, correlation), -0.5 * np.log(1 - correlation**2)

    return draw


def student(freedom: int) -> Task:
    """Uncorrelated normals divided by one common scale: dependent in size alone."""

    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        size = np.sqrt(generator.chisquare(freedom, rows) / freedom)
        first, second = generator.standard_normal((2, rows)) / size
        alone = stats.t(freedom).entropy()
        together = stats.multivariate_t(np.zeros(2), np.eye(2), df=freedom).entropy()
        return first, second, float(2 * alone - together)

    return draw


def uniform_noise(width: float) -> Task:
    """s uniform on (0, 1), seen with uniform noise of +- width: -log 2w + w."""

    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        clean = generator.random(rows)
        return clean + generator.uniform(-width, width, rows), clean, width - np.log(2 * width)

    return draw


def censored(correlation: float, threshold: float) -> Task:
    """A ReLU of y - threshold, y normal: above the threshold all is kept, below it one bit."""

    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        other, y = _pair(generator, rows, correlation)
        return np.maximum(y - threshold, 0).astype(np.float32), other, _censored(correlation, threshold)

    return draw


def _censored(correlation: float, threshold: float) -> float:
    rest = np.sqrt(1 - correlation**2)
    below = stats.norm.cdf(threshold)

    def atom(s: float) -> float:
        chance = stats.norm.cdf((threshold - correlation * s) / rest)
        return stats.norm.pdf(s) * special.xlogy(chance, chance / below)

    def above(y: float) -> float:
        # E over s given y of log p(y|s)/p(y), with s given y normal of mean r y and variance 1 - r^2
        residual = correlation**2 * (y - y) + (1 - correlation**2) ** 2 * y**2 + correlation**2 * (1 - correlation**2)
        return stats.norm.pdf(y) * (-np.log(rest) - residual / (2 * rest**2) + y**2 / 2)

    return integrate.quad(atom, -9, 9)[0] + integrate.quad(above, threshold, 9)[0]


def uniform_steps(classes: int, as_classes: bool) -> Task:
    """s of `classes` integers, z uniform on (s, s + 2): log classes - (1 - 1/classes) log 2."""

    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        step = generator.integers(0, classes, rows)
        exact = np.log(classes) - (1 - 1 / classes) * np.log(2)
        return generator.uniform(step, step + 2), step if as_classes else step * 1.0, exact

    return draw


def mixture(classes: int, spacing: float) -> Task:
    """Normal units of variance 1 whose mean is spacing x class."""

    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        label = generator.integers(0, classes, rows)
        return generator.standard_normal(rows) + spacing * label, label, _mixture(classes, spacing)

    return draw


def _mixture(classes: int, spacing: float) -> float:
    line = np.linspace(-9, spacing * (classes - 1) + 9, 40001)
    density = stats.norm.pdf(line[:, None] - spacing * np.arange(classes)).mean(1)
    return float(integrate.simpson(special.entr(density), x=line) - stats.norm.entropy())


def discretised(levels: int, kept: float, as_classes: bool) -> Task:
    """A unit of so many levels that shows the class with probability `kept`, else any level."""

    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        label = generator.integers(0, levels, rows)
        unit = np.where(generator.random(rows) < kept, label, generator.integers(0, levels, rows)) * 0.25
        right = kept + (1 - kept) / levels
        wrong = (1 - kept) / levels
        exact = np.log(levels) + special.xlogy(right, right) + (levels - 1) * special.xlogy(wrong, wrong)
        return unit, label if as_classes else label * 1.0, float(exact)

    return draw


def independent_labels(classes: int) -> Task:
    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        return generator.standard_normal(rows), generator.integers(0, classes, rows), 0.0

    return draw


def saturating(correlation: float, gain: float) -> Task:
    """A float32 sigmoid of gain x y: one to one up to rounding, with atoms at both ends."""

    def draw(generator: np.random.Generator, rows: int) -> Drawn:
        other, y = _pair(generator, rows, correlation)
        return special.expit((gain * y).astype(np.float32)), other, -0.5 * np.log(1 - correlation**2)

    return draw


TASKS: dict[str, tuple[Task, float]] = {
    # the second number: largest mean error over the seeds, whose standard error is about .01
    "binormal .75": (binormal(0.75), 0.03),
    "binormal .95": (binormal(0.95), 0.03),
    "binormal 0": (binormal(0.0), 0.025),
    "student 1": (student(1), 0.03),
    "student 3": (student(3), 0.03),
    "uniform noise .1": (uniform_noise(0.1), 0.065),
    "uniform noise .5": (uniform_noise(0.5), 0.03),
    "relu at 0": (censored(0.75, 0.0), 0.03),
    "relu at 1": (censored(0.9, 1.0), 0.03),
    "sigmoid, gain 1": (saturating(0.75, 1.0), 0.03),
    "five steps, as floats": (uniform_steps(5, False), 0.025),
    "five steps, as classes": (uniform_steps(5, True), 0.025),
    "two normals": (mixture(2, 2.0), 0.03),
    "ten normals": (mixture(10, 1.5), 0.03),
    "four levels, as classes": (discretised(4, 0.6, True), 0.03),
    "four levels, as floats": (discretised(4, 0.6, False), 0.03),
    "ten labels, independent": (independent_labels(10), 0.02),
}
