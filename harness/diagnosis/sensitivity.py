"""How much the verdicts depend on thresholds that nobody published: the same rules under other numbers.

Works on stored diagnoses, so that a report can print it without training or measuring anything again.
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
    """What a threshold decides.

    Args:
        threshold: its name. value: as used. low, high: the ends of the decade around it (of odds, for a share).
        members: how many members were judged again.
        changed: how many of them have another verdict, of the layer or of its output, somewhere in the decade.
        changes: `"healthy -> redundant"` -> how many, at the end of the decade where most change.
        units: how many units they have. units_changed: how many of them have another verdict (for a threshold that
            decides a flag: another flag) somewhere in the decade.
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
        """The share of members whose verdict changes; 0 where there are none."""
        return self.changed / self.members if self.members else 0.0


def sweep(
    diagnoses: Iterable[Diagnosis | Stored], thresholds: Thresholds = THRESHOLDS, points: int = 5
) -> list[Sensitivity]:
    """One `Sensitivity` for each threshold of this project's own that decides verdicts or the flags of units.

    Args:
        diagnoses: of the members, as values or as stored by `Diagnosis.to_dict()`; empty ones are left out.
        points: how many values are tried from 1/sqrt(10) to sqrt(10) times the threshold (or its odds).
    """
    stored = (each.to_dict() if isinstance(each, Diagnosis) else dict(each) for each in diagnoses)
    kept = [stored_evidence(each) for each in stored if each]
    judged_alike, units = batches(kept), unit_numbers(kept)
    now = [_judged(batch, thresholds) for batch in judged_alike]
    verdicts = [_influence(name, judged_alike, now, thresholds, points) for name in SWEPT]
    return verdicts + [
        _flag_influence(name, units, thresholds, points, verdicts[0].members, verdicts[0].units) for name in FLAGS
    ]


def _flag_influence(
    name: str, numbers: Mapping[str, NDArray[Any]], thresholds: Thresholds, points: int, members: int, units: int
) -> Sensitivity:
    value = getattr(thresholds, name)
    tried = _decade(name, value, points)
    changed = units_flagged_otherwise(name, numbers, thresholds, [_with(thresholds, name, each) for each in tried])
    return Sensitivity(name, value, tried[0], tried[-1], members, 0, {}, units, changed)


def _influence(
    name: str, members_alike: list[EvidenceBatch], now: "list[SweptVerdicts]", thresholds: Thresholds, points: int
) -> Sensitivity:
    value = getattr(thresholds, name)
    tried = _decade(name, value, points)
    same = name not in OF_OUTPUTS
    moved = [
        [
            _judged(_seen_at(batch, name, each), _with(thresholds, name, each), before.outputs if same else None)
            for batch, before in zip(members_alike, now, strict=True)
        ]
        for each in tried
    ]
    tallies = [_changes([each.layers for each in now], [each.layers for each in then]) for then in moved]
    return Sensitivity(
        threshold=name,
        value=value,
        low=tried[0],
        high=tried[-1],
        members=sum(each.layers.size for each in now),
        changed=sum(_differ([then[b].layers for then in moved], each.layers) for b, each in enumerate(now)),
        changes=max(tallies, key=lambda each: sum(each.values())),
        units=sum(each.units.size for each in now),
        units_changed=sum(_differ([then[b].units for then in moved], each.units) for b, each in enumerate(now)),
    )


def _differ(moved: list[NDArray[Any]], now: NDArray[Any]) -> int:
    """How many differ somewhere from what they are now."""
    return int(np.any([then != now for then in moved], axis=0).sum())


def _seen_at(batch: EvidenceBatch, name: str, value: float) -> EvidenceBatch:
    """The batch as it would have been measured: what is saturated depends on where saturation begins."""
    if name != "saturation":
        return batch
    # a rounding of the threshold must not decide a value that lies on it
    bimodal = batch.bimodal_margin <= value * (1 + 1e-6)
    seen = replace(batch.evidence, saturated=bimodal.astype(np.float64), low_end=bimodal, high_end=bimodal)
    return replace(batch, evidence=seen)


def _with(thresholds: Thresholds, name: str, value: float) -> Thresholds:
    changed: dict[str, Any] = {name: value}
    return replace(thresholds, **changed)


def _changes(now: list[Verdicts], then: list[Verdicts]) -> Counter[str]:
    moved = [(before[before != after], after[before != after]) for before, after in zip(now, then, strict=True)]
    return Counter(f"{old} -> {new}" for pair in moved for old, new in zip(*pair, strict=True))


def _decade(name: str, value: float, points: int) -> list[float]:
    """Values around a threshold; a share moves by its odds, as ten times one half is no share.

    >>> [round(each, 3) for each in _decade("duplicate_correlation", 0.99, 3)]
    [0.969, 0.99, 0.997]
    """
    factors = np.geomspace(10**-0.5, 10**0.5, points)
    if name in SHARES:
        odds = factors * value / (1 - value)
        return [float(each) for each in odds / (1 + odds)]
    tried = [float(value * factor) for factor in factors]
    return [float(round(each)) for each in tried] if isinstance(value, int) else tried


@dataclass(frozen=True)
class SweptVerdicts:
    """The verdicts of a batch.

    Args:
        layers: `[member]`, of its layer and its output, in words. outputs: `[member]`, what they say of the output.
        units: `[member, unit]`, as places in the order of precedence.
    """

    layers: Verdicts
    outputs: Verdicts
    units: Places


def _judged(batch: EvidenceBatch, thresholds: Thresholds, outputs: Verdicts | None = None) -> SweptVerdicts:
    """The batch under these thresholds; few of them say anything of outputs, whose verdicts may be given."""
    units = unit_places(batch.evidence, thresholds)
    layers = layer_verdicts(units, batch.evidence, batch.structure, thresholds)
    said = _said(batch, thresholds) if outputs is None else outputs
    return SweptVerdicts(layers + said, said, units)


def _said(batch: EvidenceBatch, thresholds: Thresholds) -> Verdicts:
    words = ["" if each is None else f", output {output_verdict(each, thresholds)}" for each in batch.outputs]
    return np.array(words, dtype=object)


SHARES = {
    *("claimable_frequency", "rare_frequency", "saturation", "saturated_share", "reliability", "duplicate_correlation"),
    *("redundant_share", "dimensional_share", "mean_output_variance", "mean_output_r2", "dead_outputs"),
    *("heavy_energy", "delta_share", "delta_codes"),
}

OF_OUTPUTS = ("mean_output_variance", "mean_output_r2", "dead_outputs")

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
    *OF_OUTPUTS,
)
