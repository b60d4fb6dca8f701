"""Estimates for a plan from earlier results: the spread over seeds, and the training rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.grid import Experiment
    from harness.results import MemberRecord

OUTCOME = "collapsed"


def earlier_records(experiment: "Experiment", root: Path) -> "list[MemberRecord]":
    """Read the records of the experiment under `root`; an empty list if there are none."""
    from harness.results import slug

    folder = root / "results" / slug(experiment.name)
    if not folder.is_dir():
        return []
    from harness.results import read_records

    return read_records(folder)[0]


def deviations(experiment: "Experiment", records: "Sequence[MemberRecord]") -> dict[str, float]:
    """Return for each factor the largest standard deviation over seeds of a level's difference in the collapsed share."""
    comparable = [record for record in records if set(record.levels) == set(experiment.factors)]
    if not comparable:
        return {}
    from harness.effects.member_table import member_table

    table = member_table(comparable)
    deviations_by_factor = {name: _deviation(table, name, experiment) for name in experiment.factors}
    return {f"share {OUTCOME}, {name}": value for name, value in deviations_by_factor.items() if value is not None}


def rate(records: "Sequence[MemberRecord]") -> float | None:
    """Return member-steps per second and core; None if nothing was trained."""
    timed = [record for record in records if record.seconds > 0 and record.history.get("step")]
    seconds = sum(record.seconds for record in timed)
    return sum(record.history["step"][-1] for record in timed) / seconds if seconds else None


def _deviation(table: Any, factor: str, experiment: "Experiment") -> float | None:
    import numpy as np

    from harness.effects.matched_blocks import block_differences, level_blocks, seed_means

    baseline: Mapping[str, Any] = experiment.baseline
    deviations = []
    for level in experiment.levels(factor):
        blocks = level_blocks(table.levels, factor, level, baseline[factor]) if level != baseline[factor] else []
        means = seed_means(block_differences(blocks, table.values[OUTCOME])) if blocks else np.empty(0)
        means = means[np.isfinite(means)]
        deviations += [float(means.std(ddof=1))] if len(means) > 1 else []
    return max(deviations, default=None)
