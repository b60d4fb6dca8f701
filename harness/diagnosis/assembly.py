"""From measured numbers and verdicts to the `Diagnosis` of each member."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from harness.diagnosis.explanations import findings_for
from harness.diagnosis.layer_rules import groups
from harness.diagnosis.redundancy import Redundancy
from harness.diagnosis.references import ReferenceDependence, dependence_flags
from harness.diagnosis.result import Diagnosis, OutputDiagnosis, Reference, UnitDiagnosis
from harness.diagnosis.thresholds import Thresholds
from harness.diagnosis.unit_rules import Evidence, constant_units, is_dominated, is_heavy_tailed
from harness.diagnosis.verdicts import CONSTANT, UNJUDGED, LayerVerdict, OutputVerdict
from harness.measures.statistics import clopper_pearson, wilson
from harness.measures.unit_table import Table

NORMAL = float(ndtri(0.975))


@dataclass(frozen=True)
class DiagnosisParts:
    """Everything known of a stack of layers before it is put into words."""

    evidence: Evidence
    table: Table
    units: NDArray[np.object_]
    layers: Sequence[LayerVerdict]
    shared: ReferenceDependence
    relations: Sequence[Redundancy]
    outputs: Sequence[OutputDiagnosis | None]
    ablation: NDArray[np.float64] | None
    dimension: float
    thresholds: Thresholds


def assemble(judged: DiagnosisParts) -> list[Diagnosis]:
    """One diagnosis a member."""
    columns = unit_columns(judged)
    dominance = is_dominated(judged.evidence, judged.thresholds)
    return [_member(judged, columns, member, bool(dominance[member])) for member in range(len(judged.layers))]


def _member(
    judged: DiagnosisParts, columns: Mapping[str, list[list[object]]], member: int, dominance: bool
) -> Diagnosis:
    units = _units(judged, columns, member)
    measures = _measures(judged, member, units)
    output, layer = judged.outputs[member], judged.layers[member]
    flags = _layer_flags(judged, member, units, dominance)
    return Diagnosis(
        verdict=layer,
        flags=flags,
        units=units,
        output=output,
        findings=findings_for(layer, flags, units, output, measures, judged.evidence.rows),
        measures=measures,
        activation=judged.evidence.activation,
        rows=judged.evidence.rows,
        target=judged.evidence.target,
        links=tuple(judged.relations[member].links.tolist()),
        references=tuple(judged.shared.references),
        thresholds=judged.thresholds,
    )


def _measures(judged: DiagnosisParts, member: int, units: Sequence[UnitDiagnosis]) -> dict[str, float]:
    relations = judged.relations[member]
    live = sum(unit.live for unit in units)
    return {
        "live_units": float(live),
        "live_share": live / len(units),
        "active_units": float(sum(unit.active for unit in units)),
        "effective_rank": relations.effective_rank,
        "participation_ratio": relations.participation,
        "participation_ratio_corrected": relations.corrected,
        "groups": float(groups(live, relations.links, judged.thresholds)),
        "nonlinear_pairs": float(relations.nonlinear) if relations.nonlinear >= 0 else float("nan"),
        "dimension": judged.dimension,
        "rms": float(judged.table["layer_rms"][member, 0]),
    }


def _layer_flags(
    judged: DiagnosisParts, member: int, units: Sequence[UnitDiagnosis], dominance: bool
) -> tuple[str, ...]:
    relations, layer, output = judged.relations[member], judged.layers[member], judged.outputs[member]
    if layer == LayerVerdict.NOT_TESTABLE:
        return ()
    live = sum(unit.live for unit in units)
    few_rows = live > 1 and judged.evidence.rows < judged.thresholds.dimensional_rows * live
    flags = {
        "single_unit_dominance": dominance,
        "duplicates": bool(relations.copies) and layer != LayerVerdict.REDUNDANT,
        "nonlinear_redundancy": relations.nonlinear > 0,
        "nonlinear_redundancy_not_searched": relations.nonlinear < 0 and live > 1,
        "rank_not_testable": few_rows,
        str(output.verdict) if output else "": output is not None and output.verdict != OutputVerdict.HEALTHY,
    }
    return tuple(flag for flag, holds in flags.items() if holds)


def unit_columns(judged: DiagnosisParts) -> dict[str, list[list[object]]]:
    """The attributes of all units by name, `[member][unit]`, as Python numbers."""
    table, rows = judged.table, judged.evidence.rows
    finite = judged.evidence.finite
    columns = {name: np.where(finite, table[name], np.nan) for name in COPIED}
    for name in OPTIONAL & set(table):
        columns[name] = np.where(finite, table[name], np.nan)
    if judged.evidence.can_be_off:
        columns["activation_frequency"] = np.where(finite, table["fired_rows"] / rows, np.nan)
    if judged.ablation is not None:
        columns["ablation"] = np.where(finite, judged.ablation, np.nan)
    plain = {name: each.tolist() for name, each in columns.items()}
    plain["fired_rows"] = judged.evidence.fired.tolist()
    plain["active"] = (finite & (table["standard_deviation"] > judged.thresholds.active_variance**0.5)).tolist()
    if "stochastic" in table:
        plain["stochastic"] = (table["stochastic"] > 0).tolist()
    for name in ("low_end", "high_end"):
        plain[name] = getattr(judged.evidence, name).tolist()
    return plain | _interval_columns(judged)


@np.errstate(over="ignore")  # values near the end of float64 have intervals that reach infinity
def _interval_columns(judged: DiagnosisParts) -> dict[str, list[list[object]]]:
    table, rows, finite = judged.table, judged.evidence.rows, judged.evidence.finite
    spread = table["standard_deviation"]
    error = NORMAL * spread / max(rows - 1, 1) ** 0.5
    # of a standard deviation, by the delta method: sd sqrt((kurtosis - 1) / 4n)
    tail = NORMAL * spread * np.sqrt(np.maximum(np.nan_to_num(table["kurtosis"], nan=1.0) - 1, 0) / (4 * rows))
    entropy, doubt = table["entropy_bits"], NORMAL * table["entropy_error"]
    found = {
        "mean_interval": (table["mean"] - error, table["mean"] + error),
        "standard_deviation_interval": (np.maximum(spread - tail, 0), spread + tail),
        "entropy_bits_interval": (np.maximum(entropy - doubt, 0), entropy + doubt),
    }
    if judged.evidence.can_be_off:
        counts = judged.evidence.fired
        found["activation_frequency_interval"] = wilson(counts, rows)
        found["activation_frequency_bounds"] = clopper_pearson(counts, rows)
    if "reliability_low" in table:
        found["reliability_interval"] = (table["reliability_low"], table["reliability_high"])
    return {
        name: _paired(np.where(finite, low, np.nan), np.where(finite, high, np.nan))
        for name, (low, high) in found.items()
    }


def _paired(low: NDArray[np.float64], high: NDArray[np.float64]) -> list[list[object]]:
    return [list(zip(*each, strict=True)) for each in zip(low.tolist(), high.tolist(), strict=True)]


def _units(judged: DiagnosisParts, columns: Mapping[str, list[list[object]]], member: int) -> tuple[UnitDiagnosis, ...]:
    names, series = list(columns), [each[member] for each in columns.values()]
    constant = constant_units(judged.evidence, judged.thresholds)[member].tolist()
    shared = _references(judged, member)
    found = []
    for index, values in enumerate(zip(*series, strict=True)):
        attributes = dict(zip(names, values, strict=True))
        references = shared[index] if shared else {}
        verdict = judged.units[member][index]
        attributes |= _information(references) if references else {}
        flags = _unit_flags(judged, member, index, attributes, references, constant[index])
        found.append(UnitDiagnosis(index, verdict, flags, references=references, **attributes))
    return tuple(found)


def _references(judged: DiagnosisParts, member: int) -> list[dict[str, Reference]]:
    """For each unit of a member, what it shares with each reference."""
    units = judged.evidence.finite.shape[-1]
    found: list[dict[str, Reference]] = [{} for _ in range(units)] if judged.shared.references else []
    for name, columns in judged.shared.references.items():
        keys = ("value", "p", "p_adjusted", "low", "high", "delta", "codes_entropy")
        flags = _reference_flags(judged, member, columns)
        rows = zip(*(columns[key][member].tolist() for key in keys), flags, strict=True)
        entropy = float(columns["entropy"])
        for index, (value, p, adjusted, low, high, delta, codes, flag) in enumerate(rows):
            found[index][name] = Reference(value, p, adjusted, (low, high), entropy, delta, flag, codes)
    return found


def _reference_flags(judged: DiagnosisParts, member: int, columns: Mapping[str, NDArray[np.float64]]) -> list[str]:
    low, high, delta, adjusted = (columns[key][member] for key in ("low", "high", "delta", "p_adjusted"))
    flags = dependence_flags(low, high, delta, adjusted, judged.thresholds.significance).tolist()
    # of a constant unit it is exactly 0, which is no absence of evidence
    return [
        "negligible" if verdict in CONSTANT else flag for verdict, flag in zip(judged.units[member], flags, strict=True)
    ]


def _information(references: Mapping[str, Reference]) -> dict[str, object]:
    """The labels' information if given, else the largest over factors."""
    known = [each for each in references.values() if each.mutual_information == each.mutual_information]
    best = references.get("labels") or max(known, key=lambda each: each.mutual_information, default=Reference())
    return {"mutual_information": best.mutual_information, "mutual_information_interval": best.interval}


