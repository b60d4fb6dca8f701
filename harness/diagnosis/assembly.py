"""Measured numbers and verdicts assembled to the `Diagnosis` of each member."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.explanations import INPUT_INDEPENDENT, findings_for
from harness.diagnosis.field_measures import field_measures
from harness.diagnosis.layer_rules import groups
from harness.diagnosis.output_rules import NORMAL
from harness.diagnosis.redundancy import Redundancy
from harness.diagnosis.references import ReferenceDependence, dependence_flags
from harness.diagnosis.result import Diagnosis
from harness.diagnosis.thresholds import Thresholds
from harness.diagnosis.unit_rules import Evidence, constant_units, is_dominated, is_heavy_tailed, rows_to_claim
from harness.diagnosis.units import Flag, OutputDiagnosis, Reference, UnitDiagnosis
from harness.diagnosis.verdicts import CONSTANT, UNJUDGED, LayerVerdict, OutputVerdict
from harness.measures.statistics import clopper_pearson, wilson
from harness.measures.unit_table import Table


@dataclass(frozen=True)
class DiagnosisParts:
    """Measured numbers and verdicts of a stack of layers.

    Args:
        rows: number of rows; `evidence.rows` counts equal inputs once.
        inferred: True where the activation was chosen from the values.
        units, ablation: `[member, unit]`. code_ablation: `[member]`. layers, relations, outputs: one per member.
        dimension: number of dimensions of the inputs.
        classes: number of classes of the labels. within_class: `[member]`, share of the variance within them.
        rankme: `[member]`. codes: usage of a quantizer's codes, one per member.
    """

    evidence: Evidence
    rows: int
    inferred: bool
    table: Table
    units: NDArray[np.object_]
    layers: Sequence[LayerVerdict]
    shared: ReferenceDependence
    relations: Sequence[Redundancy]
    outputs: Sequence[OutputDiagnosis | None]
    ablation: NDArray[np.float64] | None
    code_ablation: NDArray[np.float64] | None
    dimension: float
    classes: int
    within_class: NDArray[np.float64] | None
    rankme: NDArray[np.float64]
    codes: Sequence[Mapping[str, float]]
    thresholds: Thresholds


def assemble(parts: DiagnosisParts) -> list[Diagnosis]:
    """One diagnosis per member."""
    columns = unit_columns(parts)
    dominance = is_dominated(parts.evidence, parts.thresholds)
    return [_member(parts, columns, member, bool(dominance[member])) for member in range(len(parts.layers))]


def _member(
    parts: DiagnosisParts, columns: Mapping[str, list[list[object]]], member: int, dominance: bool
) -> Diagnosis:
    units = _units(parts, columns, member)
    output, layer = parts.outputs[member], parts.layers[member]
    measures = _measures(parts, member, units)
    measures |= field_measures(parts.evidence.activation, units, output, float(parts.rankme[member]))
    measures |= parts.codes[member]
    flags = _layer_flags(parts, member, units, dominance)
    return Diagnosis(
        verdict=layer,
        flags=flags,
        units=units,
        output=output,
        findings=findings_for(
            *(layer, flags, units, output, measures, parts.evidence.rows, parts.rows),
            *(parts.thresholds, parts.evidence.activation),
        ),
        measures=measures,
        activation=parts.evidence.activation,
        rows=parts.rows,
        target=parts.evidence.target,
        links=tuple(parts.relations[member].links.tolist()),
        references=tuple(parts.shared.references),
        thresholds=parts.thresholds,
        activation_inferred=parts.inferred,
        distinct_rows=parts.evidence.rows,
    )


def _measures(parts: DiagnosisParts, member: int, units: Sequence[UnitDiagnosis]) -> dict[str, float]:
    relations = parts.relations[member]
    live = sum(unit.live for unit in units)
    return {
        "live_units": float(live),
        "live_share": live / len(units),
        "active_units": float(sum(unit.active for unit in units)),
        "effective_rank": relations.effective_rank,
        "rank": relations.rank,
        "participation_ratio": relations.participation,
        "participation_ratio_corrected": relations.corrected,
        "groups": float(groups(live, relations.links, parts.thresholds)),
        "nonlinear_pairs": float(relations.nonlinear) if relations.nonlinear >= 0 else float("nan"),
        "dimension": parts.dimension,
        **({} if parts.within_class is None else {"within_class_variance": float(parts.within_class[member])}),
        **({} if parts.code_ablation is None else {"code_ablation": float(parts.code_ablation[member])}),
        "rms": float(parts.table["layer_rms"][member, 0]),
    }


def _layer_flags(
    parts: DiagnosisParts, member: int, units: Sequence[UnitDiagnosis], dominance: bool
) -> tuple[Flag, ...]:
    relations, layer, output = parts.relations[member], parts.layers[member], parts.outputs[member]
    if layer == LayerVerdict.NOT_TESTABLE:
        return ()
    live = sum(unit.live for unit in units)
    few_rows = live > 1 and parts.evidence.rows < parts.thresholds.dimensional_rows * live
    few_to_claim = parts.evidence.rows < rows_to_claim(parts.thresholds)
    flags = {
        "single_unit_dominance": dominance,
        "duplicates": bool(relations.copies) and layer != LayerVerdict.REDUNDANT,
        "nonlinear_redundancy": relations.nonlinear > 0,
        "nonlinear_redundancy_not_searched": relations.nonlinear < 0 and live > 1,
        "neural_collapse": _is_neural_collapse(parts, member, live),
        "rank_not_testable": live > 1 and (few_rows or relations.rank != relations.rank),
        "posterior_not_testable": few_to_claim and any(unit.informed_rows == 0 for unit in units),
        str(output.verdict) if output else "": output is not None and output.verdict != OutputVerdict.HEALTHY,
    }
    return tuple(Flag(flag) for flag, holds in flags.items() if holds)


def _is_neural_collapse(parts: DiagnosisParts, member: int, live: int) -> bool:
    if parts.within_class is None or live < 2:
        return False
    low_rank = parts.relations[member].rank <= parts.classes - 1
    return low_rank and bool(parts.within_class[member] <= parts.thresholds.within_class)


def unit_columns(parts: DiagnosisParts) -> dict[str, list[list[object]]]:
    """Attributes of all units by name, `[member][unit]`, as Python numbers."""
    table, rows = parts.table, parts.evidence.rows
    finite = parts.evidence.finite
    columns = {name: np.where(finite, table[name], np.nan) for name in COPIED}
    for name in OPTIONAL & set(table):
        columns[name] = np.where(finite, table[name], np.nan)
    if parts.evidence.can_be_off:
        columns["activation_frequency"] = np.where(finite, table["fired_rows"] / rows, np.nan)
    if parts.ablation is not None:
        columns["ablation"] = np.where(finite, parts.ablation, np.nan)
    plain = {name: column.tolist() for name, column in columns.items()}
    plain["fired_rows"] = parts.evidence.fired.tolist()
    plain["informed_rows"] = parts.evidence.informed.tolist()
    plain["active"] = (finite & (table["standard_deviation"] > parts.thresholds.active_variance**0.5)).tolist()
    if "position_only" in table:
        plain["position_only"] = (table["position_only"] > 0).tolist()
    if "stochastic" in table:
        plain["stochastic"] = (table["stochastic"] > 0).tolist()
    for name in ("low_end", "high_end"):
        plain[name] = getattr(parts.evidence, name).tolist()
    return plain | _interval_columns(parts)


@np.errstate(over="ignore")  # values near the end of float64 have intervals that reach infinity
def _interval_columns(parts: DiagnosisParts) -> dict[str, list[list[object]]]:
    table, rows, finite = parts.table, parts.evidence.rows, parts.evidence.finite
    spread = table["standard_deviation"]
    error = NORMAL * spread / max(rows - 1, 1) ** 0.5
    # interval of a standard deviation, by the delta method: sd sqrt((kurtosis - 1) / 4n)
    tail = NORMAL * spread * np.sqrt(np.maximum(np.nan_to_num(table["kurtosis"], nan=1.0) - 1, 0) / (4 * rows))
    entropy, doubt = table["entropy_bits"], NORMAL * table["entropy_error"]
    intervals = {
        "mean_interval": (table["mean"] - error, table["mean"] + error),
        "standard_deviation_interval": (np.maximum(spread - tail, 0), spread + tail),
        "entropy_bits_interval": (np.maximum(entropy - doubt, 0), entropy + doubt),
    }
    if parts.evidence.can_be_off:
        counts = parts.evidence.fired
        intervals["activation_frequency_interval"] = wilson(counts, rows)
        intervals["activation_frequency_bounds"] = clopper_pearson(counts, rows)
    if "reliability_low" in table:
        intervals["reliability_interval"] = (table["reliability_low"], table["reliability_high"])
    return {
        name: _paired(np.where(finite, low, np.nan), np.where(finite, high, np.nan))
        for name, (low, high) in intervals.items()
    }


def _paired(low: NDArray[np.float64], high: NDArray[np.float64]) -> list[list[object]]:
    return [list(zip(*bounds, strict=True)) for bounds in zip(low.tolist(), high.tolist(), strict=True)]


def _units(parts: DiagnosisParts, columns: Mapping[str, list[list[object]]], member: int) -> tuple[UnitDiagnosis, ...]:
    names, series = list(columns), [column[member] for column in columns.values()]
    constant = constant_units(parts.evidence, parts.thresholds)[member].tolist()
    shared = _references(parts, member)
    units = []
    for index, values in enumerate(zip(*series, strict=True)):
        attributes = dict(zip(names, values, strict=True))
        references = shared[index] if shared else {}
        verdict = parts.units[member][index]
        attributes |= _information(references) if references else {}
        independent = (INPUT_INDEPENDENT,) if attributes.pop("position_only", False) else ()
        flags = (*_unit_flags(parts, member, index, attributes, references, constant[index]), *independent)
        units.append(UnitDiagnosis(index, verdict, tuple(map(Flag, flags)), references=references, **attributes))
    return tuple(units)


def _references(parts: DiagnosisParts, member: int) -> list[dict[str, Reference]]:
    """Dependence of each unit of a member on each reference."""
    units = parts.evidence.finite.shape[-1]
    dependence: list[dict[str, Reference]] = [{} for _ in range(units)] if parts.shared.references else []
    for name, columns in parts.shared.references.items():
        keys = ("value", "p", "p_adjusted", "low", "high", "delta", "codes_entropy")
        flags = _reference_flags(parts, member, columns)
        rows = zip(*(columns[key][member].tolist() for key in keys), flags, strict=True)
        entropy = float(columns["entropy"])
        for index, (value, p, adjusted, low, high, delta, codes, flag) in enumerate(rows):
            dependence[index][name] = Reference(value, p, adjusted, (low, high), entropy, delta, flag, codes)
    return dependence


def _reference_flags(parts: DiagnosisParts, member: int, columns: Mapping[str, NDArray[np.float64]]) -> list[str]:
    low, high, delta, adjusted = (columns[key][member] for key in ("low", "high", "delta", "p_adjusted"))
    flags = dependence_flags(low, high, delta, adjusted, parts.thresholds.significance).tolist()
    # the information of a constant unit is exactly 0
    return [
        "negligible" if verdict in CONSTANT else flag for verdict, flag in zip(parts.units[member], flags, strict=True)
    ]


def _information(references: Mapping[str, Reference]) -> dict[str, object]:
    """Information on the labels where given, else the largest over factors."""
    finite = [shared for shared in references.values() if shared.mutual_information == shared.mutual_information]
    best = references.get("labels") or max(finite, key=lambda shared: shared.mutual_information, default=Reference())
    return {"mutual_information": best.mutual_information, "mutual_information_interval": best.interval}


def _unit_flags(
    parts: DiagnosisParts,
    member: int,
    index: int,
    attributes: Mapping[str, Any],
    references: Mapping[str, Reference],
    constant: bool,
) -> tuple[str, ...]:
    if parts.units[member][index] in UNJUDGED:
        return ()
    thresholds, copies = parts.thresholds, parts.relations[member].copies
    low = attributes.get("activation_frequency_bounds", (0.0, 1.0))[0]
    flags = ["always_on"] if low > 1 - thresholds.claimable_frequency else []
    flags += [_dependence_flag(name, reference.flag) for name, reference in references.items()]
    flags += [f"duplicate_of={copies[index]}"] if index in copies else []
    flags += ["heavy_tailed"] if not constant and _heavy(parts, attributes) else []
    flags += ["stochastic"] if attributes.get("stochastic") else []
    flags += ["unused"] if not constant and abs(attributes.get("ablation", np.inf)) < thresholds.unused else []
    return tuple(flags)


def _dependence_flag(reference: str, flag: str) -> str:
    return f"label_{flag}" if reference == "labels" else f"factor_{flag}={reference}"


def _heavy(parts: DiagnosisParts, attributes: Mapping[str, Any]) -> bool:
    # among two to four rows a single one always holds much of the energy
    enough = parts.evidence.rows >= parts.thresholds.few_rows
    return bool(enough and is_heavy_tailed(attributes["kurtosis"], attributes["energy_share"], parts.thresholds))


COPIED = (
    *("mean", "standard_deviation", "minimum", "maximum", "entropy_bits", "resolution", "variation", "tolerance"),
    *("range_ratio", "outside_ratio", "before_ratio", "kurtosis", "energy_share", "reliability_bound"),
)
OPTIONAL = {"saturated", "bimodal_margin", "reliability", "kl", "position_range"}
