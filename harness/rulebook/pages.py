"""Pages on verdicts and rules: what a name says, how it is decided, its usual causes, and what it is confused with."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.auditing.audit_thresholds import AUDIT_THRESHOLDS, SEVERITY, AuditThresholds
from harness.diagnosis.rule_texts import BELOW_PCA, LAYER, LOGITS, OUTPUT, UNIT, UNIT_FLAGS, RuleText
from harness.diagnosis.thresholds import threshold_table
from harness.errors import HarnessError, did_you_mean
from harness.rulebook.entry import Entry
from harness.rulebook.layer_entries import LAYER_ENTRIES, OUTPUT_ENTRIES
from harness.rulebook.model_entries import MODEL_ENTRIES
from harness.rulebook.term_entries import TERM_ENTRIES
from harness.rulebook.unit_entries import UNIT_ENTRIES

KINDS: dict[str, Mapping[str, Entry]] = {
    "verdict or flag of a unit": UNIT_ENTRIES,
    "verdict or flag of a layer": LAYER_ENTRIES,
    "verdict on the output": OUTPUT_ENTRIES,
    "rule of the audit on a loss term": TERM_ENTRIES,
    "rule of the audit on the model": MODEL_ENTRIES,
}


@dataclass(frozen=True)
class RulePage:
    """Text of a page.

    Args:
        name: of the verdict or rule, such as "dead".
        kind: one of the keys of `KINDS`.
        severity: fault, risk, note, or none for a healthy verdict.
        says: the meaning.
        decided: the condition.
        bounds: the thresholds of the condition, each with value, meaning and source.
        causes: usual causes.
        remedy: the way out.
        confused: other names, each with what tells them apart.
        source: a reference, or "this project".
    """

    name: str
    kind: str
    severity: str
    says: str
    decided: str
    bounds: tuple[str, ...]
    causes: str
    remedy: str
    confused: Mapping[str, str]
    source: str

    def sections(self) -> list[tuple[str, str]]:
        """Return the headings and texts of the page, in order."""
        confused = "\n".join(f"- `{name}`: {difference}" for name, difference in self.confused.items())
        bounds = "".join(f"\n- {bound}" for bound in self.bounds)
        return [
            ("What it says", f"{sentence(self.says)}"),
            ("How it is decided", self.decided + (f"\n{bounds}" if bounds else "")),
            ("What usually causes it", sentence(self.causes)),
            ("What to try", sentence(self.remedy or "nothing; read the other findings")),
            ("What it is confused with", confused or "nothing"),
            ("Source", sentence(self.source)),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values under the names of the attributes."""
        return {**asdict(self), "bounds": list(self.bounds)}

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.kind}, severity {self.severity}"]
        parts += [f"{heading}\n{indented(text)}" for heading, text in self.sections()]
        return "\n\n".join(parts)


def explain(name: str) -> RulePage:
    """Return the page on a verdict or rule.

    Raises:
        HarnessError: if no verdict or rule has this name.

    >>> explain("near_constant").bounds
    ('`near_constant` = 0.001: a unit is near_constant when its standard deviation is below this share of its RMS (this project)',)
    """
    for heading, entries in KINDS.items():
        if name in entries:
            return _page(name, heading, entries[name])
    raise HarnessError(did_you_mean("verdict or rule", name, names()))


def names() -> list[str]:
    """Return the names of all verdicts and rules, without repetition."""
    return list(dict.fromkeys(name for entries in KINDS.values() for name in entries))


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop.

    >>> sentence("zero the bias"), sentence("L1. `dim=0`.")
    ('Zero the bias.', 'L1. `dim=0`.')
    """
    return text[0].upper() + text[1:] + ("" if text[-1] in ".:!?" else ".")


def indented(text: str) -> str:
    """Return a text with four spaces before each line, without marks of code."""
    return "\n".join(f"    {line}".rstrip() for line in text.replace("`", "").splitlines())


def _page(name: str, kind: str, entry: Entry) -> RulePage:
    text = _table_text(name, kind)
    severity = entry.severity or (str(text.severity) if text is not None else str(SEVERITY[name]))
    says = entry.says or (text.meaning if text is not None else "")
    remedy = entry.remedy or (text.remedy if text is not None else "")
    bounds = tuple(_bound(threshold) for threshold in entry.thresholds)
    return RulePage(
        name, kind, severity, says, entry.decided, bounds, entry.causes, remedy, entry.confused, entry.source
    )


def _table_text(name: str, kind: str) -> RuleText | None:
    """Return the sentences that a finding of the diagnosis prints; None for a rule of the audit."""
    units = {str(verdict): text for verdict, text in UNIT.items()} | UNIT_FLAGS
    outputs = {str(verdict): text for verdict, text in OUTPUT.items()} | {
        "below_pca": BELOW_PCA,
        "logits_output": LOGITS,
    }
    tables = {
        "verdict or flag of a unit": units,
        "verdict or flag of a layer": LAYER,
        "verdict on the output": outputs,
    }
    return tables.get(kind, {}).get(name)


def _bound(name: str) -> str:
    for row in threshold_table():
        if row["name"] == name:
            return f"`{name}` = {row['value']:g}: {row['meaning']} ({row['source']})"
    return f"`{name}` = {AUDIT_THRESHOLDS.to_dict()[name]:g}: {_audit_meanings()[name]} (this project)"


def _audit_meanings() -> dict[str, str]:
    """Return the meaning of each threshold of the audit, from the docstring of its class."""
    return dict(re.findall(r"^\s+(\w+): (.*)\.$", AuditThresholds.__doc__ or "", re.MULTILINE))
