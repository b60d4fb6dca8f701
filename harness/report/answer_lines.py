"""The first screen and the explanation, as the statistics say them; a report is written even where they cannot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.effects import Effects
from harness.report.answer import summarize
from harness.report.explanation import explain_experiment
from harness.results.records import MemberRecord

LONGEST_ABOUT = 80


@dataclass(frozen=True)
class AnswerLine:
    """One line of the answer: what it is about, and what it says."""

    about: str
    text: str


def answer_lines(effects: Effects) -> list[AnswerLine]:
    """The answer, each line cut at its first colon.

    >>> split_line("Scope: other seeds.")
    AnswerLine(about='Scope', text='other seeds.')
    """
    return [split_line(line) for line in summarize(effects)]


def split_line(line: str) -> AnswerLine:
    """A line in two: what it is about, and the rest."""
    about, separator, text = line.partition(": ")
    return AnswerLine(about, text) if separator and len(about) < LONGEST_ABOUT else AnswerLine("", line)


def explanations(records: Sequence[MemberRecord], manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One paragraph a group of variants, as plain values."""
    return [paragraph.to_dict() for paragraph in explain_experiment(records, manifest.get("audit") or {})]


def question(manifest: Mapping[str, Any], records: Sequence[MemberRecord]) -> str:
    """What was asked, in a sentence."""
    declared = manifest.get("factors") or (manifest.get("experiment") or {}).get("factors") or {}
    levels = {name: _levels(name, declared[name], records) for name in declared}
    factors = "; ".join(f"{name} ({', '.join(names)})" for name, names in levels.items() if len(names) > 1)
    variants, seeds = len({record.variant for record in records}), len({record.seed for record in records})
    return (
        f"Which of {variants} variants collapse in how many of {seeds} seeds, and what does each remedy do? "
        f"{len(records)} members were trained{f'; factors: {factors}' if factors else ''}."
    )


def _levels(name: str, declared: Sequence[Any], records: Sequence[MemberRecord]) -> list[str]:
    """The declared levels of a factor, then those that only the members have."""
    trained = (record.levels[name] for record in records if name in record.levels)
    return list(dict.fromkeys(map(str, [*declared, *trained])))
