"""From a matrix of activations to a diagnosis: check, measure, judge, explain."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from harness.diagnosis.assembly import DiagnosisParts, assemble
from harness.diagnosis.input_checks import yes_or_no
from harness.diagnosis.inputs import DiagnosisInputs, check_inputs
from harness.diagnosis.layer_rules import layer_verdicts, padded
from harness.diagnosis.output_rules import output_diagnoses
from harness.diagnosis.redundancy import comparable_units, unit_redundancy
from harness.diagnosis.references import reference_dependence
from harness.diagnosis.result import Diagnosis, OutputDiagnosis
from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.diagnosis.unit_rules import (
    UNIT_VERDICTS,
    Evidence,
    LayerStructure,
    constant_units,
    unit_places,
    unit_verdicts,
)
from harness.diagnosis.verdicts import CONSTANT, UNJUDGED
from harness.measures.reliability import reliability_table
from harness.measures.unit_table import Saturation, Table, entropy_table, range_ratios, unit_table


def diagnose(
    activations: Any,
    activation: str = "relu",
    labels: Any = None,
    factors: Mapping[str, Any] | None = None,
    inputs: Any = None,
    reconstruction: Any = None,
    target: float | None = None,
    repeat: Any = None,
    members: bool = False,
    *,
    dtype: Any = None,
    scale: Any = None,
    ablation: Any = None,
    blocks: Any = None,
    training_inputs: Any = None,
    normalised: Any = None,
    thresholds: Thresholds = THRESHOLDS,
    information: bool = True,
) -> Any:
    """Is this layer collapsed, which unit, and how.

    Args:
        activations: `[sample, unit]` in eval mode on held-out rows; `[member, sample, unit]` with `members=True`. NaN
            is a verdict (`invalid`), never an error.
        activation: relu, leaky_relu, elu, gelu, silu, softplus, sigmoid, tanh, or none (= linear).
        labels: `[sample]` integers, classes to take mutual information with.
        factors: name -> `[sample]`; integers are classes, floats a continuous factor.
        inputs: `[sample, ...]`, what the model was given; tells identical rows and the input's dimension.
        reconstruction: `[sample, ...]` (`[member, sample, ...]` with members), compared with `inputs`.
        target: the penalty's target activation rho.
        repeat: a second pass over the same rows, shaped like `activations`, which tells noise from dependence.
        members: several models at once; a list of diagnoses comes back.
        dtype: the model's own precision, where the values were copied to another or read from text.
        scale: `[unit]`, sum of |weight| E|input| + |bias|, the size of the sum that was rounded.
        ablation: `[unit]`, R2 lost when the unit is replaced by its mean.
        blocks: `[sample]`, rows that belong together (windows of one series) and are permuted together.
        training_inputs: rows that PCA is fitted on; the judged rows where there are none.
        normalised: the values before a normalisation, shaped like `activations`: float noise can hide behind one.
        thresholds: the numbers that the verdicts rest on.
        information: False leaves out labels and factors.

    Returns:
        A `Diagnosis`, or with `members=True` a list with one a member.

    Raises:
        HarnessError: for bad input: wrong rank or length, no rows, values that are no real numbers, labels that are no
            classes, a reconstruction without inputs.

    Source: Clopper & Pearson 1934 (never, always); Benjamini & Hochberg 1995; Roy & Vetterli 2007 (effective rank). The
    thresholds' sources are in `threshold_table()`.

    >>> str(diagnose(np.zeros((400, 4))).verdict)
    'full_collapse'
    """
    labels, factors = (labels, factors) if yes_or_no(information, "information") else (None, None)
    request = check_inputs(
        activations, activation, labels, factors, inputs, reconstruction, target, repeat, members, dtype, scale,
        ablation, blocks, training_inputs, normalised, thresholds,
    )  # fmt: skip
    found = diagnose_inputs(request)
    return found if members else found[0]


def diagnose_inputs(request: DiagnosisInputs) -> list[Diagnosis]:
    """One diagnosis a member."""
    table = _measured(request)
    evidence = _evidence(request, table, np.ones(table["finite"].shape))
    tested = _tested(request, evidence)
    constant = constant_units(evidence, request.thresholds)
    shared = reference_dependence(
        request.activations, request.references, tested, evidence.finite, constant, request.blocks, request.thresholds
    )
    evidence = _evidence(request, table, shared.smallest_p)
    places = unit_places(evidence, request.thresholds)
    units = UNIT_VERDICTS[places]
    live = np.array([[each not in CONSTANT and each not in UNJUDGED for each in row] for row in units])
    comparable = comparable_units(live, evidence.fired, evidence.rows, evidence.can_be_off, request.thresholds.few_rows)
    relations = unit_redundancy(request.activations, live, comparable, request.thresholds)
    structure = LayerStructure(
        padded([each.links for each in relations]),
        np.array([each.corrected for each in relations]),
        _dimension(request),
    )
    layers = layer_verdicts(places, evidence, structure, request.thresholds).tolist()
    outputs = _outputs(request, live)
    return assemble(
        DiagnosisParts(
            evidence,
            table,
            units,
            layers,
            shared,
            relations,
            outputs,
            request.ablation,
            _dimension(request),
            request.thresholds,
        )
    )


def _measured(request: DiagnosisInputs) -> Table:
    saturation = Saturation(request.thresholds.saturation, request.thresholds.saturated_share)
    table = unit_table(request.activations, request.activation, request.dtype, request.scale, saturation)
    table |= entropy_table(request.activations, table["finite"], table["power"], request.activation)
    table["before_ratio"] = np.full(table["mean"].shape, np.inf)
    if request.before is not None:
        table["before_ratio"] = range_ratios(request.before, request.dtype)
    table["reliability_bound"] = np.full(table["mean"].shape, np.inf)
    if request.repeat is not None:
        table |= reliability_table(request.activations, request.repeat, table["tolerance"])
        table["finite"] = table["finite"] * table["repeat_finite"]
    return table


def _evidence(request: DiagnosisInputs, table: Table, p_adjusted: NDArray[np.float64]) -> Evidence:
    shape = table["finite"].shape
    rows = request.activations.shape[-2]
    return Evidence(
        activation=request.activation,
        rows=rows,
        target=request.target,
        testable=np.full(shape[0], rows > 1 and _inputs_differ(request.inputs)),
        finite=table["finite"] > 0,
        range_ratio=table["range_ratio"],
        before_ratio=table["before_ratio"],
        outside_ratio=table["outside_ratio"],
        fired=table["fired_rows"].astype(np.int64),
        mean=table["mean"],
        variation=table["variation"],
        p_adjusted=p_adjusted,
        saturated=table.get("saturated", np.zeros(shape)),
        low_end=table.get("low_end", np.zeros(shape)) > 0,
        high_end=table.get("high_end", np.zeros(shape)) > 0,
        reliability_high=table["reliability_bound"],
    )


def _tested(request: DiagnosisInputs, evidence: Evidence) -> NDArray[np.bool_]:
    """`[member, unit]`: units on which dependence can be tested: finite, not constant, fired often enough."""
    verdicts = unit_verdicts(evidence, request.thresholds)
    left_out = CONSTANT | UNJUDGED | {"rare_insufficient"}
    return np.array([[each not in left_out for each in row] for row in verdicts])


def _inputs_differ(inputs: Tensor | None) -> bool:
    return inputs is None or bool((inputs != inputs[:1]).any())


def _dimension(request: DiagnosisInputs) -> float:
    return float("inf") if request.inputs is None else float(request.inputs.shape[-1])


def _outputs(request: DiagnosisInputs, live: NDArray[np.bool_]) -> list[OutputDiagnosis | None]:
    if request.reconstruction is None or request.inputs is None:
        return [None] * len(live)
    counts = [int(each) for each in live.sum(-1)]
    return list(
        output_diagnoses(
            request.reconstruction, request.inputs, counts, request.training, request.dtype, request.thresholds
        )
    )
