"""A diagnosis as text for a terminal and as HTML for a notebook."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import quantiles
from typing import Protocol

from harness.diagnosis.field_measures import field_line
from harness.diagnosis.finding import Finding, pointer
from harness.diagnosis.units import Flag, OutputDiagnosis, UnitDiagnosis
from harness.diagnosis.verdicts import LayerVerdict, UnitVerdict

MOST_UNITS = 32
WORST_UNITS = 10
HEADINGS = ("unit", "verdict", "fires", "mean", "sd", "entropy", "information", "flags")


class Layer(Protocol):
    """The attributes of a diagnosis that are printed."""

    @property
    def verdict(self) -> LayerVerdict: ...
    @property
    def flags(self) -> tuple[Flag, ...]: ...
    @property
    def units(self) -> tuple[UnitDiagnosis, ...]: ...
    @property
    def live_units(self) -> int: ...
    @property
    def output(self) -> OutputDiagnosis | None: ...
    @property
    def findings(self) -> tuple[Finding, ...]: ...
    @property
    def measures(self) -> Mapping[str, float]: ...
    @property
    def activation(self) -> str: ...
    @property
    def activation_inferred(self) -> bool: ...
    @property
    def rows(self) -> int: ...
    @property
    def distinct_rows(self) -> int: ...


def text(diagnosis: Layer) -> str:
    """Verdict, table of the units (for a large layer counts, quantiles and the worst units), and findings."""
    parts = [
        headline(diagnosis),
        *counts(diagnosis),
        "",
        *_aligned([headings(diagnosis), *rows(diagnosis)]),
    ]
    return "\n".join(parts + details(diagnosis))


def details(diagnosis: Layer) -> list[str]:
    """The lines below the table of units: quantiles of a large layer, the output, the findings."""
    lines = _quantiles(diagnosis)
    if diagnosis.output is not None:
        lines += ["", output_line(diagnosis.output)]
    if measured := field_line(diagnosis.measures, diagnosis.units):
        lines += ["", measured]
    if diagnosis.findings:
        lines += ["", *map(str, diagnosis.findings), "", pointer(diagnosis.findings)]
    return lines


def headline(diagnosis: Layer) -> str:
    """Verdict, flags, live units, rows and activation in one line."""
    flags = f" + {', '.join(flag for flag in diagnosis.flags if str(flag) != diagnosis.verdict)}"
    live = f"{diagnosis.live_units} of {len(diagnosis.units)} units live"
    inferred = " (inferred from the values)" if diagnosis.activation_inferred else ""
    distinct = diagnosis.distinct_rows
    repeated = f" ({distinct} distinct)" if 0 <= distinct < diagnosis.rows else ""
    summary = f"{live}, {diagnosis.rows} rows{repeated}, activation {diagnosis.activation}{inferred}"
    return f"{diagnosis.verdict}{flags if flags != ' + ' else ''}: {summary}"


def counts(diagnosis: Layer) -> list[str]:
    """Number of units with each verdict, for a layer too large to list; nothing for a small one."""
    if len(diagnosis.units) <= MOST_UNITS:
        return []
    tally = Counter(unit.verdict for unit in diagnosis.units)
    summary = ", ".join(f"{tally[verdict]} {verdict}" for verdict in UnitVerdict if tally[verdict])
    return [f"units: {summary}", "the worst:"]


def shown(diagnosis: Layer) -> list[UnitDiagnosis]:
    """All units of a small layer, the worst of a large one: by verdict, then by how little they vary."""
    if len(diagnosis.units) <= MOST_UNITS:
        return list(diagnosis.units)
    order = list(UnitVerdict)
    return sorted(diagnosis.units, key=lambda unit: (order.index(unit.verdict), _or(unit.variation, 2.0)))[:WORST_UNITS]


def _or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else value


def equal_units(diagnosis: Layer, ranges: int = 6) -> list[tuple[str, UnitDiagnosis]]:
    """Units that read alike as one line: their numbers, such as `"0-7, 9"` in at most `ranges`, and one of them.

    Of a large layer these are the ten worst lines.
    """
    groups: dict[tuple[str, ...], list[UnitDiagnosis]] = {}
    large = len(diagnosis.units) > MOST_UNITS
    for unit in diagnosis.units if large else shown(diagnosis):
        groups.setdefault(_cells(unit), []).append(unit)
    lines = [(index_ranges((unit.index for unit in units), ranges), units[0]) for units in groups.values()]
    if not large:
        return lines
    order = list(UnitVerdict)
    return sorted(lines, key=lambda line: (order.index(line[1].verdict), _or(line[1].variation, 2.0)))[:WORST_UNITS]


def index_ranges(indices: Iterable[int], most: int = 6) -> str:
    """Ascending numbers with ranges, and how many more there are after the first few.

    >>> index_ranges([0, 1, 2, 3, 9, 11, 12]), index_ranges(range(0, 40, 2), most=3)
    ('0-3, 9, 11-12', '0, 2, 4 and 17 more')
    """
    ranges: list[tuple[int, int]] = []
    for index in indices:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], index)
        else:
            ranges.append((index, index))
    words = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges[:most])
    rest = sum(high - low + 1 for low, high in ranges[most:])
    return f"{words} and {rest} more" if rest else words


def headings(diagnosis: Layer) -> tuple[str, ...]:
    """Headings of the table of units; KL where a posterior was given."""
    return (*HEADINGS[:-1], *(["KL"] if _has_posterior(diagnosis) else []), HEADINGS[-1])


def _has_posterior(diagnosis: Layer) -> bool:
    return any(unit.informed_rows >= 0 for unit in diagnosis.units)


def rows(diagnosis: Layer) -> list[tuple[str, ...]]:
    """Cells of the table of units; equal units share a line."""
    posterior = _has_posterior(diagnosis)
    lines = []
    for label, unit in equal_units(diagnosis):
        cells = _cells(unit)
        divergence = [f"{number(unit.kl)} nats" if unit.informed_rows >= 0 else ""] if posterior else []
        lines.append((label, *cells[:-2], *divergence, cells[-2]))
    return lines


def _cells(unit: UnitDiagnosis) -> tuple[str, ...]:
    return (
        str(unit.verdict),
        _with_interval(unit.activation_frequency, unit.activation_frequency_interval),
        number(unit.mean),
        number(unit.standard_deviation),
        "" if math.isnan(unit.entropy_bits) else f"{unit.entropy_bits:.2f} bits",
        information(unit),
        short_flags(unit.flags),
        number(unit.kl),
    )


def information(unit: UnitDiagnosis) -> str:
    """Mutual information in nats and as a share of the labels' entropy.

    An estimate below 0 is shown as 0 with the estimate beside it: the estimator is unbiased at 0, the quantity is not
    negative.
    """
    value = unit.mutual_information
    if math.isnan(value):
        return ""
    if value < 0:
        return f"0.00 nats (estimate {value:.2f}, within noise)"
    labels = unit.references.get("labels")
    share = f" = {value / labels.entropy:.0%} of H" if labels and labels.entropy > 0 else ""
    return f"{value:.3f} nats{share}"


def short_flags(flags: Sequence[Flag], most: int = 4) -> str:
    """The first flags, with the dependent factors gathered in one: `factor_dependent=height width`.

    Factors that are negligible or inconclusive are left out.
    """
    factors = [flag.argument or "" for flag in flags if flag.name == "factor_dependent"]
    words: list[str] = [flag for flag in flags if not flag.startswith("factor_")]
    words += [f"factor_dependent={' '.join(factors)}"] if factors else []
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _quantiles(diagnosis: Layer) -> list[str]:
    if len(diagnosis.units) <= MOST_UNITS:
        return []
    names = ("activation_frequency", "mean", "standard_deviation", "entropy_bits", "mutual_information", "kl")
    lines: list[tuple[str, ...]] = [("quantile", "5 %", "25 %", "50 %", "75 %", "95 %")]
    for name in names:
        values = [getattr(unit, name) for unit in diagnosis.units]
        values = [value for value in values if math.isfinite(value)]
        if len(values) > 1:
            cuts = quantiles(values, n=20, method="inclusive")
            lines.append((name, *(number(cuts[position]) for position in (0, 4, 9, 14, 18))))
    return ["", *_aligned(lines)]


def output_line(output: OutputDiagnosis) -> str:
    """The output in one line, its R2 beside that of principal components."""
    components = {1, len(output.pca_r2)} if output.pca_r2 else set()
    levels = ", ".join(f"PCA-{k} {output.pca_r2[k - 1]:.3f}" for k in sorted(components))
    beside = f"; {levels} (fitted on {output.pca_rows} rows)" if levels else ""
    dead = f"; {len(output.dead_features)} dead features" if output.dead_features else ""
    r2 = _with_interval(output.r2, output.r2_interval)
    return f"output {output.verdict}{f': R2 {r2}' if r2 else ''}{beside}{dead}"


def number(value: float) -> str:
    """Four significant digits; an empty string for NaN.

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


def html(diagnosis: Layer) -> str:
    """The text table as HTML for a notebook; all text is escaped."""
    head = "".join(f"<th {CELL}>{escape(heading)}</th>" for heading in headings(diagnosis))
    body = "".join(
        "<tr>" + "".join(f"<td {CELL}>{escape(cell)}</td>" for cell in line) + "</tr>" for line in rows(diagnosis)
    )
    notes = [*counts(diagnosis)[:1], *([output_line(diagnosis.output)] if diagnosis.output else [])]
    notes += filter(None, [field_line(diagnosis.measures, diagnosis.units)])
    notes += map(str, diagnosis.findings)
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div><p><b>{escape(headline(diagnosis))}</b></p>{table}<ul>{items}</ul></div>"


CELL = 'style="text-align: left; padding: 0.1em 0.8em 0.1em 0"'
