"""Method, limits and reproducibility of the numbers in a report."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.diagnosis.rule_texts import OUTPUT
from harness.diagnosis.verdicts import OutputVerdict
from harness.effects import Effects
from harness.effects.outcomes import category
from harness.report.format import number
from harness.report.svg import Table
from harness.results.records import MemberRecord
from harness.text import plural


def threshold_rows(sweep: Sequence[Any]) -> Table:
    """Every threshold with its meaning, its source, and the number of verdicts that change as it is moved (see `sensitivity`)."""
    from harness.diagnosis.thresholds import threshold_table

    influence = {sensitivity.threshold: sensitivity for sensitivity in sweep}
    rows = [
        [
            str(threshold["name"]).replace("_", " "),
            number(float(threshold["value"])),
            str(threshold["meaning"]),
            str(threshold["source"]),
            _influence(influence.get(str(threshold["name"]))),
        ]
        for threshold in threshold_table()
    ]
    return Table(
        [
            "threshold",
            "value",
            "meaning",
            "source",
            "verdicts that change as it is moved from a third to three times its value",
        ],
        rows,
    )


def sensitive(sweep: Sequence[Any]) -> str:
    """Sentence on the dependence of the verdicts on the thresholds."""
    members = max((sensitivity.members for sensitivity in sweep), default=0)
    if not members:
        return "No member was judged, so no threshold could be varied."
    moved = sorted(
        (sensitivity for sensitivity in sweep if sensitivity.changed), key=lambda sensitivity: -sensitivity.changed
    )
    if not moved:
        return f"Moving each of {len(sweep)} thresholds from a third to three times its value changes none of {members} verdicts."
    listed = "; ".join(
        f"{sensitivity.threshold.replace('_', ' ')}: {sensitivity.changed} of {sensitivity.members}{_changes(sensitivity)}"
        for sensitivity in moved[:4]
    )
    dead = OUTPUT[OutputVerdict.DEAD_OUTPUTS].meaning
    meaning = f' "Dead outputs": {dead}.' if "dead outputs" in listed else ""
    return (
        f"Each of {len(sweep)} thresholds was moved from a third to three times its value (of its odds, for a share);"
        f" {len(moved)} of them change verdicts: {listed}.{meaning}"
    )


def limits(records: Sequence[MemberRecord], effects: Effects) -> list[str]:
    """Limits of the experiment."""
    kinds = [category(record) for record in records]
    unjudged = len(records) - kinds.count("collapsed") - kinds.count("not collapsed")
    sentences = [effects.scope, *effects.design.sentences]
    if unjudged:
        sentences.append(
            f"{plural(unjudged, 'member')} of {len(records)} have no verdict; they are counted as lost, and each effect "
            "is also given in the worst case."
        )
    if any(record.r2 is None for record in records if record.status == "ok"):
        sentences.append("Members without a reconstruction have no R2: whether their code is useful is unknown.")
    return [*sentences, *LIMITS]


def reproducibility(manifest: Mapping[str, Any], records: Sequence[MemberRecord]) -> list[tuple[str, str]]:
    """Names and values of the facts needed to repeat the run: command, commit, seeds, data, versions."""
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
    """The experiment as JSON with every default filled in."""
    return json.dumps(manifest.get("experiment") or {}, indent=1, ensure_ascii=False, default=str)


def _influence(sensitivity: Any) -> str:
    from harness.diagnosis.thresholds import TABLE

    if sensitivity is None:
        return "not varied"
    noun = "flags" if TABLE[sensitivity.threshold].decides == "flag" else "verdicts"
    units = (
        f"; the {noun} of {sensitivity.units_changed} of {plural(sensitivity.units, 'unit')}"
        if sensitivity.units_changed
        else ""
    )
    return f"{sensitivity.changed} of {sensitivity.members}{_changes(sensitivity)}{units}"


def _changes(sensitivity: Any) -> str:
    most = sorted(sensitivity.changes.items(), key=lambda item: -item[1])[:1]
    if not most:
        return ""
    before, _, after = most[0][0].replace("_", " ").replace("output dead", "dead").partition(" -> ")
    return f' (most often from "{before}" to "{after}": {most[0][1]})'


def _devices(records: Sequence[MemberRecord]) -> str:
    """Devices of the members; empty where all members trained on a CPU."""
    if not any(record.gpu for record in records):
        return ""
    counts = Counter(record.gpu or "CPU" for record in records if record.status != "failed")
    return ", ".join(f"{name} ({plural(count, 'member')})" for name, count in counts.items())


def _case(manifest: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    name = (manifest.get("experiment") or {}).get("case", "")
    parts = [f"bottleneck {inputs['bottleneck']}" if inputs.get("bottleneck") else "", _mark(inputs.get("case"))]
    return ", ".join(str(part) for part in (name, *parts) if part)


def _data(manifest: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    name = (manifest.get("experiment") or {}).get("data") or "the case's own"
    rows = (
        f"{inputs['train_rows']} rows to train, {inputs['evaluation_rows']} held out" if "train_rows" in inputs else ""
    )
    factors = f"factors {', '.join(inputs['factors'])}" if inputs.get("factors") else ""
    labels = "labels" if inputs.get("labels") else ""
    return ", ".join(part for part in (str(name), rows, labels, factors, _mark(inputs.get("data"))) if part)


def _mark(fingerprint: Any) -> str:
    return f"fingerprint {str(fingerprint)[:16]}" if fingerprint else ""


LIMITS = (
    "A verdict is about these held-out rows: a unit that never fired on them may fire on others.",
    "Mutual information with a reference says nothing about other references.",
    "A live unit is not necessarily useful; read live units together with R2.",
)

METHOD = (
    "Every member is one variant trained with one seed; a seed means the same initial weights, split and batch order "
    "in every variant, so that variants are compared seed by seed.",
    "A unit is judged on held-out rows, in evaluation mode, at the activation in use; a layer by its units: full "
    "collapse (no unit varies), single live unit, near collapse (what varies hardly varies), partial collapse, "
    "redundant (units are copies), dimensional collapse, healthy. The first three count as collapsed.",
    "Effects: per seed the mean difference between variants that differ in nothing else, then over seeds the mean, a "
    "95 % t interval and an exact sign-flip p, adjusted (Benjamini-Hochberg) over everything declared, for each "
    "outcome by itself. Confirmed means at least 8 seeds, adjusted p at most 0.05, and an interval without 0.",
    "Shares of seeds carry Wilson's 95 % interval. R2 is about the mean of the held-out rows: 0 is no better than that "
    "mean, 1 is perfect; principal components fitted on the training rows are the level to compare with.",
)
