"""Contents of the report of an experiment, in the order of the page."""

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
    """Values of the templates, by name.

    Args:
        results, effects: the experiment. swept: sensitivity of the verdicts to the thresholds.
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
        "outcome_titles": {f"forest-{name.replace('_', '-')}": outcome.title for name, outcome in OUTCOMES.items()},
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
    """Stored findings with current names of severities; unknown names stay.

    >>> audited([{"rule": "dominates", "severity": "warning"}])
    [{'rule': 'dominates', 'severity': 'risk'}]
    """
    return [{**finding, "severity": str(severity_of(finding.get("severity")))} for finding in findings]


def pictures(records: Sequence[MemberRecord], effects: Effects) -> dict[str, Any]:
    """Figures by section."""
    crossed = [*effects.interactions, *effects.contrasts]
    return {
        "effects": _drawn(forest(effects.effects, outcome) for outcome in OUTCOMES),
        "crossed": _drawn(forest(crossed, outcome, "crossed") for outcome in ("collapsed", "r2")),
        "units": units_picture(records),
        "timelines": _drawn([live_units_picture(records), deaths_picture(records)]),
        "losses": _drawn([loss_picture(records, term) for term in _terms(records)]),
    }


def failures(records: Sequence[MemberRecord], most: int = 40) -> Table | None:
    """Table of the members that failed or diverged, with the reason; None where there is none."""
    unjudged = [record for record in records if record.status != "ok"]
    if not unjudged:
        return None
    rows = [[record.variant, str(record.seed), record.status, _reason(record)] for record in unjudged[:most]]
    return Table(["variant", "seed", "status", "why"], rows, left_out=len(unjudged) - len(rows))


def _reason(record: MemberRecord) -> str:
    if record.status == "diverged":
        return f"loss is NaN or infinite from step {record.diverged_step}" if record.diverged_step is not None else ""
    return (record.error or "not known")[:300]


def _terms(records: Sequence[MemberRecord]) -> list[str]:
    """Loss terms to draw: the reconstruction, then the penalties, at most four."""
    names = dict.fromkeys(
        name.removeprefix("loss/") for record in records for name in record.history if "loss/" in name
    )
    terms = [term for term in names if term not in ("reconstruction", "total")]
    return ["reconstruction", *terms][:4] if "reconstruction" in names else ["total"]


def _drawn(figures: Any) -> list[RenderedFigure]:
    return [figure for figure in figures if figure is not None]


def counts(records: Sequence[MemberRecord]) -> Mapping[str, int]:
    """Number of members, and number of members per verdict."""
    outcomes = [shown_verdict(record) for record in records]
    return {"members": len(records), **{verdict: outcomes.count(verdict) for verdict in by_severity(outcomes)}}


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
