"""Stored diagnoses as the numbers that the rules use, to be judged again under other thresholds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.layer_rules import LayerStructure, padded
from harness.diagnosis.unit_rules import Evidence

Stored = Mapping[str, Any]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """The part of a diagnosis that is judged again; the rest of thousands of members would fill the memory.

    Args:
        group: activation, distinct rows, number of units, target, and dimension of the inputs.
        verdicts: of the units, as stored.
        numbers: `[unit, number]`, in the order of `NUMBERS`; NaN where a number is missing.
        references: `[reference, number]`: the index of the unit, then `REFERENCE_NUMBERS`; NaN where a
            number is missing.
        links: as in the diagnosis. rank: of the live units; infinite where it is missing. ablation: of the whole code;
            NaN where it is missing. output: the numbers of its verdict.
    """

    group: tuple[Any, ...]
    verdicts: tuple[str, ...]
    numbers: Array
    references: Array
    links: Array
    rank: float
    ablation: float
    output: dict[str, float] | None


@dataclass(frozen=True)
class EvidenceBatch:
    """Members that share activation, rows, number of units, target and dimension."""

    evidence: Evidence
    structure: LayerStructure
    outputs: list[dict[str, float] | None]
    bimodal_margin: Array


def stored_evidence(stored: Stored) -> StoredEvidence:
    """Evidence of a stored diagnosis, from `Diagnosis.to_dict()`."""
    units, measures = stored["units"], stored["measures"]
    references = [
        _reference(index, reference) for index, unit in enumerate(units) for reference in unit["references"].values()
    ]
    rank = measures.get("rank")
    rows = stored.get("distinct_rows", -1)
    return StoredEvidence(
        group=(
            stored["activation"],
            rows if rows >= 0 else stored["rows"],
            len(units),
            stored.get("target"),
            measures.get("dimension"),
        ),
        verdicts=tuple(unit["verdict"] for unit in units),
        numbers=rows_of([[unit.get(name) for name in NUMBERS] for unit in units], len(NUMBERS)),
        references=rows_of(references, 1 + len(REFERENCE_NUMBERS)),
        links=np.array(stored.get("links", ()), dtype=np.float64),
        rank=np.inf if rank is None else rank,
        ablation=_or_nan(measures.get("code_ablation")),
        output=_output(stored.get("output")),
    )


def batches(members: Sequence[StoredEvidence]) -> list[EvidenceBatch]:
    """Members grouped by what they share, in the order of first appearance."""
    groups: dict[tuple[Any, ...], list[StoredEvidence]] = defaultdict(list)
    for member in members:
        groups[member.group].append(member)
    return [_batch(group, batch) for group, batch in groups.items()]


def rows_of(rows: Sequence[Any], width: int) -> Array:
    """`[row, number]` with a fixed number of columns, also without any row; None becomes NaN.

    >>> rows_of([], 2).shape, rows_of([[1, None]], 2).tolist()
    ((0, 2), [[1.0, nan]])
    """
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)


def _batch(group: tuple[Any, ...], members: Sequence[StoredEvidence]) -> EvidenceBatch:
    activation, rows, units, target, dimension = group
    verdicts = np.array([member.verdicts for member in members]).reshape(len(members), units)
    numbers = np.array([member.numbers for member in members])
    evidence = Evidence(
        activation=activation,
        rows=rows,
        target=target,
        testable=~(verdicts == "not_testable").any(-1),
        finite=verdicts != "invalid",
        p_adjusted=_filled(_smallest_p(members, units), 1.0),
        **{name: _filled(numbers[..., NUMBERS.index(key)], missing) for name, (key, missing) in STORED.items()},
    )
    rank = _filled(np.array([member.rank for member in members]), np.inf)
    links = padded([member.links for member in members])
    ablation = np.array([member.ablation for member in members])
    structure = LayerStructure(links, rank, np.inf if dimension is None else dimension, ablation)
    margin = _filled(numbers[..., NUMBERS.index("bimodal_margin")], np.inf)
    return EvidenceBatch(evidence, structure, [member.output for member in members], margin)


def _filled(values: Array, missing: float) -> NDArray[Any]:
    return np.where(np.isnan(values), missing, values)


def _smallest_p(members: Sequence[StoredEvidence], units: int) -> Array:
    """`[member, unit]`: the smallest adjusted p over the references; NaN without any."""
    smallest = np.full((len(members), units), np.nan)
    for row, member in zip(smallest, members, strict=True):
        np.fmin.at(row, member.references[:, 0].astype(np.int64), member.references[:, P_ADJUSTED])
    return smallest


def _reference(index: int, stored: Stored) -> list[Any]:
    low, high = stored["interval"]
    return [index, stored["p_adjusted"], low, high, stored.get("entropy"), stored.get("codes_entropy")]


def _output(stored: Stored | None) -> dict[str, float] | None:
    if stored is None:
        return None
    if stored["verdict"] in ("invalid_output", "output_not_testable"):
        return {"finite": stored["verdict"] != "invalid_output", "testable": False}
    numbers = {name: _or_nan(stored[name]) for name in ("r2", "dead_share")}
    constant = stored.get("constant", False)
    return {
        "finite": True,
        "testable": True,
        "constant": constant,
        "r2_high": _or_nan(stored["r2_interval"][1]),
        **numbers,
    }


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


STORED: dict[str, tuple[str, float]] = {
    "range_ratio": ("range_ratio", np.inf),
    "before_ratio": ("before_ratio", np.inf),
    "outside_ratio": ("outside_ratio", 0.0),
    "fired": ("fired_rows", 0.0),
    "mean": ("mean", 0.0),
    "variation": ("variation", 1.0),
    "saturated": ("saturated", 0.0),
    "low_end": ("low_end", 0.0),
    "high_end": ("high_end", 0.0),
    "reliability_high": ("reliability_bound", np.inf),
    "informed": ("informed_rows", -1.0),
}
NUMBERS = (*(key for key, _ in STORED.values()), "bimodal_margin", "kurtosis", "energy_share", "ablation")
REFERENCE_NUMBERS = ("p_adjusted", "low", "high", "entropy", "codes_entropy")
P_ADJUSTED = 1
