"""A prescription: what was examined, tried and proved, and the change to make."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from harness.case import Case
from harness.factors import Level
from harness.prescription.trial import name_of

if TYPE_CHECKING:
    from harness.data.rows import Split

SCHEMA_VERSION = 1
WORKS = ("works", "helps")


@dataclass(frozen=True)
class Remedy:
    """A change with its effect on seeds that screening never saw.

    Args:
        remedy: factor -> level.
        word: `works`, `helps`, `live_not_better_than_mean`, `no_effect_seen`, `equal`, `worse` or `undecided`.
        seeds: number of paired seeds.
        failed_before, failed_after: failed members of `seeds`, untreated and treated.
        collapsed_before, collapsed_after: collapsed members of `seeds`.
        low, high: 95 % interval of the change of the failed share, after minus before, from -1 to 1.
        p, p_adjusted: mid-p McNemar, and adjusted over the proved changes (Benjamini-Hochberg).
        r2_before, r2_after: mean R2; None where there is no reconstruction.
        seconds_before, seconds_after: median training seconds of a member.
        parameters_before, parameters_after: number of parameters.
        code: the change as a unified diff of the user's source, or lines to write where its place is not known.
    """

    remedy: Mapping[str, Level]
    word: str
    seeds: int
    failed_before: int
    failed_after: int
    collapsed_before: int
    collapsed_after: int
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    r2_before: float | None
    r2_after: float | None
    seconds_before: float = 0.0
    seconds_after: float = 0.0
    parameters_before: int = 0
    parameters_after: int = 0
    code: str = ""
    treat: Callable[[Case], Case] = field(default=lambda case: case, repr=False, compare=False)
    case: Case | None = field(default=None, repr=False, compare=False)
    split: "Split | None" = field(default=None, repr=False, compare=False)

    def model(self, seed: int = 0) -> nn.Module:
        """Return the treated model, freshly initialized with the seed."""
        from harness.models import build_model

        assert self.case is not None
        assert self.split is not None
        return build_model(self.treat(self.case), seed, self.split.train.inputs[:4])

    def apply(self, model: nn.Module) -> nn.Module:
        """Return `model` under the change; its parameters are those of `model`, which is not copied.

        A change of the initial values (zero bias) is made in place; a change of the loss, of a number or of
        the rows (centered inputs) changes no model, and `model` comes back as it is.
        """
        from dataclasses import replace

        assert self.case is not None
        return self.treat(replace(self.case, model=lambda: model)).model()

    @property
    def name(self) -> str:
        """Name of the change."""
        return name_of(self.remedy)

    @property
    def is_diff(self) -> bool:
        """True if `code` is a unified diff, False for lines to write."""
        return self.code.startswith("--- ")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the names of the attributes."""
        names = (
            *(
                "word",
                "seeds",
                "failed_before",
                "failed_after",
                "collapsed_before",
                "collapsed_after",
                "low",
                "high",
                "p",
            ),
            *("p_adjusted", "r2_before", "r2_after", "seconds_before", "seconds_after", "parameters_before"),
            *("parameters_after", "code"),
        )
        return {"remedy": dict(self.remedy), **{name: getattr(self, name) for name in names}}

    def __str__(self) -> str:
        change = f"failed {self.failed_before} -> {self.failed_after} of {self.seeds}"
        quality = "" if self.r2_after is None else f", R2 {_number(self.r2_before)} -> {_number(self.r2_after)}"
        return f"{self.name}: {self.word.replace('_', ' ')} ({change}{quality}{_p(self.p_adjusted)})"


