"""From a matrix of activations to a diagnosis: check, measure, judge, explain."""

from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from harness.diagnosis.assembly import DiagnosisParts, assemble
from harness.diagnosis.field_measures import codes_in_use, rank_me
from harness.diagnosis.input_checks import true_or_false
from harness.diagnosis.inputs import AUTO, DiagnosisInputs, check_inputs, inferred_activation, members_of
from harness.diagnosis.layer_rules import LayerStructure, layer_verdicts, padded
from harness.diagnosis.output_rules import output_diagnoses
from harness.diagnosis.redundancy import comparable_units, input_dimension, unit_redundancy, within_class_variance
from harness.diagnosis.references import reference_dependence
from harness.diagnosis.result import Diagnosis
from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.diagnosis.unit_rules import UNIT_VERDICTS, Evidence, constant_units, unit_places, unit_verdicts
from harness.diagnosis.verdicts import CONSTANT, NOT_LIVE, UNJUDGED
from harness.measures.reliability import reliability_table
from harness.measures.unit_table import Arithmetic, Saturation, Table, entropy_table, range_ratios, unit_table
from harness.measures.units import fires


@overload
def diagnose(
    activations: Any,
    *,
    activation: str = ...,
    labels: Any = ...,
    factors: Mapping[str, Any] | None = ...,
    inputs: Any = ...,
    reconstruction: Any = ...,
    target: float | None = ...,
    repeat: Any = ...,
    posterior: Any = ...,
    posterior_kl: Any = ...,
    output: Any = ...,
    expected_output: Any = ...,
    members: Literal[False] = ...,
    dtype: Any = ...,
    scale: Any = ...,
    ablation: Any = ...,
    code_ablation: Any = ...,
    blocks: Any = ...,
    positions: Any = ...,
    training_inputs: Any = ...,
    normalised: Any = ...,
    thresholds: Thresholds = ...,
    information: bool = ...,
) -> Diagnosis: ...


@overload
def diagnose(
    activations: Any,
    *,
    activation: str = ...,
    labels: Any = ...,
    factors: Mapping[str, Any] | None = ...,
    inputs: Any = ...,
    reconstruction: Any = ...,
    target: float | None = ...,
    repeat: Any = ...,
    posterior: Any = ...,
    posterior_kl: Any = ...,
    output: Any = ...,
    expected_output: Any = ...,
    members: Literal[True],
    dtype: Any = ...,
    scale: Any = ...,
    ablation: Any = ...,
    code_ablation: Any = ...,
    blocks: Any = ...,
    positions: Any = ...,
    training_inputs: Any = ...,
    normalised: Any = ...,
    thresholds: Thresholds = ...,
    information: bool = ...,
) -> list[Diagnosis]: ...


