"""Summary of a run, with its notes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.grid import Experiment
from harness.results import MemberRecord

NAMED = 10  # members without a result that a note names


@dataclass(frozen=True)
class RunSummary:
    """Summary of a run.

    Args:
        experiment: that was run.
        records: its members, in order.
        trained: number of members that this run trained.
        seconds: wall time.
        report: path of the report; None if there is none.
        steps_per_epoch: optimizer steps of one epoch of the baseline.
        notes: messages for the user: a changed file, a damaged result, a store that was not reached.
        logged: number of members that the MLflow store showed when it was queried.
        missing: names of the requested members without a result.
        root: the folder that contains `mlruns/`; None means the current one.
    """

    experiment: Experiment
    records: list[MemberRecord]
    trained: int
    seconds: float
    report: Path | None
    steps_per_epoch: int
    notes: tuple[str, ...] = ()
    logged: int = 0
    missing: tuple[str, ...] = ()
    root: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the document that `harness run --json` prints."""
        failed = sum(record.status == "failed" for record in self.records)
        return {
            "experiment": self.experiment.name,
            "members": len(self.records) + len(self.missing),
            "done": len(self.records) - failed,
            "failed": failed,
            "steps_per_epoch": self.steps_per_epoch,
            "seconds": round(self.seconds, 3),
            "report": None if self.report is None else str(self.report),
            "trained": self.trained,
            "logged": self.logged,
            "missing": list(self.missing),
            "diverged": sum(record.status == "diverged" for record in self.records),
            "verdicts": _counts(record.reported_verdict or record.status for record in self.records),
            "notes": list(self.notes),
        }


def trained_alone(records: Iterable[MemberRecord]) -> list[str]:
    """Count members that trained alone although the plan says otherwise, with the reasons.

    >>> trained_alone([MemberRecord("k0", "v", {}, 0, alone="it cannot be batched"), MemberRecord("k1", "v", {}, 1)])
    ['1 member trained one by one: it cannot be batched']
    """
    reasons = _counts(record.alone for record in records if record.alone)
    return [
        f"{members} member{'s' * (members > 1)} trained one by one: {reason}" for reason, members in reasons.items()
    ]


def without_results(names: Sequence[str], members: int) -> list[str]:
    """Describe members without a result.

    >>> without_results(["relu s0", "relu s3"], 4)
    ['2 of 4 members have no result: relu s0, relu s3; `harness run` trains them']
    """
    suffix = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    listed = ", ".join(names[:NAMED]) + suffix
    return [f"{len(names)} of {members} members have no result: {listed}; `harness run` trains them"] if names else []


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
