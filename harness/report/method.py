"""Method, limits and reproducibility: what the numbers rest on, and how to get them again."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.effects import Effects
from harness.effects.outcomes import category
from harness.report.format import number, plural
from harness.report.svg import Table
from harness.results.records import MemberRecord


def threshold_rows(sweep: Sequence[Any]) -> Table:
    """Every threshold with its meaning and source, and how many verdicts change within a decade around it."""
    from harness.diagnosis.thresholds import threshold_table

    influence = {each.threshold: each for each in sweep}
    rows = [
        [
            str(each["name"]).replace("_", " "),
            number(float(each["value"])),
            str(each["meaning"]),
            str(each["source"]),
            _influence(influence.get(str(each["name"]))),
        ]
        for each in threshold_table()
    ]
    return Table(["threshold", "value", "meaning", "source", "verdicts that change within a decade"], rows)


def sensitive(sweep: Sequence[Any]) -> str:
    """The sentence on how far the verdicts depend on thresholds that nobody published."""
    members = max((each.members for each in sweep), default=0)
    if not members:
        return "No member was judged, so no threshold could be varied."
    moved = sorted((each for each in sweep if each.changed), key=lambda each: -each.changed)
    if not moved:
        return f"Moving each of {len(sweep)} thresholds through a decade changes none of {members} verdicts."
    said = "; ".join(
        f"{each.threshold.replace('_', ' ')}: {each.changed} of {each.members}{_changes(each)}" for each in moved[:4]
    )
    return f"Moving each of {len(sweep)} thresholds through a decade changes verdicts for {len(moved)} of them: {said}."


def limits(records: Sequence[MemberRecord], effects: Effects) -> list[str]:
    """What the experiment cannot say."""
    kinds = [category(record) for record in records]
    lost = len(records) - kinds.count("collapsed") - kinds.count("not collapsed")
    found = [effects.scope, *effects.design.sentences]
    if lost:
        found.append(
            f"{plural(lost, 'member')} of {len(records)} left no verdict; they are counted as lost, and each effect "
            "states what it would be at worst."
        )
    if any(record.r2 is None for record in records if record.status == "ok"):
        found.append("Members without a reconstruction have no R2: whether their code is of use is not known.")
    return [*found, *LIMITS]


def reproducibility(manifest: Mapping[str, Any], records: Sequence[MemberRecord]) -> list[tuple[str, str]]:
    """Names and values: command, commit, seeds, data, versions."""
    versions = manifest.get("versions") or {}
    inputs = manifest.get("inputs") or {}
    seeds = sorted({record.seed for record in records})
    facts = [
        ("command", manifest.get("command")),
        ("git commit", manifest.get("commit") or "not in a repository"),
        ("seeds", ", ".join(map(str, seeds))),
        ("members", str(len(records))),
        ("case", _case(manifest, inputs)),
        ("data", _data(manifest, inputs)),
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        ("machine", manifest.get("machine")),
        ("trained on", _devices(records)),
        ("results format", manifest.get("format")),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def resolved_text(manifest: Mapping[str, Any]) -> str:
    """The experiment with every default filled in."""
    return json.dumps(manifest.get("experiment") or {}, indent=1, ensure_ascii=False, default=str)


def _influence(found: Any) -> str:
    from harness.diagnosis.thresholds import TABLE

    if found is None:
        return "not varied"
    kind = "flags" if TABLE[found.threshold].decides == "flag" else "verdicts"
    units = f"; the {kind} of {found.units_changed} of {plural(found.units, 'unit')}" if found.units_changed else ""
    return f"{found.changed} of {found.members}{_changes(found)}{units}"


def _changes(found: Any) -> str:
    most = sorted(found.changes.items(), key=lambda each: -each[1])[:1]
    return f" (most: {most[0][0].replace('_', ' ')}, {most[0][1]})" if most else ""


def _devices(records: Sequence[MemberRecord]) -> str:
    """Nothing where all members trained on a processor, as is usual."""
    if not any(record.gpu for record in records):
        return ""
    counts = Counter(record.gpu or "a processor" for record in records if record.status != "failed")
    return ", ".join(f"{name} ({plural(count, 'member')})" for name, count in counts.items())


def _case(manifest: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    name = (manifest.get("experiment") or {}).get("case", "")
    parts = [f"bottleneck {inputs['bottleneck']}" if inputs.get("bottleneck") else "", _mark(inputs.get("case"))]
    return ", ".join(str(each) for each in (name, *parts) if each)


def _data(manifest: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    name = (manifest.get("experiment") or {}).get("data") or "the case's own"
    rows = (
        f"{inputs['train_rows']} rows to train, {inputs['evaluation_rows']} held out" if "train_rows" in inputs else ""
    )
    factors = f"factors {', '.join(inputs['factors'])}" if inputs.get("factors") else ""
    labels = "labels" if inputs.get("labels") else ""
    return ", ".join(each for each in (str(name), rows, labels, factors, _mark(inputs.get("data"))) if each)


def _mark(fingerprint: Any) -> str:
    return f"fingerprint {str(fingerprint)[:16]}" if fingerprint else ""


LIMITS = (
    "A verdict is about the held-out rows that were seen: a unit that never fired there may fire elsewhere.",
    "Mutual information with a reference says what a unit tells about it, not what it could tell about others.",
    "A live unit is no good unit: read live units and R2 together.",
)

METHOD = (
    "Every member is one variant trained with one seed; a seed means the same initial weights, split and batch order "
    "in every variant, so that variants are compared seed by seed.",
    "A unit is judged on held-out rows, in evaluation mode, at the activation in use; a layer by its units: full "
    "collapse (no unit varies), single live unit, near collapse (what varies hardly varies), partial collapse, "
    "redundant (units are copies), dimensional collapse, healthy. The first three count as collapsed.",
    "Effects: per seed the mean difference between variants that differ in nothing else, then over seeds the mean, a "
    "95 % t interval and an exact sign-flip p, adjusted (Benjamini-Hochberg) over everything declared, for each "
    "outcome by itself. Confirmed means at least 8 seeds, adjusted p at most .05, and an interval without 0.",
    "Shares of seeds carry Wilson's 95 % interval. R2 is about the mean of the held-out rows: 0 is no better than that "
    "mean, 1 is perfect; principal components fitted on the training rows are the level to compare with.",
)
