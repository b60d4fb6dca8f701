"""Form of stored results: a damaged record or manifest is recognized when it is read, not when it is used."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from harness.results.packed import PackedJson
from harness.results.records import PACKED_FIELDS, MemberRecord

JSON_FIELDS = {"levels": dict, "flags": list, "pca_r2": list, "losses": dict, "died_at": list}
TEXTS = ("key", "variant", "status", "verdict")
NUMBERS = ("seed", "units", "live_units", "seconds", "logged_at")
STATUSES = ("ok", "diverged", "failed")


def record_of(row: Mapping[str, Any]) -> MemberRecord:
    """Return the record of a row of a results file; large fields may be left out of the row.

    Raises:
        ValueError: if a field is not of its form.
    """
    parsed = {name: _parsed(name, row[name], form) for name, form in JSON_FIELDS.items()}
    packed = {name: packed_type(row[name]) for name, packed_type in PACKED_FIELDS.items() if name in row}
    for content in packed.values():
        content.check()
    columns = {
        name: PackedJson.compressed(row[name]) if isinstance(content, PackedJson) else content
        for name, content in packed.items()
    }
    record = MemberRecord(**{**row, **parsed, **columns})
    texts, numbers = ([getattr(record, name) for name in names] for names in (TEXTS, NUMBERS))
    if not all(isinstance(text, str) for text in texts) or record.status not in STATUSES:
        raise ValueError("expected texts, and a known status")
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("expected numbers")
    return record


def manifest_of_form(document: object) -> tuple[dict[str, Any], list[str]]:
    """Return the entries of a manifest that have their form, and the names of those that have another.

    >>> manifest_of_form({"name": "forum", "inputs": [], "of_a_newer_version": 1})
    ({'name': 'forum', 'of_a_newer_version': 1}, ['inputs'])
    """
    if not isinstance(document, Mapping):
        return {}, ["content"]
    damaged = [name for name, value in document.items() if name in FORMS and not FORMS[name](value)]
    return {name: value for name, value in document.items() if name not in damaged}, damaged


def _parsed(name: str, text: Any, form: type) -> Any:
    value = json.loads(text)
    if not isinstance(value, form):
        raise ValueError(f"{name}: expected a {form.__name__}")  # of a damaged file
    return value


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_audit(value: object) -> bool:
    """Return True for findings by level, each with rule and severity."""
    if not isinstance(value, Mapping) or not all(isinstance(findings, list) for findings in value.values()):
        return False
    findings = [finding for findings in value.values() for finding in findings]
    return all(
        isinstance(finding, Mapping) and all(isinstance(finding.get(key), str) for key in ("rule", "severity"))
        for finding in findings
    )


FORMS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("experiment", "inputs", "factors", "baseline", "defaults", "versions", "files"), _is_mapping),
    **dict.fromkeys(("name", "text", "command", "machine"), _is_text),
    **dict.fromkeys(("stamp", "commit", "logged", "sound"), _is_text_or_none),
    "audit": _is_audit,
}
