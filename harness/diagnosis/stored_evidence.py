"""Stored members as the numbers that the rules look at, ready to be judged again under other thresholds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.layer_rules import padded
from harness.diagnosis.unit_rules import Evidence, LayerStructure

Stored = Mapping[str, Any]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """What of a diagnosis is judged again: the rest, kept for thousands of members, would fill the memory.

    Args:
        kind: activation, rows, units, target, and dimension of the inputs.
        verdicts: of the units, as they are.
        numbers: `[unit, number]`, in the order of `NUMBERS`; NaN where one is not known.
        references: `[reference, number]`: the place of the unit, then `OF_REFERENCES`; NaN where one is not known.
        links: as in the diagnosis. rank: the corrected participation ratio. output: what its verdict rests on.
    """

    kind: tuple[Any, ...]
    verdicts: tuple[str, ...]
    numbers: Array
    references: Array
    links: Array
    rank: float
    output: dict[str, float] | None


@dataclass(frozen=True)
class EvidenceBatch:
    """Members of one kind (activation, rows, units, target), ready to be judged again."""

    evidence: Evidence
    structure: LayerStructure
    outputs: list[dict[str, float] | None]
    bimodal_margin: Array


def stored_evidence(stored: Stored) -> StoredEvidence:
    """What is judged again of a diagnosis, from `Diagnosis.to_dict()`."""
    units, measures = stored["units"], stored["measures"]
    shared = [(place, each) for place, unit in enumerate(units) for each in unit["references"].values()]
    rank = measures.get("participation_ratio_corrected")
    return StoredEvidence(
        kind=(stored["activation"], stored["rows"], len(units), stored.get("target"), measures.get("dimension")),
        verdicts=tuple(unit["verdict"] for unit in units),
        numbers=rows_of([[unit.get(name) for name in NUMBERS] for unit in units], len(NUMBERS)),
        references=rows_of([_reference(place, each) for place, each in shared], 1 + len(OF_REFERENCES)),
        links=np.array(stored.get("links", ()), dtype=np.float64),
        rank=np.inf if rank is None else rank,
        output=_output(stored.get("output")),
    )


def batches(members: Sequence[StoredEvidence]) -> list[EvidenceBatch]:
    """Members of one kind together, in the order in which their kinds come."""
    kinds: dict[tuple[Any, ...], list[StoredEvidence]] = defaultdict(list)
    for each in members:
        kinds[each.kind].append(each)
    return [_batch(kind, alike) for kind, alike in kinds.items()]


def rows_of(rows: Sequence[Any], width: int) -> Array:
    """`[row, number]` of so many numbers a row, also where there is no row; None becomes NaN.

    >>> rows_of([], 2).shape, rows_of([[1, None]], 2).tolist()
    ((0, 2), [[1.0, nan]])
    """
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)


def _batch(kind: tuple[Any, ...], alike: Sequence[StoredEvidence]) -> EvidenceBatch:
    activation, rows, units, target, dimension = kind
    verdicts = np.array([each.verdicts for each in alike]).reshape(len(alike), units)
    numbers = np.array([each.numbers for each in alike])
    evidence = Evidence(
        activation=activation,
        rows=rows,
        target=target,
        testable=~(verdicts == "not_testable").any(-1),
        finite=verdicts != "invalid",
        p_adjusted=_filled(_smallest_p(alike, units), 1.0),
        **{name: _filled(numbers[..., NUMBERS.index(key)], missing) for name, (key, missing) in STORED.items()},
    )
    rank = _filled(np.array([each.rank for each in alike]), np.inf)
    structure = LayerStructure(padded([each.links for each in alike]), rank, np.inf if dimension is None else dimension)
    margin = _filled(numbers[..., NUMBERS.index("bimodal_margin")], np.inf)
    return EvidenceBatch(evidence, structure, [each.output for each in alike], margin)


def _filled(values: Array, missing: float) -> NDArray[Any]:
    return np.where(np.isnan(values), missing, values)


def _smallest_p(alike: Sequence[StoredEvidence], units: int) -> Array:
    """`[member, unit]`: the smallest adjusted p over the references; NaN where none is known."""
    found = np.full((len(alike), units), np.nan)
    for member, each in enumerate(alike):
        np.fmin.at(found[member], each.references[:, 0].astype(np.int64), each.references[:, P_ADJUSTED])
    return found


def _reference(place: int, stored: Stored) -> list[Any]:
    low, high = stored["interval"]
    return [place, stored["p_adjusted"], low, high, stored.get("entropy"), stored.get("codes_entropy")]


def _output(stored: Stored | None) -> dict[str, float] | None:
    if stored is None:
        return None
    if stored["verdict"] in ("invalid_output", "output_not_testable"):
        return {"finite": stored["verdict"] != "invalid_output", "testable": False}
    numbers = {name: stored[name] for name in ("r2", "variance_ratio", "dead_share")}
    return {"finite": True, "testable": True, "r2_high": stored["r2_interval"][1], **numbers}


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
}
NUMBERS = (*(key for key, _ in STORED.values()), "bimodal_margin", "kurtosis", "energy_share", "ablation")
OF_REFERENCES = ("p_adjusted", "low", "high", "entropy", "codes_entropy")
P_ADJUSTED = 1
