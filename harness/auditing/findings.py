"""Build findings of the audit, with the line of source and its correction where they are known."""

import inspect
import linecache
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.auditing.audit_thresholds import SEVERITY
from harness.auditing.trace import TensorSite, TracedOperation
from harness.case import Case
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity


@dataclass(frozen=True)
class SourceLine:
    """A line of the user's source."""

    file: str
    line: int

    @property
    def text(self) -> str:
        """Text of the line."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        return f"{self.file.rsplit('/', 1)[-1]}:{self.line}"


def make_finding(
    rule: str,
    term: str | None,
    evidence: str,
    meaning: str,
    remedy: str,
    numbers: Mapping[str, float] | None = None,
    severity: Severity | None = None,
    source: SourceLine | None = None,
    units: tuple[int, ...] = (),
) -> Finding:
    """Return a finding of the audit, with `file:line` and the text of the line in its evidence."""
    if source is not None and source.text:
        evidence = f"{evidence} ({source}: `{source.text}`)"
        fixed = with_correction(rule, source.text)
        remedy = f"{remedy}; {source}: `{fixed}`" if fixed else remedy
    line = None if source is None else source.line
    return Finding(rule, severity or SEVERITY[rule], evidence, meaning, remedy, units, term, line, dict(numbers or {}))


def with_correction(rule: str, text: str) -> str:
    """Return the corrected line, or "" where the line alone does not show the correction.

    >>> with_correction("wrong_axis", "rho_hat = torch.mean(torch.sigmoid(rho_hat), 1)")
    'rho_hat = torch.mean(torch.sigmoid(rho_hat), 0)'
    >>> with_correction("no_gradient", "return (active.sum() / active.numel()).item()")
    'return (active.sum() / active.numel())'
    """
    corrected = text
    if rule == "wrong_axis":
        corrected = re.sub(
            r"(,\s*|\(\s*)((?:dim|axis)\s*=\s*)?(?:-1|1)(\s*(?:,\s*keepdim\s*=\s*\w+\s*)?\))",
            r"\1\g<2>0\3",
            text,
            count=1,
        )
        corrected = corrected.replace("None0", "0")
    elif rule == "no_gradient":
        corrected = re.sub(r"\.(item|detach|tolist)\(\)", "", text)
    return corrected if corrected != text else ""


def loss_source(case: Case) -> SourceLine | None:
    """Return the first line of the loss function."""
    function: Any = case.losses
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    code = getattr(function, "__code__", None) or getattr(vars(type(function)).get("__call__"), "__code__", None)
    code = getattr(inspect.unwrap(function), "__code__", code) if callable(function) else code
    return None if code is None else SourceLine(code.co_filename, code.co_firstlineno)


def source_line(
    operations: Iterable[TracedOperation], sites: Iterable[TensorSite], names: tuple[str, ...] = (), last: bool = False
) -> SourceLine | None:
    """Return the first (or last) line outside the model that reads one of the sites, by one of `names` if given."""
    origins = list(sites)
    matches = [operation for operation in operations if any(_made_of(operation.site, site) for site in origins)]
    chosen_by_name = [operation for operation in matches if operation.name in names]
    chosen = chosen_by_name[-1 if last else 0] if chosen_by_name else (matches[0] if matches and not names else None)
    return SourceLine(chosen.file, chosen.line) if chosen is not None and chosen.file else None


def _made_of(site: TensorSite, origin: TensorSite) -> bool:
    return site.layer == origin.layer and site.chain[: len(origin.chain)] == origin.chain