def diagnose(
    activations: Any,
    *,
    activation: str = AUTO,
    labels: Any = None,
    factors: Mapping[str, Any] | None = None,
    inputs: Any = None,
    reconstruction: Any = None,
    target: float | None = None,
    repeat: Any = None,
    posterior: Any = None,
    posterior_kl: Any = None,
    output: Any = None,
    expected_output: Any = None,
    members: bool = False,
    dtype: Any = None,
    scale: Any = None,
    ablation: Any = None,
    code_ablation: Any = None,
    blocks: Any = None,
    positions: Any = None,
    training_inputs: Any = None,
    normalised: Any = None,
    thresholds: Thresholds = THRESHOLDS,
    information: bool = True,
) -> Diagnosis | list[Diagnosis]:
    """Diagnose a layer from its activations: collapsed or not, which units, and how.

    Args:
        activations: `[sample, unit]` in eval mode on held-out rows. NaN is a verdict (`invalid`), never an error. An
            iterator of batches and a sparse tensor are written to a temporary file, so that memory holds one batch.
        activation: relu, leaky_relu, elu, gelu, silu, softplus, sigmoid, tanh, none (= linear), or "auto": none where a
            value is negative, sigmoid where all lie between 0 and 1, else relu. The diagnosis says when it was chosen.
        labels: `[sample]` integers, classes to take mutual information with.
        factors: name -> `[sample]`; integers are classes, floats a continuous factor.
        inputs: `[sample, ...]`, the model's inputs. Equal rows count once behind every bound; the dimension of the
            inputs limits that of the code.
        reconstruction: `[sample, ...]`, the output that is compared with `inputs`, or with `expected_output`.
        target: the penalty's target activation rho.
        repeat: a second pass over the same rows, shaped like `activations`, which separates noise from dependence.
        posterior: log-variances of a latent whose means are the activations, shaped like these. Its prior is N(0, 1).
        posterior_kl: KL divergence from another prior in nats, shaped like `activations`; instead of `posterior`.
        output: `[sample, ...]`, an output of any shape that is compared with nothing; tested for being constant.
        expected_output: `[sample, ...]`, the targets that `reconstruction` is compared with instead of the inputs.
        members: several models at once, as in `diagnose_members`; a list of diagnoses is returned.
        dtype: the model's own precision, where the values were copied to another or read from text.
        scale: `[unit]`, sum of |weight| E|input| + |bias|, the size of the sum that was rounded.
        ablation: `[unit]`, R2 lost when the unit is replaced by its mean.
        code_ablation: R2 lost when all units are replaced by their means at once.
        blocks: `[sample]`, rows that belong together (windows of one series) and are permuted together.
        positions: `[sample]`, the place of each row in its sample (a token in its sequence, a pixel in its image). A unit
            that varies between positions only is constant: it is the same whatever the input. The inputs and outputs
            may then have one row per sample, where all samples have as many positions, one after the other.
        training_inputs: rows that PCA is fitted on; by default the judged rows.
        normalised: the values before a normalization, shaped like `activations`: float noise can hide behind one.
        thresholds: the numbers that the verdicts rest on.
        information: False leaves out labels and factors.

    Returns:
        A `Diagnosis`, or with `members=True` a list with one per member.

    Raises:
        HarnessError: for bad input: wrong rank or length, no rows, values that are no real numbers, labels that are no
            classes, a reconstruction with nothing to compare with, negative values of a declared ReLU.

    Source: Clopper & Pearson 1934 (never, always); Benjamini & Hochberg 1995; Lucas et al. 2019 (posterior collapse).
    The thresholds' sources are in `threshold_table()`.

    >>> str(diagnose(np.zeros((400, 4))).verdict)
    'full_collapse'
    """
    labels, factors = (labels, factors) if true_or_false(information, "information") else (None, None)
    request = check_inputs(
        activations, activation=activation, labels=labels, factors=factors, inputs=inputs,
        reconstruction=reconstruction, target=target, repeat=repeat, posterior=posterior, posterior_kl=posterior_kl,
        output=output, expected_output=expected_output, members=members, dtype=dtype, scale=scale, ablation=ablation,
        code_ablation=code_ablation, blocks=blocks, positions=positions, training_inputs=training_inputs,
        normalised=normalised, thresholds=thresholds,
    )  # fmt: skip
    diagnoses = diagnose_inputs(request)
    return diagnoses if members else diagnoses[0]


def diagnose_members(activations: Any, **options: Any) -> list[Diagnosis]:
    """Diagnose several models at once: `[member, sample, unit]` in, one `Diagnosis` per member out.

    Args:
        activations: `[member, sample, unit]`.
        options: as for `diagnose`. `repeat`, `posterior`, `posterior_kl`, `normalised`, `reconstruction` and `output`
            have a leading member axis too; `scale`, `ablation` and `code_ablation` may have one.

    >>> [str(diagnosis.verdict) for diagnosis in diagnose_members(np.zeros((2, 400, 4)))]
    ['full_collapse', 'full_collapse']
    """
    return diagnose(activations, **options, members=True)


def diagnose_inputs(request: DiagnosisInputs) -> list[Diagnosis]:
    """One diagnosis per member; each has its own activation where that is inferred."""
    if request.activation != AUTO:
        return _diagnose(request)
    groups: dict[str, list[int]] = {}
    for member, values in enumerate(request.activations):
        groups.setdefault(inferred_activation(values), []).append(member)
    diagnoses: dict[int, Diagnosis] = {}
    for activation, members in groups.items():
        diagnoses |= dict(zip(members, _diagnose(members_of(request, members, activation)), strict=True))
    return [diagnoses[member] for member in range(len(request.activations))]


