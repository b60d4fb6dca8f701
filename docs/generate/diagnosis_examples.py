"""An example of every verdict and flag of the diagnosis: activations as arguments of `harness.diagnose`, and a caption."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

ROWS = 2048


@dataclass(frozen=True)
class Example:
    """Activations, the other arguments of `harness.diagnose`, and what the picture shows."""

    activations: Tensor
    caption: str
    arguments: dict[str, Any] = field(default_factory=dict)
    picture: Tensor | None = None  # drawn instead of the activations


def normal(rows: int = ROWS, units: int = 4, seed: int = 0) -> Tensor:
    """Standard normal values of a fixed seed."""
    return torch.randn(rows, units, generator=torch.Generator().manual_seed(seed))


def rectified(rows: int = ROWS, units: int = 4) -> Tensor:
    """A healthy ReLU code."""
    return normal(rows, units).relu()


def with_unit(code: Tensor, unit: Tensor | float, index: int = 0) -> Tensor:
    """The code with one unit replaced."""
    code = code.clone()
    code[:, index] = unit
    return code


def on_rows(count: int, rows: int = ROWS) -> Tensor:
    """A unit that fires on a few rows."""
    unit = torch.zeros(rows)
    unit[torch.arange(count) * (rows // count)] = 1 + torch.arange(count) / 10
    return unit


def only_first(unit: Tensor) -> Tensor:
    """One unit, and three that are 0."""
    return torch.cat([unit[:, None], torch.zeros(len(unit), 3)], 1)


def posterior(rows: int) -> Example:
    """Means of a variational code whose first unit equals the prior."""
    means = with_unit(normal(rows), 0.001 * normal(rows, 1, seed=1)[:, 0])
    log_variance = with_unit(torch.full((rows, 4), -3.0), 0.0)
    return Example(
        means, "Unit 0: mean 0 and variance 1 for every row", {"posterior": log_variance, "activation": "none"}
    )


def reconstruction(output: Tensor, caption: str, inputs: Tensor | None = None) -> Example:
    """A healthy code whose reconstruction is at fault; the picture shows the reconstruction."""
    data = normal(units=6, seed=2) if inputs is None else inputs
    return Example(rectified(), caption, {"inputs": data, "reconstruction": output}, picture=output)


def low_rank() -> Example:
    """Eight units that span two dimensions of eight-dimensional inputs."""
    inputs = normal(units=8, seed=3)
    return Example(
        inputs[:, :2] @ normal(2, 8, seed=4),
        "Eight units are mixtures of two",
        {"inputs": inputs, "activation": "none"},
    )


def class_points() -> Example:
    """A code that has a point for each of four classes."""
    labels = torch.arange(ROWS) % 4
    code = normal(4, 8, seed=5)[labels] + 0.02 * normal(units=8)
    return Example(code, "Rows of one class have one code", {"labels": labels, "activation": "none"})


def copies(distinct: int, units: int) -> Tensor:
    """A code whose last units repeat the first ones."""
    code = rectified(units=distinct)
    return code[:, [index % distinct for index in range(units)]]


def half_noise() -> Example:
    """A unit that is noise of its own in each of two passes."""
    code = rectified()
    repeat = with_unit(code, code[:, 0] + 0.5 * normal(units=1, seed=6)[:, 0].abs())
    return Example(code, "Unit 0 differs between two passes over the same rows", {"repeat": repeat})


EXAMPLES: dict[str, Callable[[], Example]] = {
    "invalid": lambda: Example(with_unit(rectified(), float("nan")), "Unit 0 is NaN", {"activation": "relu"}),
    "not_testable": lambda: Example(
        rectified(1).expand(64, 4), "Every input row is the same", {"inputs": torch.ones(64, 6)}
    ),
    "never_fired": lambda: Example(with_unit(rectified(50), 0.0), "Unit 0 is 0 on 50 rows"),
    "dead": lambda: Example(with_unit(rectified(), 0.0), "Unit 0 is 0 on 2048 rows"),
    "constant_at_target": lambda: Example(
        with_unit(normal().sigmoid(), 0.05), "Unit 0 is 0.05, the target", {"activation": "sigmoid", "target": 0.05}
    ),
    "constant_on": lambda: Example(with_unit(rectified(), 1.5), "Unit 0 is 1.5 on every row"),
    "constant_off": lambda: Example(
        with_unit(normal().tanh(), -0.3), "Unit 0 is -0.3 on every row, behind a tanh", {"activation": "tanh"}
    ),
    "subthreshold": lambda: Example(
        with_unit(normal(), -0.01 * normal(seed=7)[:, 0].abs() - 0.001),
        "Unit 0 stays below 0",
        {"activation": "leaky_relu"},
    ),
    "rare_insufficient": lambda: Example(with_unit(rectified(), on_rows(3)), "Unit 0 fires on 3 of 2048 rows"),
    "at_prior": lambda: posterior(ROWS),
    "near_constant": lambda: Example(
        with_unit(rectified(), 5 + 0.001 * normal(seed=8)[:, 0]), "Unit 0 varies between 4.996 and 5.004"
    ),
    "rare": lambda: Example(with_unit(rectified(), on_rows(10)), "Unit 0 fires on 10 of 2048 rows"),
    "saturated_bimodal": lambda: Example(
        with_unit(normal().sigmoid(), (200 * normal(seed=9)[:, 0]).sigmoid()),
        "Unit 0 is 0 or 1",
        {"activation": "sigmoid"},
    ),
    "alive": lambda: Example(rectified(), "Every unit varies from row to row"),
    "stochastic": half_noise,
    "heavy_tailed": lambda: Example(
        with_unit(
            rectified(), with_unit(rectified(), 0.1 * rectified()[:, 1])[:, 0].index_fill(0, torch.tensor([10]), 60.0)
        ),
        "One row of unit 0 is 60",
    ),
    "unused": lambda: Example(
        rectified(),
        "Unit 3 varies, but its mean serves the decoder as well",
        {"ablation": torch.tensor([0.2, 0.1, 0.3, 1e-5])},
    ),
    "always_on": lambda: Example(with_unit(rectified(), 5 + normal(seed=10)[:, 0].clamp(-3, 3)), "Unit 0 is never off"),
    "input_independent": lambda: Example(
        with_unit(normal().tanh(), torch.linspace(-0.9, 0.9, 8).repeat(ROWS // 8)),
        "Unit 0 has one value at each of the 8 positions of a sample",
        {"activation": "tanh", "positions": torch.arange(8).repeat(ROWS // 8)},
    ),
    "full_collapse": lambda: Example(torch.zeros(ROWS, 4), "Every unit is 0 on every row", {"activation": "relu"}),
    "single_live_unit": lambda: Example(only_first(rectified()[:, 0]), "Unit 0 varies, the others are 0"),
    "near_collapse": lambda: Example(5 + 0.001 * normal(), "Every unit varies between 4.996 and 5.004"),
    "partial_collapse": lambda: Example(with_unit(rectified(), 0.0), "Unit 0 is 0 on every row"),
    "redundant": lambda: Example(copies(2, 6), "Units 2 to 5 repeat units 0 and 1"),
    "dimensional_collapse": low_rank,
    "healthy": lambda: Example(rectified(), "Every unit varies by itself"),
    "single_unit_dominance": lambda: Example(
        only_first(5 + normal(seed=10)[:, 0].clamp(-3, 3)), "Unit 0 is never off, the others are 0"
    ),
    "duplicates": lambda: Example(copies(5, 6), "Unit 5 repeats unit 0"),
    "nonlinear_redundancy": lambda: Example(
        with_unit(normal(), normal()[:, 1] ** 2), "Unit 0 is the square of unit 1", {"activation": "none"}
    ),
    "neural_collapse": class_points,
    "rank_not_testable": lambda: Example(normal(20, 8), "20 rows of 8 units", {"activation": "none"}),
    "posterior_not_testable": lambda: posterior(50),
    "nonlinear_redundancy_not_searched": lambda: Example(rectified(1100, 260), "260 units"),
    "invalid_output": lambda: reconstruction(with_unit(normal(units=6, seed=2), float("nan")), "Output 0 is NaN"),
    "output_not_testable": lambda: reconstruction(normal(units=6), "The data are 1 everywhere", torch.ones(ROWS, 6)),
    "constant_output": lambda: reconstruction(torch.full((ROWS, 6), 0.4), "The output is 0.4 everywhere"),
    "mean_output": lambda: reconstruction(0.05 * normal(units=6, seed=11), "The output does not follow the data"),
    "dead_outputs": lambda: reconstruction(
        with_unit(normal(units=6, seed=2), 0.0), "Output 0 is constant, although the data vary there"
    ),
    "logits_output": lambda: reconstruction(
        3 * normal(units=6, seed=2), "The data are the sigmoid of the output", (3 * normal(units=6, seed=2)).sigmoid()
    ),
    "below_pca": lambda: reconstruction(
        normal(units=2, seed=12) @ normal(2, 6, seed=13) + 0.8 * normal(units=6, seed=14),
        "The output follows the data with more noise than principal components have",
        normal(units=2, seed=12) @ normal(2, 6, seed=13),
    ),
}
