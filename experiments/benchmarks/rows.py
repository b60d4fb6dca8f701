"""What every part of the benchmark yields: one contender, measured several times in one set-up."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One contender in one set-up.

    Args:
        part: `machine`, `training`, `logging`, `start-up` or `end to end`.
        subject: what all contenders of a group were asked to do.
        contender: who did it.
        unit: of the values.
        values: one a repetition.
        members: how many, where that means something.
        processes: that worked.
        threads: of each of them.
        peak_mb: the most memory of the process that did it; of several, see `more`.
        more: what only this part knows.
    """

    part: str
    subject: str
    contender: str
    unit: str
    values: tuple[float, ...]
    members: int | None = None
    processes: int = 1
    threads: int = 1
    peak_mb: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """Of the repetitions."""
        return statistics.median(self.values)

    def document(self) -> dict[str, Any]:
        """What the JSON says of it."""
        known = {name: value for name, value in vars(self).items() if name not in ("values", "more", "peak_mb")}
        spread = {"median": self.median, "low": min(self.values), "high": max(self.values)}
        numbers = {name: round(value, 3) for name, value in spread.items()}
        peak = {} if self.peak_mb is None else {"peak_mb": round(self.peak_mb)}
        return {
            **known,
            **numbers,
            "repetitions": len(self.values),
            "values": [round(value, 3) for value in self.values],
            **peak,
            **self.more,
        }

    def __str__(self) -> str:
        members = "" if self.members is None else f", {self.members} members"
        spread = f"{self.median:.4g} ({min(self.values):.4g} to {max(self.values):.4g}) {self.unit}"
        return f"{self.subject}{members}: {self.contender}, {self.processes} x {self.threads}: {spread}"
