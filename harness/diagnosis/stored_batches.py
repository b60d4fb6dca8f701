"""Stored members as the numbers that the rules look at, ready to be judged again under other thresholds."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.rules import Evidence, Structure

Stored = Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
    """Members of one kind (activation, rows, units, target), ready to be judged again."""

    evidence: Evidence
    structure: Structure
    outputs: list[dict[str, float] | None]
    bimodal_margin: NDArray[np.float64]


def needed(stored: Stored) -> Stored:
    """What of a diagnosis is judged again: the rest, kept for thousands of members, would fill the memory."""
    units = [
        {
            **{name: unit[name] for name in OF_UNITS if name in unit},
            "references": {
                name: {key: each.get(key) for key in OF_REFERENCES} for name, each in unit["references"].items()
            },
        }
        for unit in stored["units"]
    ]
    return {**{name: stored[name] for name in OF_LAYERS if name in stored}, "units": units}


def batches(stored: list[Stored]) -> list[Batch]:
    """Members of one kind together, in the order in which their kinds come."""
    kinds: dict[tuple[Any, ...], list[Stored]] = defaultdict(list)
    for each in stored:
        dimension = each["measures"].get("dimension")
        kinds[(each["activation"], each["rows"], len(each["units"]), each.get("target"), dimension)].append(each)
    return [_batch(alike) for alike in kinds.values()]


def _batch(alike: list[Stored]) -> Batch:
    first = alike[0]
    verdicts = np.array([[unit["verdict"] for unit in each["units"]] for each in alike])
    rank = _array([each["measures"].get("participation_ratio_corrected") for each in alike], np.inf)
    evidence = Evidence(
        activation=first["activation"],
        rows=first["rows"],
        target=first.get("target"),
        testable=~(verdicts == "not_testable").any(-1),
        finite=verdicts != "invalid",
        p_adjusted=_units(alike, lambda unit: _smallest_p(unit), 1.0),
        **{
            name: _units(alike, lambda unit, key=key: unit.get(key), missing) for name, (key, missing) in STORED.items()
        },
    )
    links = [np.array(each.get("links", ()), dtype=np.float64) for each in alike]
    dimension = first["measures"].get("dimension")
    structure = Structure(links, rank, np.inf if dimension is None else dimension)
    margin = _units(alike, lambda unit: unit.get("bimodal_margin"), np.inf)
    return Batch(evidence, structure, [_output(each.get("output")) for each in alike], margin)


def _units(alike: list[Stored], read: Any, missing: float) -> NDArray[Any]:
    return _array([[read(unit) for unit in each["units"]] for each in alike], missing)


def _array(values: list[Any], missing: float) -> NDArray[np.float64]:
    found = np.array(values, dtype=np.float64)
    return np.where(np.isnan(found), missing, found)


def _smallest_p(unit: Stored) -> float | None:
    known = [each["p_adjusted"] for each in unit["references"].values() if each["p_adjusted"] is not None]
    return min(known, default=None)


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
OF_LAYERS = ("activation", "rows", "target", "measures", "links", "output")
OF_UNITS = {"verdict", "bimodal_margin", "kurtosis", "energy_share", "ablation", *(key for key, _ in STORED.values())}
OF_REFERENCES = ("p_adjusted", "interval", "entropy", "codes_entropy")
