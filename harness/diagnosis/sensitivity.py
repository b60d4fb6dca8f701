"""Sensitivity of the verdicts to thresholds without a published source: the same rules under other numbers.

It works on stored diagnoses, so that a report needs no training and no measurement.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.flag_sensitivity import FLAGS, unit_numbers, units_flagged_otherwise
from harness.diagnosis.layer_rules import layer_verdicts
from harness.diagnosis.result import Diagnosis
from harness.diagnosis.stored_evidence import EvidenceBatch, Stored, batches, stored_evidence
from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.diagnosis.unit_rules import Places, output_verdict, unit_places

Verdicts = NDArray[np.object_]


@dataclass(frozen=True)
class Sensitivity:
    """Influence of one threshold.

    Args:
        threshold: its name. value: as used. low, high: value / sqrt(10) and value * sqrt(10) (of the odds, for a share).
        members: number of members judged again.
        changed: number of them with another verdict, of the layer or of its output, at some value between low and high.
        changes: `"healthy -> redundant"` -> number of members, at low or high, whichever changes more.
        units: number of their units. units_changed: number of units with another verdict (for a threshold that decides
            a flag: another flag) at some value between low and high.
    """

    threshold: str
    value: float
    low: float
    high: float
    members: int
    changed: int
    changes: Mapping[str, int]
    units: int = 0
    units_changed: int = 0

    @property
    def share(self) -> float:
        """Share of members whose verdict changes; 0 without members."""
        return self.changed / self.members if self.members else 0.0


def sweep(
    diagnoses: Iterable[Diagnosis | Stored], thresholds: Thresholds = THRESHOLDS, points: int = 5
) -> list[Sensitivity]:
    """One `Sensitivity` for each threshold without a published source that decides verdicts or the flags of units.

    Args:
        diagnoses: of the members, as values or as stored by `Diagnosis.to_dict()`; empty ones are left out.
        points: number of values tried from 1/sqrt(10) to sqrt(10) times the threshold (or its odds).
    """
    documents = (
        diagnosis.to_dict() if isinstance(diagnosis, Diagnosis) else dict(diagnosis) for diagnosis in diagnoses
    )
    evidence = [stored_evidence(document) for document in documents if document]
    groups, units = batches(evidence), unit_numbers(evidence)
    now = [_judged(batch, thresholds) for batch in groups]
    verdicts = [_influence(name, groups, now, thresholds, points) for name in SWEPT]
    return verdicts + [
        _flag_influence(name, units, thresholds, points, verdicts[0].members, verdicts[0].units) for name in FLAGS
    ]


def _flag_influence(
    name: str, numbers: Mapping[str, NDArray[Any]], thresholds: Thresholds, points: int, members: int, units: int
) -> Sensitivity:
    value = getattr(thresholds, name)
    tried = _decade(name, value, points)
    changed = units_flagged_otherwise(name, numbers, thresholds, [_with(thresholds, name, value) for value in tried])
    return Sensitivity(name, value, tried[0], tried[-1], members, 0, {}, units, changed)


def _influence(
    name: str, groups: list[EvidenceBatch], now: "list[SweptVerdicts]", thresholds: Thresholds, points: int
) -> Sensitivity:
    value = getattr(thresholds, name)
    tried = _decade(name, value, points)
    same = name not in OUTPUT_THRESHOLDS
    moved = [
        [
            _judged(_measured_at(batch, name, point), _with(thresholds, name, point), before.outputs if same else None)
            for batch, before in zip(groups, now, strict=True)
        ]
        for point in tried
    ]
    tallies = [_changes(now, then) for then in moved]
    return Sensitivity(
        threshold=name,
        value=value,
        low=tried[0],
        high=tried[-1],
        members=sum(batch.layers.size for batch in now),
        changed=sum(_differ([then[index].layers for then in moved], batch.layers) for index, batch in enumerate(now)),
        changes=max(tallies, key=lambda tally: sum(tally.values())),
        units=sum(batch.units.size for batch in now),
        units_changed=sum(
            _differ([then[index].units for then in moved], batch.units) for index, batch in enumerate(now)
        ),
    )


def _differ(moved: list[NDArray[Any]], now: NDArray[Any]) -> int:
    """Number of elements that differ from the present ones in at least one array."""
    return int(np.any([then != now for then in moved], axis=0).sum())


def _measured_at(batch: EvidenceBatch, name: str, value: float) -> EvidenceBatch:
    """The batch as measured under another threshold: the margin of saturation decides which values are saturated."""
    if name != "saturation":
        return batch
    # a rounding of the threshold must not decide a value that lies on it
    bimodal = batch.bimodal_margin <= value * (1 + 1e-6)
    evidence = replace(batch.evidence, saturated=bimodal.astype(np.float64), low_end=bimodal, high_end=bimodal)
    return replace(batch, evidence=evidence)


def _with(thresholds: Thresholds, name: str, value: float) -> Thresholds:
    changed: dict[str, Any] = {name: value}
    return replace(thresholds, **changed)


def _changes(now: "list[SweptVerdicts]", then: "list[SweptVerdicts]") -> Counter[str]:
    pairs = [(before.layers, after.layers) for before, after in zip(now, then, strict=True)]
    moved = [(old[old != new], new[old != new]) for old, new in pairs]
    return Counter(f"{old} -> {new}" for pair in moved for old, new in zip(*pair, strict=True))


def _decade(name: str, value: float, points: int) -> list[float]:
    """Values around a threshold; a share moves by its odds, since ten times one half is no share.

    >>> [round(value, 3) for value in _decade("duplicate_correlation", 0.99, 3)]
    [0.969, 0.99, 0.997]
    """
    factors = np.geomspace(10**-0.5, 10**0.5, points)
    if name in SHARES:
        odds = factors * value / (1 - value)
        return [float(share) for share in odds / (1 + odds)]
    values = [float(value * factor) for factor in factors]
    return [float(round(value)) for value in values] if isinstance(value, int) else values


@dataclass(frozen=True)
class SweptVerdicts:
    """Verdicts of a batch.

    Args:
        layers: `[member]`, of layer and output, in words. outputs: `[member]` of `OutputVerdict` or None.
        units: `[member, unit]`, as positions in the order of precedence.
    """

    layers: Verdicts
    outputs: Verdicts
    units: Places


def _judged(batch: EvidenceBatch, thresholds: Thresholds, outputs: Verdicts | None = None) -> SweptVerdicts:
    """Verdicts under these thresholds; those of the outputs may be given, since few thresholds concern them."""
    units = unit_places(batch.evidence, thresholds)
    if outputs is None:
        verdicts = [None if numbers is None else output_verdict(numbers, thresholds) for numbers in batch.outputs]
        outputs = np.array(verdicts, dtype=object)
    layers = layer_verdicts(units, batch.evidence, batch.structure, outputs.tolist(), thresholds)
    words = np.array(["" if verdict is None else f", output {verdict}" for verdict in outputs], dtype=object)
    return SweptVerdicts(layers + words, outputs, units)


SHARES = {
    *("claimable_frequency", "rare_frequency", "saturation", "saturated_share", "reliability", "duplicate_correlation"),
    *("redundant_share", "dimensional_share", "mean_output_r2", "dead_outputs"),
    *("heavy_energy", "delta_share", "delta_codes", "delta_classes"),
}

OUTPUT_THRESHOLDS = ("mean_output_r2", "dead_outputs")

SWEPT = (
    "range_epsilons",
    "claimable_frequency",
    "few_rows",
    "target_tolerance",
    "near_constant",
    "rare_frequency",
    "saturation",
    "saturated_share",
    "reliability",
    "duplicate_correlation",
    "redundant_share",
    "dimensional_share",
    "dimensional_rows",
    *OUTPUT_THRESHOLDS,
)
