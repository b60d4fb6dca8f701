"""The page of a prescription: the answer, before and after, the change to make, and everything that was tried."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from harness.prescription.remedy import Remedy, code_heading, r2_text

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2328;background:#fff}"
    "table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #d0d7de;text-align:left}"
    "pre{background:#f6f8fa;padding:1rem;overflow:auto}.bar{display:inline-block;height:.8rem;background:#c0392b}"
    ".rest{display:inline-block;height:.8rem;background:#d0d7de}.small{color:#59636e}"
)
COLUMNS = ("remedy", "result", "failed before → after", "change of the share, 95 %", "p, adjusted", "R2", "beside it")
BAR = 16  # rem: all seeds


def page(prescription: Any) -> str:
    """Return the prescription as one HTML document without scripts."""
    title = html.escape(f"Prescription for {prescription.case}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style></head>'
        f"<body><h1>{title}</h1>{body(prescription)}</body></html>"
    )


def body(prescription: Any) -> str:
    """Return the content of the page."""
    best = prescription.best
    parts = [f"<p><strong>{html.escape(prescription.headline)}</strong></p>"]
    if best is not None:
        parts += [_before_and_after(best), f'<p class="small">Failed: {html.escape(prescription.failed_if)}.</p>']
        parts += [f"<h2>{code_heading(best)}</h2><pre>{html.escape(best.code)}</pre>"]
    parts += [_remedies(prescription.remedies), _findings(prescription.findings)]
    parts += [_listed("Tried", prescription.tried), _listed("Not tried", prescription.excluded)]
    parts += [f'<p class="small">{html.escape(note)}</p>' for note in prescription.notes]
    return "".join(parts)


def _before_and_after(remedy: Remedy) -> str:
    rows = [("before", remedy.failed_before, remedy.r2_before), ("after", remedy.failed_after, remedy.r2_after)]
    cells = "".join(
        f"<tr><th>{label}</th><td>{_bar(failed, remedy.seeds)}</td><td>{failed} of {remedy.seeds} fail</td>"
        f"<td>{'' if r2 is None else f'R2 {r2_text(r2)}'}</td></tr>"
        for label, failed, r2 in rows
    )
    return f"<table>{cells}</table>"


def _bar(count: int, total: int) -> str:
    width = BAR * count / max(1, total)
    return f'<span class="bar" style="width:{width:.2f}rem"></span><span class="rest" style="width:{BAR - width:.2f}rem"></span>'


def _remedies(remedies: Sequence[Remedy]) -> str:
    if not remedies:
        return ""
    head = "".join(f"<th>{title}</th>" for title in COLUMNS)
    rows = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(remedy))}</tr>" for remedy in remedies
    )
    return f"<h2>Proved on fresh seeds</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _cells(remedy: Remedy) -> Sequence[str]:
    interval = "" if remedy.low is None else f"{100 * remedy.low:+.0f} to {100 * (remedy.high or 0):+.0f} points"
    return (
        remedy.name,
        remedy.word.replace("_", " "),
        f"{remedy.failed_before} → {remedy.failed_after} of {remedy.seeds}",
        interval,
        "" if remedy.p_adjusted is None else f"{remedy.p_adjusted:.2g}",
        "" if remedy.r2_after is None else f"{r2_text(remedy.r2_before)} → {r2_text(remedy.r2_after)}",
        remedy.side_effects,
    )


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(
        f"<li>{html.escape(str(finding['severity']))}, {html.escape(str(finding['rule']))}:"
        f" {html.escape(str(finding['evidence']))}</li>"
        for finding in findings
    )
    return f"<h2>Audit</h2><ul>{items}</ul>" if items else ""


def _listed(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(f"<li>{html.escape(_line(row))}</li>" for row in rows)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def _line(row: Mapping[str, Any]) -> str:
    share = row.get("failed_share")
    screened = "" if share is None else f"; {share:.0%} of the screened seeds failed"
    return f"{row['name']}: {row['reason']}{screened}"
