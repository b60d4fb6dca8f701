"""Text on one verdict or rule, beyond the sentences that a finding prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.diagnosis.thresholds import THIS_PROJECT


@dataclass(frozen=True)
class Entry:
    """Text on one verdict or rule.

    Args:
        decided: the condition.
        causes: usual causes.
        confused: names of other verdicts and rules, each with what tells them apart.
        thresholds: names of the thresholds that the condition uses.
        source: a reference, or "this project" for a rule without a published source.
        says: the meaning; empty where the tables of the diagnosis have it.
        remedy: the way out; empty where the tables of the diagnosis have it.
        severity: empty where a table has it.
    """

    decided: str
    causes: str
    confused: Mapping[str, str] = field(default_factory=dict)
    thresholds: tuple[str, ...] = ()
    source: str = THIS_PROJECT
    says: str = ""
    remedy: str = ""
    severity: str = ""