def _diagnose(request: DiagnosisInputs) -> list[Diagnosis]:
    thresholds = request.thresholds
    table = _measured(request)
    evidence = _evidence(request, table, np.ones(table["finite"].shape))
    tested = _tested(request, evidence)
    constant = constant_units(evidence, thresholds)
    shared = reference_dependence(
        request.activations, request.references, tested, evidence.finite, constant, request.blocks, thresholds
    )
    evidence = _evidence(request, table, shared.smallest_p)
    positions = unit_places(evidence, thresholds)
    units = UNIT_VERDICTS[positions]
    live = np.array([[verdict not in NOT_LIVE and verdict not in UNJUDGED for verdict in row] for row in units])
    comparable = comparable_units(live, evidence.fired, evidence.rows, evidence.can_be_off, thresholds.few_rows)
    relations = unit_redundancy(_once(request, request.activations), live, comparable, table["resolution"], thresholds)
    dimension = input_dimension(request.inputs, request.categories, thresholds)
    ranks = np.array([relation.rank for relation in relations])
    structure = LayerStructure(
        padded([relation.links for relation in relations]),
        np.where(np.isnan(ranks), np.inf, ranks),
        dimension,
        np.full(len(ranks), np.nan) if request.code_ablation is None else request.code_ablation,
    )
    classes = request.references.get("labels")
    outputs = output_diagnoses(request, (live.sum(-1) * request.positions).tolist())
    verdicts = [None if output is None else output.verdict for output in outputs]
    layers = layer_verdicts(positions, evidence, structure, verdicts, thresholds).tolist()
    return assemble(
        DiagnosisParts(
            evidence=evidence,
            rows=request.activations.shape[-2],
            inferred=request.inferred,
            table=table,
            units=units,
            layers=layers,
            shared=shared,
            relations=relations,
            outputs=outputs,
            ablation=request.ablation,
            code_ablation=request.code_ablation,
            dimension=dimension,
            classes=0 if classes is None else len(classes.unique()),
            within_class=None if classes is None else within_class_variance(request.activations, classes, live),
            rankme=rank_me(request.activations),
            codes=codes_in_use(request.activations, evidence.rows, table["tolerance"]),
            thresholds=thresholds,
        )
    )


def _once(request: DiagnosisInputs, values: torch.Tensor) -> torch.Tensor:
    """The rows of `[member, sample, unit]` whose inputs did not come before."""
    if _distinct_rows(request) == values.shape[-2]:
        return values
    first = torch.from_numpy(request.distinct)[:, None] * request.positions
    return values[:, (first + torch.arange(request.positions)).flatten()]


def _distinct_rows(request: DiagnosisInputs) -> int:
    """Number of rows of activations whose inputs did not come before."""
    return len(request.distinct) * request.positions


def _measured(request: DiagnosisInputs) -> Table:
    arithmetic = Arithmetic(request.dtype, request.scale, request.before)
    saturation = Saturation(request.thresholds.saturation, request.thresholds.saturated_share)
    table = unit_table(request.activations, request.activation, arithmetic, saturation, request.groups)
    table |= entropy_table(request.activations, table["finite"], table["power"], request.activation)
    shape = table["mean"].shape
    table["before_ratio"] = np.full(shape, np.inf)
    if request.before is not None:
        table["before_ratio"] = range_ratios(request.before, request.dtype, request.groups)
    table["reliability_bound"] = np.full(shape, np.inf)
    if request.repeat is not None:
        table |= reliability_table(request.activations, request.repeat, table["tolerance"])
        table["finite"] = table["finite"] * table["repeat_finite"]
    if _distinct_rows(request) < request.activations.shape[-2]:
        fired = fires(_once(request, request.activations).to(request.dtype), request.activation)
        table["fired_rows"] = fired.sum(-2).double().numpy()
    table["informed_rows"] = np.full(shape, -1.0)
    if request.kl is not None:
        table["finite"] = table["finite"] * torch.isfinite(request.kl).all(-2).numpy()
        table["kl"] = request.kl.mean(-2).numpy()
        informed = _once(request, request.kl) >= request.thresholds.prior_nats
        table["informed_rows"] = informed.sum(-2).double().numpy()
    return table


def _evidence(request: DiagnosisInputs, table: Table, p_adjusted: NDArray[np.float64]) -> Evidence:
    shape = table["finite"].shape
    rows = _distinct_rows(request)
    return Evidence(
        activation=request.activation,
        rows=rows,
        target=request.target,
        testable=np.full(shape[0], len(request.distinct) > 1),
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
        informed=table["informed_rows"].astype(np.int64),
    )


def _tested(request: DiagnosisInputs, evidence: Evidence) -> NDArray[np.bool_]:
    """`[member, unit]`: units on which dependence can be tested: finite, not constant, fired often enough."""
    verdicts = unit_verdicts(evidence, request.thresholds)
    left_out = CONSTANT | UNJUDGED | {"rare_insufficient"}
    return np.array([[verdict not in left_out for verdict in row] for row in verdicts])
