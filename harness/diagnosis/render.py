"""A diagnosis on paper: a plain text table, and the same as HTML."""

import math
from collections import Counter
from html import escape
from statistics import quantiles

from harness.diagnosis.result import Diagnosis, UnitDiagnosis
from harness.diagnosis.verdicts import UnitVerdict

MOST_UNITS = 32
WORST_UNITS = 10
HEADINGS = ("unit", "verdict", "fires", "mean", "sd", "entropy", "information", "flags")


def text(diagnosis: Diagnosis) -> str:
    """The verdict, a table of the units (or, of a large layer, counts, quantiles and the worst), and the findings."""
    parts = [
        headline(diagnosis),
        *counts(diagnosis),
        "",
        *_aligned([HEADINGS, *rows(diagnosis)]),
        *_quantiles(diagnosis),
    ]
    if diagnosis.output is not None:
        parts += ["", output_line(diagnosis)]
    if diagnosis.findings:
        parts += ["", *(str(finding) for finding in diagnosis.findings)]
    return "\n".join(parts)


def headline(diagnosis: Diagnosis) -> str:
    """The layer in one line."""
    flags = f" + {', '.join(diagnosis.flags)}" if diagnosis.flags else ""
    live = f"{diagnosis.live_units} of {len(diagnosis.units)} units live"
    return f"{diagnosis.verdict}{flags}: {live}, {diagnosis.rows} rows, activation {diagnosis.activation}"


def counts(diagnosis: Diagnosis) -> list[str]:
    """How many units have each verdict, for a layer too large to list; nothing for a small one."""
    if len(diagnosis.units) <= MOST_UNITS:
        return []
    found = Counter(unit.verdict for unit in diagnosis.units)
    return ["units: " + ", ".join(f"{found[each]} {each}" for each in UnitVerdict if found[each]), "the worst:"]


def shown(diagnosis: Diagnosis) -> list[UnitDiagnosis]:
    """All units of a small layer, the worst of a large one: by verdict, then by how little they vary."""
    if len(diagnosis.units) <= MOST_UNITS:
        return list(diagnosis.units)
    order = list(UnitVerdict)
    return sorted(diagnosis.units, key=lambda unit: (order.index(unit.verdict), _or(unit.variation, 2.0)))[:WORST_UNITS]


def _or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value


def rows(diagnosis: Diagnosis) -> list[tuple[str, ...]]:
    """The cells of the table of units."""
    return [_cells(unit) for unit in shown(diagnosis)]


def _cells(unit: UnitDiagnosis) -> tuple[str, ...]:
    return (
        str(unit.index),
        str(unit.verdict),
        _with_interval(unit.activation_frequency, unit.activation_frequency_interval),
        number(unit.mean),
        number(unit.standard_deviation),
        "" if math.isnan(unit.entropy_bits) else f"{unit.entropy_bits:.2f} bits",
        _information(unit),
        _short(_said(unit.flags)),
    )


def _information(unit: UnitDiagnosis) -> str:
    if math.isnan(unit.mutual_information):
        return ""
    labels = unit.references.get("labels")
    share = f" = {labels.mutual_information / labels.entropy:.0%} of H" if labels and labels.entropy > 0 else ""
    return f"{unit.mutual_information:.3f} nats{share}"


def _said(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Flags with the factors gathered: `factor_dependent=height, width`; what is negligible or open goes unsaid."""
    factors = [flag.partition("=")[2] for flag in flags if flag.startswith("factor_dependent=")]
    others = [flag for flag in flags if not flag.startswith("factor_")]
    return (*others, *([f"factor_dependent={' '.join(factors)}"] if factors else []))


def _short(flags: tuple[str, ...], most: int = 4) -> str:
    return ", ".join(flags[:most]) + (f" and {len(flags) - most} more" if len(flags) > most else "")


def _quantiles(diagnosis: Diagnosis) -> list[str]:
    if len(diagnosis.units) <= MOST_UNITS:
        return []
    names = ("activation_frequency", "mean", "standard_deviation", "entropy_bits", "mutual_information")
    lines: list[tuple[str, ...]] = [("quantile", "5 %", "25 %", "50 %", "75 %", "95 %")]
    for name in names:
        values = [getattr(unit, name) for unit in diagnosis.units]
        values = [value for value in values if math.isfinite(value)]
        if len(values) > 1:
            cut = quantiles(values, n=20, method="inclusive")
            lines.append((name, *(number(cut[position]) for position in (0, 4, 9, 14, 18))))
    return ["", *_aligned(lines)]


def output_line(diagnosis: Diagnosis) -> str:
    """The reconstruction in one line, its R2 beside that of principal components."""
    output = diagnosis.output
    assert output is not None
    shown_pca = {1, len(output.pca_r2)} if output.pca_r2 else set()
    levels = ", ".join(f"PCA-{k} {output.pca_r2[k - 1]:.3f}" for k in sorted(shown_pca))
    beside = f"; {levels} (fitted on {output.pca_rows} rows)" if levels else ""
    dead = f"; {len(output.dead_features)} dead features" if output.dead_features else ""
    return f"output {output.verdict}: R2 {_with_interval(output.r2, output.r2_interval)}{beside}{dead}"


def number(value: float) -> str:
    """Four significant digits, nothing for NaN.

    >>> number(0.123456), number(float("nan"))
    ('0.1235', '')
    """
    return "" if math.isnan(value) else f"{value:.4g}"


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if math.isnan(interval[0]) else f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _aligned(table: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def html(diagnosis: Diagnosis) -> str:
    """The text table as HTML for a notebook; everything that came from outside is escaped."""
    head = "".join(f"<th>{escape(each)}</th>" for each in HEADINGS)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in rows(diagnosis))
    notes = [*counts(diagnosis)[:1], *([output_line(diagnosis)] if diagnosis.output else [])]
    notes += [str(finding) for finding in diagnosis.findings]
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div><p><b>{escape(headline(diagnosis))}</b></p>{table}<ul>{listed}</ul></div>"
