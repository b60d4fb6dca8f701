"""Summary runs: one MLflow run per variant, with its shares and means over seeds."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from harness.grid.factorial import changes
from harness.grid.names import cell_name
from harness.grid.student import student_quantile
from harness.results import MemberRecord
from harness.results.records import Level
from harness.tracking.member_rows import KEY_TAG, LONGEST, ORIGIN_TAG, Metric, as_stored, member_parameters
from harness.tracking.views import KIND_TAG, RANK_TAG

SUMMARY_KEY = "summary"
BASELINE_REMEDY = "none: the baseline"


@dataclass(frozen=True)
class VariantSummary:
    """A variant over its seeds.

    Args:
        key: of its run: stable for an experiment's name and a variant's name.
        variant: its name.
        tags: levels, seeds, and the remedy in words.
        parameters: everything that its members use, except the seed.
        metrics: shares and means, each with the bounds of its 95 % interval as `<metric>_low` and `<metric>_high`.
        start, end: of its run, in milliseconds since 1970: after the experiment's last member, the baseline latest.
    """

    key: str
    variant: str
    tags: Mapping[str, str]
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    start: int
    end: int

    @cached_property
    def digest(self) -> str:
        """Hash of the parameters, then of tags and metrics: a run with the same digest is up to date."""
        return f"{_hash(dict(summary_parameters(self)))}-{_hash([dict(self.tags), dict(self.metrics)])}"

    def replaces(self, digest: str) -> bool:
        """Return True if a run with this digest has other parameters, which MLflow does not change."""
        return digest.partition("-")[0] != self.digest.partition("-")[0]


def variant_summaries(
    experiment: str,
    records: Sequence[MemberRecord],
    baseline: Mapping[str, Level] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> list[VariantSummary]:
    """Summarize each variant over its seeds: the baseline first, then by failed share, the least first.

    Args:
        experiment: its name.
        records: its members.
        baseline: levels that the remedy of a variant is compared with.
        defaults: parameters of every variant whose levels do not change them.
    """
    variants: dict[str, list[MemberRecord]] = {}
    for record in records:
        variants.setdefault(record.variant, []).append(record)
    summaries = [_summary(experiment, members, baseline or {}, defaults) for members in variants.values()]
    summaries.sort(key=_order)
    # MLflow's page shows the runs that started last, and the first hundred of them: the summaries, as far as they go
    last, digits = max((record.logged_at for record in records), default=0), len(str(len(summaries)))
    return [
        replace(
            summary,
            tags={**summary.tags, RANK_TAG: str(rank).zfill(digits)},
            start=last + len(summaries) - rank,
            end=last + len(summaries) - rank + 1,
        )
        for rank, summary in enumerate(summaries)
    ]


def summary_key(experiment: str, variant: str) -> str:
    """Key of the summary run of a variant."""
    return f"{SUMMARY_KEY}:{experiment}:{variant}"


def summary_parameters(summary: VariantSummary) -> list[tuple[str, str]]:
    """Return the parameters of a summary run as MLflow stores them."""
    return as_stored(summary.parameters)


def stored_summary_tags(summary: VariantSummary, parent: str, origin: str) -> dict[str, str]:
    """Return the tags of a summary run as MLflow stores them, with its key, its origin and the id of its parent."""
    tags = {**summary.tags, KEY_TAG: summary.key, ORIGIN_TAG: origin, "mlflow.parentRunId": parent}
    return {name: value[:LONGEST] for name, value in tags.items()}


def summary_metrics(summary: VariantSummary, timestamp: int) -> list[Metric]:
    """Return (key, value, timestamp, step) of a summary run; its metrics have a single step."""
    return [(name, value, timestamp, 0) for name, value in summary.metrics.items()]


def share(outcomes: Iterable[bool | None]) -> tuple[float, float, float]:
    """Return a share of the members with an outcome, and its Wilson interval.

    >>> share([True, False, True, True, None])[0]
    0.75
    """
    from harness.measures.statistics import wilson  # loads scipy, which a finished run does without

    judged = [outcome for outcome in outcomes if outcome is not None]
    if not judged:
        return math.nan, math.nan, math.nan
    low, high = wilson(sum(judged), len(judged))
    return sum(judged) / len(judged), float(low), float(high)


def mean(values: Iterable[float]) -> tuple[float, float, float]:
    """Return a mean over seeds, and its t interval (NaN for a single seed).

    >>> [round(value, 2) for value in mean([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    array = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if array.size < 2:
        return (float(array[0]) if array.size else math.nan), math.nan, math.nan
    half = student_quantile(0.975, array.size - 1) * float(array.std(ddof=1)) / math.sqrt(array.size)
    return float(array.mean()), float(array.mean()) - half, float(array.mean()) + half


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _order(summary: VariantSummary) -> tuple[bool, float, float]:
    failed, r2 = summary.metrics.get("collapse/failed", math.inf), summary.metrics.get("health/r2", -math.inf)
    return summary.tags["remedy"] != BASELINE_REMEDY, failed, -r2


def _summary(
    experiment: str, members: Sequence[MemberRecord], baseline: Mapping[str, Level], defaults: Mapping[str, Any] | None
) -> VariantSummary:
    first, judged = members[0], [record for record in members if record.status == "ok"]
    remedy = cell_name(changes(first.levels, baseline)) or BASELINE_REMEDY
    statistics = {
        "collapse/failed": share(record.failed for record in members),
        "collapse/collapsed": share(record.collapsed for record in members),
        "collapse/live_units": mean(record.live_units for record in judged),
        "health/r2": mean(record.r2 for record in judged if record.r2 is not None),
    }
    metrics = {
        f"{name}{suffix}": value
        for name, values in statistics.items()
        for suffix, value in zip(("", "_low", "_high"), values, strict=True)
        if math.isfinite(value)
    }
    tags = {
        **{name: str(level) for name, level in first.levels.items()},
        KIND_TAG: "summary",
        "variant": first.variant,
        "remedy": remedy,
        "members": str(len(members)),
        "seeds": _ranges(sorted({record.seed for record in members})),
        "mlflow.note.content": _note(remedy, members, statistics),
    }
    parameters = {name: value for name, value in member_parameters(first, defaults).items() if name != "seed"}
    return VariantSummary(
        summary_key(experiment, first.variant), first.variant, tags, parameters, metrics, start=0, end=0
    )


def _note(remedy: str, members: Sequence[MemberRecord], statistics: Mapping[str, tuple[float, float, float]]) -> str:
    """Describe a variant in words: the description of its run."""
    failed, judged = sum(record.failed is True for record in members), [record.failed is not None for record in members]
    names = {"collapse/failed": "failed share", "collapse/live_units": "live units", "health/r2": "R2"}
    lines = [
        f"- {name}: {value:.2f}" + (f" (95 % interval {low:.2f} to {high:.2f})" if math.isfinite(low) else "")
        for key, name in names.items()
        for value, low, high in [statistics[key]]
        if math.isfinite(value)
    ]
    counts = f"{failed} of {sum(judged)} seeds failed: collapsed, no better than the mean of the rows, or diverged."
    return "\n".join([f"Remedy: {remedy}. {counts}", "", *lines])


def _ranges(seeds: Sequence[int]) -> str:
    """Write seeds in ranges.

    >>> _ranges([0, 1, 2, 7])
    '0-2, 7'
    """
    ranges: list[list[int]] = []
    for seed in seeds:
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
