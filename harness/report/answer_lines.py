"""Lines of the answer and of the explanation as values of the templates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.effects import Effects
from harness.report.answer import headline
from harness.report.averaged_answer import averaged_lines
from harness.report.explanation import explain_experiment
from harness.results.records import MemberRecord
from harness.text import plural

LONGEST_ABOUT = 80


@dataclass(frozen=True)
class AnswerLine:
    """One line of an answer: its subject and its text."""

    about: str
    text: str


def answer_lines(effects: Effects) -> list[AnswerLine]:
    """The headline, then the averaged effects, each split at its first colon."""
    return [AnswerLine("Answer", headline(effects)), *averaged_answer(effects)]


def averaged_answer(effects: Effects) -> list[AnswerLine]:
    """The effects averaged over the other factors; empty where no effect averages."""
    return [split_line(line) for line in averaged_lines(effects)]


def split_line(line: str) -> AnswerLine:
    """Split a line into its subject and its text.

    >>> split_line("Scope: other seeds.")
    AnswerLine(about='Scope', text='other seeds.')
    """
    about, separator, text = line.partition(": ")
    return AnswerLine(about, text) if separator and len(about) < LONGEST_ABOUT else AnswerLine("", line)


def explanations(records: Sequence[MemberRecord], manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One paragraph per group of variants, as plain values; what the audit says of a penalty stands in the first of them."""
    audit = manifest.get("audit") or {}
    audited = explain_experiment(records, audit)
    texts: set[str] = set()
    paragraphs = []
    for paragraph, trained in zip(audited, explain_experiment(records), strict=True):
        about_penalty = paragraph.sentences[: len(paragraph.sentences) - len(trained.sentences)]
        new = tuple(sentence for sentence in about_penalty if sentence.text not in texts)
        texts.update(sentence.text for sentence in about_penalty)
        paragraphs.append(replace(paragraph, sentences=(*new, *trained.sentences)).to_dict())
    return paragraphs


def question(manifest: Mapping[str, Any], records: Sequence[MemberRecord]) -> str:
    """The question of the experiment in a sentence."""
    declared = manifest.get("factors") or (manifest.get("experiment") or {}).get("factors") or {}
    levels = {name: _levels(name, declared[name], records) for name in declared}
    factors = "; ".join(f"{name} ({', '.join(names)})" for name, names in levels.items() if len(names) > 1)
    variants, seeds = len({record.variant for record in records}), len({record.seed for record in records})
    return f"{len(records)} models: {plural(variants, 'variant')} x {plural(seeds, 'seed')}{f'; factors: {factors}' if factors else ''}."


def _levels(name: str, declared: Sequence[Any], records: Sequence[MemberRecord]) -> list[str]:
    """Declared levels of a factor, then levels that only members have."""
    trained = (record.levels[name] for record in records if name in record.levels)
    return list(dict.fromkeys(map(str, [*declared, *trained])))
