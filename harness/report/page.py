"""Contents of the report of an experiment, in the order of the page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.diagnosis.sensitivity import Sensitivity
from harness.diagnosis.severity import gravity, severity_of
from harness.effects import Effects
from harness.report import method
from harness.report.answer import answer_document, answer_rows, headline, remedy_name
from harness.report.answer_lines import averaged_answer, explanations, question
from harness.report.averaged_answer import is_one_at_a_time
from harness.report.explanation import explain_experiment
from harness.report.figure_deaths import deaths_picture
from harness.report.figure_effects import forest
from harness.report.figure_examples import ExampleStrip, example_strips
from harness.report.figure_time import live_units_picture, loss_picture
from harness.report.figure_units import units_picture
from harness.report.remedy_code import code_of
from harness.report.style import by_severity, shown_verdict
from harness.report.summary_tables import first_rows, level_rows, variant_rows
from harness.report.svg import RenderedFigure, Table
from harness.results import StoredResults
from harness.results.records import MemberRecord

MOST_CODE = 3


def content(results: StoredResults, effects: Effects, swept: Sequence[Sensitivity]) -> dict[str, Any]:
    """Values of the templates, by name.

    Args:
        results, effects: the experiment. swept: sensitivity of the verdicts to the thresholds.
    """
    records, manifest = results.records, results.manifest
    values: dict[str, Any] = {
        "title": f"{manifest.get('name', 'experiment')}: what helps against collapse",
        "question": question(manifest, records),
        "headline": headline(effects),
        "scope": effects.scope,
        "answer": answer_rows(effects, records),
        "answer_document": answer_document(effects),
        "averaged": averaged_answer(effects),
        "to_do": to_do(effects, manifest),
        "first_strips": first_strips(records, effects),
        "why": why(records, manifest, effects),
        "verdicts": by_severity(map(shown_verdict, records)),
        "first": first_rows(records, effects.baseline),
        "levels": {} if is_one_at_a_time(effects) else level_rows(records, effects.baseline),
        "variants": variant_rows(records, effects.baseline),
        "failures": failures(records),
        "strips": example_strips(records, effects.baseline),
        "audit": audited_once(manifest.get("audit") or {}),
        "audited": list(manifest.get("audit") or {}),
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
    return {
        **values,
        "contents": [(anchor, name) for anchor, name in SECTIONS if anchor != "audit" or values["audited"]],
    }


def to_do(effects: Effects, manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Names and code of the best remedies, at most three; empty where none works or helps."""
    best = [remedy for remedy in effects.remedies if remedy.word in ("works", "helps")]
    return [
        {"name": remedy_name(remedy.remedy), "code": code_of(remedy.remedy, manifest)} for remedy in best[:MOST_CODE]
    ]


def first_strips(records: Sequence[MemberRecord], effects: Effects) -> list[ExampleStrip]:
    """Example rows of the baseline and of the best remedy."""
    if effects.at_baseline is None:
        return []
    best = [remedy for remedy in effects.remedies[:1] if remedy.word in ("works", "helps")]
    titles = {effects.at_baseline.variant: "as it is (baseline)"}
    titles.update({remedy.variant: remedy_name(remedy.remedy) for remedy in best})
    return [
        replace(strip, variant=title)
        for name, title in titles.items()
        for strip in example_strips([record for record in records if record.variant == name])[:1]
    ]


def why(records: Sequence[MemberRecord], manifest: Mapping[str, Any], effects: Effects) -> str:
    """The explanation of the baseline in short: the gravest finding of the audit, then two sentences on training."""
    if effects.at_baseline is None:
        return ""
    members = [record for record in records if record.variant == effects.at_baseline.variant]
    audit = manifest.get("audit") or {}
    training = [sentence for paragraph in explain_experiment(members)[:1] for sentence in paragraph.sentences]
    complete = [sentence for paragraph in explain_experiment(members, audit)[:1] for sentence in paragraph.sentences]
    audit_sentences = complete[: len(complete) - len(training)]
    return " ".join(sentence.text for sentence in [*audit_sentences[:1], *training[:2]])


def audited_once(audit: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Every finding of the audit once, the gravest first, with the levels of `penalty` that have it.

    >>> fault = {"rule": "wrong_axis", "severity": "fault"}
    >>> [(finding["rule"], finding["levels"]) for finding in audited_once({"as_posted": [fault], "l1": [fault]})]
    [('wrong_axis', ['as_posted', 'l1'])]
    """
    once: dict[tuple[str, ...], dict[str, Any]] = {}
    for level, findings in audit.items():
        for finding in audited(findings):
            key = tuple(str(finding.get(name)) for name in ("severity", "rule", "term", "line", "evidence", "meaning"))
            levels = once.setdefault(key, {**finding, "levels": []})["levels"]
            if level not in levels:
                levels.append(level)
    return sorted(once.values(), key=lambda finding: gravity(finding["severity"]))


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
        "effects": _drawn([forest(effects.effects)]),
        "crossed": _drawn([forest(crossed, "crossed", ("collapsed", "r2"))]),
        "units": units_picture(records, effects.baseline),
        "timelines": _drawn([live_units_picture(records, effects.baseline), deaths_picture(records, effects.baseline)]),
        "losses": _drawn([loss_picture(records, term, effects.baseline) for term in _terms(records)]),
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
    ("explanation", "Why, by variant"),
    ("method", "Method"),
    ("limits", "Limits"),
    ("reproducibility", "Reproducibility"),
)