def _unit_flags(
    judged: DiagnosisParts,
    member: int,
    index: int,
    attributes: Mapping[str, Any],
    references: Mapping[str, Reference],
    constant: bool,
) -> tuple[str, ...]:
    if judged.units[member][index] in UNJUDGED:
        return ()
    thresholds, copies = judged.thresholds, judged.relations[member].copies
    low = attributes.get("activation_frequency_bounds", (0.0, 1.0))[0]
    flags = ["always_on"] if low > 1 - thresholds.claimable_frequency else []
    flags += [_named(name, each.flag) for name, each in references.items()]
    flags += [f"duplicate_of={copies[index]}"] if index in copies else []
    flags += ["heavy_tailed"] if not constant and _heavy(judged, attributes) else []
    flags += ["stochastic"] if attributes.get("stochastic") else []
    flags += ["unused"] if not constant and attributes.get("ablation", np.inf) < thresholds.unused else []
    return tuple(flags)


def _named(reference: str, flag: str) -> str:
    return f"label_{flag}" if reference == "labels" else f"factor_{flag}={reference}"


def _heavy(judged: DiagnosisParts, attributes: Mapping[str, Any]) -> bool:
    # of two, three or four rows one always holds much of the energy
    enough = judged.evidence.rows >= judged.thresholds.few_rows
    return bool(enough and is_heavy_tailed(attributes["kurtosis"], attributes["energy_share"], judged.thresholds))


COPIED = (
    *("mean", "standard_deviation", "minimum", "maximum", "entropy_bits", "resolution", "variation", "tolerance"),
    *("range_ratio", "outside_ratio", "before_ratio", "kurtosis", "energy_share", "reliability_bound"),
)
OPTIONAL = {"saturated", "bimodal_margin", "reliability"}
