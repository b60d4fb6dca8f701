"""A finding: the same type for a layer's diagnosis and a penalty's audit."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.diagnosis.severity import Severity, severity_of


@dataclass(frozen=True)
class Finding:
    """A finding: evidence with numbers, meaning, and remedy.

    Args:
        rule: the rule's name, a plain string such as `"unreachable_target"`.
        severity: a `Severity`; a stored word that names none is unchanged.
        evidence: the observation, with its numbers.
        meaning: the consequence.
        remedy: the way out.
        units: the units it concerns; empty for the whole layer.
        term: the loss term it concerns, or None.
        line: the line of source it concerns, or None.
        numbers: the evidence as numbers, by name.
        change: the remedy as new values in `Case.numbers`, by keyword, where it is one.

    >>> print(Finding("dead_units", "risk", "2 of 4 never fire", "they carry no information", "zero the bias", (1, 3)))
    risk dead_units (units 1, 3): 2 of 4 never fire
        they carry no information
        do: zero the bias
    """

    rule: str
    severity: str = Severity.NOTE
    evidence: str = ""
    meaning: str = ""
    remedy: str = ""
    units: tuple[int, ...] = ()
    term: str | None = None
    line: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    change: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "severity", severity_of(self.severity))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are not finite become None.

        >>> Finding("inert", numbers={"gradient": float("nan")}).to_dict()["numbers"]
        {'gradient': None}
        """
        return {
            "rule": str(self.rule),
            "severity": str(self.severity),
            "evidence": self.evidence,
            "meaning": self.meaning,
            "remedy": self.remedy,
            "units": [int(unit) for unit in self.units],
            "term": self.term,
            "line": self.line,
            "numbers": {name: json_safe(value) for name, value in self.numbers.items()},
            "change": {name: json_safe(value) for name, value in self.change.items()},
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Finding":
        """Return the finding that `to_dict` wrote; None among the numbers becomes NaN."""
        numbers = {name: math.nan if value is None else value for name, value in stored.get("numbers", {}).items()}
        return cls(**{**stored, "units": tuple(stored.get("units", ())), "numbers": numbers})

    def __str__(self) -> str:
        where = f" (units {unit_list(self.units)})" if self.units else ""
        where += f" in {self.term}" if self.term else ""
        where += f", line {self.line}" if self.line else ""
        lines = [
            f"{self.severity} {self.rule}{where}: {self.evidence}",
            self.meaning,
            self.remedy and f"do: {self.remedy}",
        ]
        return "\n    ".join(line for line in lines if line)


def pointer(findings: Iterable[Finding]) -> str:
    """Return the line that names the pages on the rules of findings; "" without findings.

    >>> pointer([Finding("full_collapse"), Finding("dead"), Finding("dead")])
    'More on each: harness explain full_collapse dead'
    """
    rules = list(dict.fromkeys(str(finding.rule) for finding in findings))
    return f"More on each: harness explain {' '.join(rules)}" if rules else ""


def json_safe(value: Any) -> Any:
    """Value for JSON: numbers that are not finite become None.

    >>> [json_safe(value) for value in (1.5, float("inf"), True, "relu")]
    [1.5, None, True, 'relu']
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def unit_list(units: tuple[int, ...], most: int = 8) -> str:
    """Numbers of the first units, and the count of the rest.

    >>> unit_list(tuple(range(20)), most=3)
    '0, 1, 2 and 17 more'
    """
    numbers = ", ".join(str(unit) for unit in units[:most])
    return numbers if len(units) <= most else f"{numbers} and {len(units) - most} more"
