"""The reconstruction: R2 about the evaluation mean, dead features, and what principal components reach."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harness.diagnosis.result import OutputDiagnosis
from harness.diagnosis.thresholds import Thresholds
from harness.diagnosis.unit_rules import output_verdict
from harness.measures.constancy import is_constant
from harness.measures.reconstruction import pca_r2

MOST_COMPONENTS = 64


def output_diagnoses(
    reconstruction: Tensor,
    inputs: Tensor,
    live: list[int],
    training: Tensor | None,
    dtype: torch.dtype,
    thresholds: Thresholds,
) -> list[OutputDiagnosis]:
    """One `OutputDiagnosis` a member of `[member, sample, feature]`, with a PCA level for each live unit."""
    components = min(max(live, default=0), MOST_COMPONENTS, inputs.shape[-1], len(inputs))
    levels = _levels(inputs, training, components)
    rows = "evaluation" if training is None else "training"
    data = _Data(inputs.double(), _about_mean(inputs.double()), ~is_constant(inputs, dtype=inputs.dtype))
    return [
        _judge(each, data, levels[:count], rows, dtype, thresholds)
        for each, count in zip(reconstruction, live, strict=True)
    ]


def _levels(inputs: Tensor, training: Tensor | None, components: int) -> tuple[float, ...]:
    if components < 1 or len(inputs) < 2:
        return ()
    return tuple(float(each) for each in pca_r2(inputs if training is None else training, inputs, components))


@dataclass(frozen=True)
class _Data:
    """What every reconstruction is compared with.

    Args:
        inputs: `[sample, feature]`, float64. squares: of each row about the mean row, `[sample]`.
        varies: which features do.
    """

    inputs: Tensor
    squares: Tensor
    varies: Tensor


def _judge(
    made: Tensor, data: _Data, levels: tuple[float, ...], rows: str, dtype: torch.dtype, thresholds: Thresholds
) -> OutputDiagnosis:
    finite = bool(torch.isfinite(made).all())
    numbers: dict[str, float] = {"finite": finite, "testable": len(data.inputs) > 1 and bool(data.varies.any())}
    if not numbers["finite"] or not numbers["testable"]:
        return OutputDiagnosis(output_verdict(numbers, thresholds), pca_r2=levels, pca_rows=rows)
    numbers |= _explained(made.double(), data)
    dead = is_constant(made, dtype=dtype) & data.varies
    numbers["dead_share"] = int(dead.sum()) / int(data.varies.sum())
    return OutputDiagnosis(
        verdict=output_verdict(numbers, thresholds),
        r2=numbers["r2"],
        r2_interval=(numbers["r2_low"], numbers["r2_high"]),
        variance_ratio=numbers["variance_ratio"],
        dead_share=numbers["dead_share"],
        dead_features=tuple(int(each) for each in dead.nonzero()[:, 0]),
        pca_r2=levels,
        pca_rows=rows,
    )


def _explained(made: Tensor, data: _Data) -> dict[str, float]:
    """R2 pooled over features, its 95 % interval over rows (delta method), and the ratio of variances."""
    error, total = (made - data.inputs).square().sum(-1), data.squares.sum()
    unexplained = error.sum() / total
    spread = (error - unexplained * data.squares).square().sum().sqrt() / total
    variance = _about_mean(made).sum() / total
    r2, margin = float(1 - unexplained), NORMAL * float(spread)
    return {"r2": r2, "r2_low": r2 - margin, "r2_high": r2 + margin, "variance_ratio": float(variance)}


def _about_mean(rows: Tensor) -> Tensor:
    return (rows - rows.mean(0)).square().sum(-1)


NORMAL = float(np.sqrt(2) * torch.special.erfinv(torch.tensor(0.95, dtype=torch.float64)))
