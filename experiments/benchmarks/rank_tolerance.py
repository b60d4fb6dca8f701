"""Tolerance of the rank: healthy codes called collapsed, and collapsed codes found, at several tolerances.

    OMP_NUM_THREADS=1 python experiments/benchmarks/rank_tolerance.py

prints the table of docs/reference/diagnosis.md in half a minute. Healthy codes are random linear maps of their inputs through an
activation, or principal components; none loses a dimension that the inputs have. Collapsed codes have a quarter or a
half of the dimensions that they could have, and noise of a stated share of each unit's standard deviation.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from harness import diagnose
from harness.diagnosis import THRESHOLDS

ROWS, WIDTHS, SEEDS = 1024, (8, 24), 4
TOLERANCES = (1e-3, 3e-3, 1e-2, 3e-2)
NOISES = (0.0, 0.01, 0.03, 0.1, 0.2)
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def inputs(generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of five populations: independent, six dimensions, the same with noise, a falling spectrum, a random walk."""
    hidden = torch.randn(ROWS, 6, generator=generator) @ torch.randn(6, 40, generator=generator)
    yield torch.randn(ROWS, 20, generator=generator)
    yield hidden
    yield hidden + 0.1 * torch.randn(ROWS, 40, generator=generator)
    yield torch.randn(ROWS, 40, generator=generator) * torch.logspace(0, -1.5, 40)
    yield torch.randn(ROWS, 40, generator=generator).cumsum(1)


def healthy(generator: torch.Generator, units: int) -> Iterator[tuple[Tensor, str, Tensor]]:
    """Codes that keep every dimension they can, each with its activation and its inputs."""
    for rows in inputs(generator):
        weights = torch.randn(rows.shape[1], units, generator=generator) / rows.shape[1] ** 0.5
        for name, activation in ACTIVATIONS.items():
            yield activation(rows @ weights), name, rows
        axes = torch.linalg.svd(rows - rows.mean(0), full_matrices=False).Vh
        # components beyond those that the rows have are rounding
        yield rows @ axes[: min(units, 6)].T, "none", rows


def collapsed(generator: torch.Generator, units: int, noise: float) -> Iterator[tuple[Tensor, str, Tensor]]:
    """Codes of a quarter or a half of the possible dimensions."""
    for dimensions in (units // 4, units // 2):
        rows = torch.randn(ROWS, 30, generator=generator)
        code = rows[:, :dimensions] @ torch.randn(dimensions, units, generator=generator)
        yield code / code.std(0) + noise * torch.randn(ROWS, units, generator=generator), "none", rows


def main() -> None:
    """Print one line per tolerance."""
    heads = ("tolerance", "healthy codes called collapsed", *(f"found, noise {noise:g}" for noise in NOISES))
    print("| " + " | ".join(heads) + " |\n|" + "---:|" * len(heads))
    for tolerance in TOLERANCES:
        thresholds = replace(THRESHOLDS, rank_tolerance=tolerance)
        tally: Counter[object] = Counter()
        total: Counter[object] = Counter()
        for seed in range(SEEDS):
            generator = torch.Generator().manual_seed(seed)
            for units in WIDTHS:
                codes = {None: healthy(generator, units)} | {
                    noise: collapsed(generator, units, noise) for noise in NOISES
                }
                for kind, draws in codes.items():
                    for code, activation, rows in draws:
                        diagnosis = diagnose(code, activation=activation, inputs=rows, thresholds=thresholds)
                        # two dimensions and little noise make some units copies, which is found first
                        tally[kind] += diagnosis.verdict in ("dimensional_collapse", "redundant")
                        total[kind] += 1
        cells = [f"{tally[kind]}/{total[kind]}" for kind in (None, *NOISES)]
        print("| " + " | ".join([f"{tolerance:g}", *cells]) + " |")


if __name__ == "__main__":
    main()
