"""What the report of an experiment says, in the order in which it says it."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.diagnosis.sensitivity import Sensitivity
from harness.diagnosis.severity import severity_of
from harness.effects import Effects
from harness.effects.outcomes import OUTCOMES
from harness.report import method
from harness.report.answer import is_one_at_a_time
from harness.report.answer_lines import answer_lines, explanations, question
from harness.report.figure_effects import forest
from harness.report.figure_examples import example_strips
from harness.report.figure_time import deaths_picture, live_units_picture, loss_picture
from harness.report.figure_units import units_picture
from harness.report.style import by_severity, shown_verdict
from harness.report.summary_tables import first_rows, level_rows, variant_rows
from harness.report.svg import RenderedFigure, Table
from harness.results import Results
from harness.results.records import MemberRecord


def content(results: Results, effects: Effects, swept: Sequence[Sensitivity]) -> dict[str, Any]:
    """Every value that the templates show, by name.

    Args:
        results, effects: what is reported. swept: how much the verdicts owe to the thresholds.
    """
    records, manifest = results.records, results.manifest
    values: dict[str, Any] = {
        "title": f"{manifest.get('name', 'experiment')}: which variants collapse, and what helps",
        "question": question(manifest, records),
        "answer": answer_lines(effects),
        "verdicts": by_severity(map(shown_verdict, records)),
        "first": first_rows(records, effects.baseline),
        "levels": {} if is_one_at_a_time(effects) else level_rows(records),
        "variants": variant_rows(records, effects.baseline),
        "failures": failures(records),
        "outcome_titles": {f"forest-{name.replace('_', '-')}": each.title for name, each in OUTCOMES.items()},
        "strips": example_strips(records),
        "audit": {level: audited(findings) for level, findings in (manifest.get("audit") or {}).items()},
        "explanation": explanations(records, manifest),
        "method": method.METHOD,
        "thresholds": method.threshold_rows(swept),
        "sensitive": method.sensitive(swept),
        "limits": method.limits(records, effects),
        "facts": method.reproducibility(manifest, records),
        "text": str(manifest.get("text") or ""),
        "resolved": method.resolved_text(manifest),
        **pictures(records, effects),
    }
    return {**values, "contents": [(anchor, name) for anchor, name in SECTIONS if anchor != "audit" or values["audit"]]}


def audited(findings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stored findings with the severities of today; a word that names none stands as it was stored.

    >>> audited([{"rule": "dominates", "severity": "warning"}])
    [{'rule': 'dominates', 'severity': 'risk'}]
    """
    return [{**finding, "severity": str(severity_of(finding.get("severity")))} for finding in findings]


def pictures(records: Sequence[MemberRecord], effects: Effects) -> dict[str, Any]:
    """The figures, by the section in which they stand."""
    crossed = [*effects.interactions, *effects.contrasts]
    return {
        "effects": _drawn(forest(effects.effects, outcome) for outcome in OUTCOMES),
        "crossed": _drawn(forest(crossed, outcome, "crossed") for outcome in ("collapsed", "r2")),
        "units": units_picture(records),
        "timelines": _drawn([live_units_picture(records), deaths_picture(records)]),
        "losses": _drawn([loss_picture(records, term) for term in _terms(records)]),
    }


def failures(records: Sequence[MemberRecord], most: int = 40) -> Table | None:
    """Members that failed or diverged, and why; None where there is none."""
    lost = [record for record in records if record.status != "ok"]
    if not lost:
        return None
    rows = [[record.variant, str(record.seed), record.status, _reason(record)] for record in lost[:most]]
    return Table(["variant", "seed", "status", "why"], rows, left_out=len(lost) - len(rows))


def _reason(record: MemberRecord) -> str:
    if record.status == "diverged":
        return f"a loss was no number from step {record.diverged_step} on" if record.diverged_step is not None else ""
    return (record.error or "not known")[:300]


def _terms(records: Sequence[MemberRecord]) -> list[str]:
    """The reconstruction, then the penalties that anybody has: at most four pictures."""
    found = dict.fromkeys(
        name.removeprefix("loss/") for record in records for name in record.history if "loss/" in name
    )
    terms = [term for term in found if term not in ("reconstruction", "total")]
    return ["reconstruction", *terms][:4] if "reconstruction" in found else ["total"]


def _drawn(found: Any) -> list[RenderedFigure]:
    return [each for each in found if each is not None]


def counts(records: Sequence[MemberRecord]) -> Mapping[str, int]:
    """How many members came to what."""
    outcomes = [shown_verdict(record) for record in records]
    return {"members": len(records), **{each: outcomes.count(each) for each in by_severity(outcomes)}}


SECTIONS = (
    ("verdicts", "Verdicts"),
    ("effects", "Effects"),
    ("collapse", "What collapse looks like"),
    ("timelines", "When it happens"),
    ("losses", "Losses"),
    ("reconstructions", "Reconstructions"),
    ("audit", "What the penalties can do"),
    ("explanation", "Why"),
    ("method", "Method"),
    ("limits", "Limits"),
    ("reproducibility", "Reproducibility"),
)