@dataclass(frozen=True)
class Prescription:
    """The remedies that were proved, best first, and everything that led to them.

    Args:
        case: name of the case.
        headline: the answer in a sentence.
        wrong: True when something is wrong with the model as it is.
        remedies: proved changes, best first; empty where nothing is wrong or nothing helped in screening.
        tried: changes that were screened, with their reason and score.
        excluded: changes that were left out, with the reason.
        findings: findings of the audit.
        untreated: counts of the layer verdicts of the untreated members.
        notes: remarks, such as parts that were left out for want of time.
        seconds: wall time.
    """

    case: str
    headline: str
    wrong: bool
    remedies: tuple[Remedy, ...] = ()
    tried: tuple[Mapping[str, Any], ...] = ()
    excluded: tuple[Mapping[str, Any], ...] = ()
    findings: tuple[Mapping[str, Any], ...] = ()
    untreated: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def best(self) -> Remedy | None:
        """The first remedy that works or helps; None where none does."""
        return next((remedy for remedy in self.remedies if remedy.word in WORKS), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the names of the attributes."""
        return {
            "schema_version": SCHEMA_VERSION,
            "case": self.case,
            "headline": self.headline,
            "wrong": self.wrong,
            "remedies": [remedy.to_dict() for remedy in self.remedies],
            "tried": [dict(row) for row in self.tried],
            "excluded": [dict(row) for row in self.excluded],
            "findings": [dict(finding) for finding in self.findings],
            "untreated": dict(self.untreated),
            "notes": list(self.notes),
            "seconds": self.seconds,
        }

    def report(self, path: str | Path) -> Path:
        """Write the prescription as one HTML page without scripts, and return its path."""
        from harness.results import write_atomic

        page = _page(self)
        write_atomic(Path(path), page.encode())
        return Path(path)

    def __repr__(self) -> str:
        return f"Prescription({self.case!r}: {self.headline})"

    def __str__(self) -> str:
        lines = [self.headline]
        lines += [f"  {remedy}" for remedy in self.remedies]
        if self.best is not None:
            lines += ["", f"{_task(self.best)}:", *(f"    {line}" for line in self.best.code.splitlines())]
        if self.tried:
            lines += ["", "Tried: " + "; ".join(f"{row['name']} ({row['reason']})" for row in self.tried)]
        if self.excluded:
            lines += ["Not tried: " + "; ".join(f"{row['name']} ({row['reason']})" for row in self.excluded)]
        return "\n".join([*lines, *(f"Note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return _body(self)


def _body(prescription: Prescription) -> str:
    head = "".join(f"<th>{title}</th>" for title in ("remedy", "word", "failed", "change of the share", "p", "R2"))
    rows = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(row))}</tr>" for row in prescription.remedies
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    best = prescription.best
    code = "" if best is None else f"<h2>{_task(best)}</h2><pre>{html.escape(best.code)}</pre>"
    tried = _listed("Tried", prescription.tried) + _listed("Not tried", prescription.excluded)
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in prescription.notes)
    return f"<p><strong>{html.escape(prescription.headline)}</strong></p>{table}{code}{tried}{notes}"


def _task(remedy: Remedy) -> str:
    return "Change (a diff for patch -p0)" if remedy.is_diff else "Write"


def _cells(remedy: Remedy) -> Sequence[str]:
    interval = "" if remedy.low is None else f"{100 * remedy.low:+.0f} to {100 * (remedy.high or 0):+.0f} points"
    return (
        remedy.name,
        remedy.word.replace("_", " "),
        f"{remedy.failed_before} -> {remedy.failed_after} of {remedy.seeds}",
        interval,
        "" if remedy.p_adjusted is None else f"{remedy.p_adjusted:.2g}",
        "" if remedy.r2_after is None else f"{_number(remedy.r2_before)} -> {_number(remedy.r2_after)}",
    )


def _listed(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(f"<li>{html.escape(str(row['name']))}: {html.escape(str(row['reason']))}</li>" for row in rows)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def _page(prescription: Prescription) -> str:
    title = html.escape(f"Prescription for {prescription.case}")
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2328;background:#fff}"
        "table{border-collapse:collapse}td,th{padding:.3rem .8rem;border-bottom:1px solid #d0d7de;text-align:left}"
        "pre{background:#f6f8fa;padding:1rem;overflow:auto}"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>'
        f"<body><h1>{title}</h1>{_body(prescription)}</body></html>"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _p(value: float | None) -> str:
    return "" if value is None else f", p {value:.2g}"
