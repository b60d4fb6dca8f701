"""Diagnosis of the model's output: constant, R2 about the evaluation mean, dead features, level of PCA."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from harness.diagnosis.inputs import DiagnosisInputs
from harness.diagnosis.thresholds import Thresholds
from harness.diagnosis.unit_rules import output_verdict
from harness.diagnosis.units import OutputDiagnosis
from harness.diagnosis.verdicts import OutputVerdict
from harness.measures.constancy import is_constant
from harness.measures.reconstruction import pca_r2

MOST_COMPONENTS = 64
NORMAL = float(ndtri(0.975))


def output_diagnoses(request: DiagnosisInputs, live: list[int]) -> list[OutputDiagnosis | None]:
    """One `OutputDiagnosis` per member, with a PCA level for each live number of a row's code; None without an output.

    An output that is compared with nothing is judged only where it is constant.
    """
    if request.reconstruction is None or request.expected is None:
        return _uncompared(request, len(live))
    data, expected = request.inputs, request.expected
    components = 0 if data is None else min(max(live, default=0), MOST_COMPONENTS, data.shape[-1], len(data))
    # principal components of the inputs are a level for a reconstruction of these, not for another target
    levels = _levels(data, request.training, components) if data is expected else ()
    source = "evaluation" if request.training is None else "training"
    repeats = len(expected) / len(request.distinct)
    size = max(float(expected.abs().max()), torch.finfo(torch.float64).tiny)
    rows = expected.double() / size
    compared = _Compared(size, rows, _about_mean(rows), ~is_constant(expected, dtype=expected.dtype), repeats)
    testable = len(request.distinct) > 1 and bool(compared.varies.any())
    return [
        _judge(reconstruction, compared, testable, levels[:count], source, request.dtype, request.thresholds)
        for reconstruction, count in zip(request.reconstruction, live, strict=True)
    ]


def _uncompared(request: DiagnosisInputs, members: int) -> list[OutputDiagnosis | None]:
    if request.output is None or len(request.distinct) < 2:
        return [None] * members
    diagnoses: list[OutputDiagnosis | None] = []
    for output in request.output:
        if not bool(torch.isfinite(output).all()):
            diagnoses.append(OutputDiagnosis(OutputVerdict.INVALID))
        elif bool(is_constant(output, dtype=request.dtype).all()):
            diagnoses.append(OutputDiagnosis(OutputVerdict.CONSTANT_OUTPUT, constant=True))
        else:
            diagnoses.append(None)
    return diagnoses


def _levels(inputs: Tensor | None, training: Tensor | None, components: int) -> tuple[float, ...]:
    if inputs is None or components < 1 or len(inputs) < 2:
        return ()
    return tuple(float(level) for level in pca_r2(inputs if training is None else training, inputs, components))


@dataclass(frozen=True)
class _Compared:
    """The rows that every reconstruction is compared with.

    Args:
        size: the largest value; squares of 1e200 leave the range of float64, so all is divided by it.
        rows: `[sample, feature]`, float64. squares: of each row about the mean row, `[sample]`.
        varies: True for the features that vary. repeats: rows per distinct input row.
    """

    size: float
    rows: Tensor
    squares: Tensor
    varies: Tensor
    repeats: float


def _judge(
    reconstruction: Tensor,
    compared: _Compared,
    testable: bool,
    levels: tuple[float, ...],
    source: str,
    dtype: torch.dtype,
    thresholds: Thresholds,
) -> OutputDiagnosis:
    finite = bool(torch.isfinite(reconstruction).all())
    numbers: dict[str, float] = {"finite": finite, "testable": testable}
    if not finite or not testable:
        return OutputDiagnosis(output_verdict(numbers, thresholds), pca_r2=levels, pca_rows=source)
    numbers |= _explained(reconstruction.double(), compared)
    logits = False
    if numbers["r2_high"] <= thresholds.mean_output_r2 and _may_be_logits(reconstruction, compared):
        probabilities = torch.sigmoid(reconstruction.double())
        squashed = _explained(probabilities, compared)
        logits = squashed["r2_low"] > thresholds.mean_output_r2
        if logits:
            reconstruction, numbers = probabilities.to(reconstruction), numbers | squashed
    still = is_constant(reconstruction, dtype=dtype)
    dead = still & compared.varies
    numbers |= {"dead_share": int(dead.sum()) / int(compared.varies.sum()), "constant": bool(still.all())}
    return OutputDiagnosis(
        verdict=output_verdict(numbers, thresholds),
        r2=numbers["r2"],
        r2_interval=(numbers["r2_low"], numbers["r2_high"]),
        variance_ratio=numbers["variance_ratio"],
        dead_share=numbers["dead_share"],
        dead_features=tuple(dead.nonzero()[:, 0].tolist()),
        pca_r2=levels,
        pca_rows=source,
        constant=bool(numbers["constant"]),
        logits=logits,
    )


def _may_be_logits(reconstruction: Tensor, compared: _Compared) -> bool:
    """True if the rows lie between 0 and 1, and the output runs below and above."""
    rows = compared.rows * compared.size
    inside = float(rows.min()) >= 0 and float(rows.max()) <= 1
    return inside and float(reconstruction.min()) < 0 and float(reconstruction.max()) > 1


def _explained(reconstruction: Tensor, compared: _Compared) -> dict[str, float]:
    """R2 pooled over features, its 95 % interval over distinct rows (delta method), and the ratio of variances."""
    error, total = (reconstruction / compared.size - compared.rows).square().sum(-1), compared.squares.sum()
    unexplained = error.sum() / total
    spread = (error - unexplained * compared.squares).square().sum().sqrt() / total
    variance = _about_mean(reconstruction / compared.size).sum() / total
    r2, margin = float(1 - unexplained), NORMAL * float(spread) * float(np.sqrt(compared.repeats))
    return {"r2": r2, "r2_low": r2 - margin, "r2_high": min(r2 + margin, 1.0), "variance_ratio": float(variance)}


def _about_mean(rows: Tensor) -> Tensor:
    return (rows - rows.mean(0)).square().sum(-1)
