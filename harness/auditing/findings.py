"""From a rule's observation to a finding, with the line of source and the corrected line where they are known."""

import inspect
import linecache
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.auditing.audit_thresholds import SEVERITY
from harness.auditing.recorder import TensorSite, TracedOperation
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
        """What stands there."""
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
    place: SourceLine | None = None,
    units: tuple[int, ...] = (),
) -> Finding:
    """A finding of the audit, with `file:line` and the text of the line in its evidence."""
    if place is not None and place.text:
        evidence = f"{evidence} ({place}: `{place.text}`)"
        fixed = with_correction(rule, place.text)
        remedy = f"{remedy}; {place}: `{fixed}`" if fixed else remedy
    line = None if place is None else place.line
    return Finding(rule, severity or SEVERITY[rule], evidence, meaning, remedy, units, term, line, dict(numbers or {}))


def with_correction(rule: str, text: str) -> str:
    """The line as it should stand, where that can be known from the line alone.

    >>> with_correction("wrong_axis", "rho_hat = torch.mean(torch.sigmoid(rho_hat), 1)")
    'rho_hat = torch.mean(torch.sigmoid(rho_hat), 0)'
    >>> with_correction("no_gradient", "return (active.sum() / active.numel()).item()")
    'return (active.sum() / active.numel())'
    """
    changed = text
    if rule == "wrong_axis":
        changed = re.sub(
            r"(,\s*|\(\s*)((?:dim|axis)\s*=\s*)?(?:-1|1)(\s*(?:,\s*keepdim\s*=\s*\w+\s*)?\))",
            r"\1\g<2>0\3",
            text,
            count=1,
        )
        changed = changed.replace("None0", "0")
    elif rule == "no_gradient":
        changed = re.sub(r"\.(item|detach|tolist)\(\)", "", text)
    return changed if changed != text else ""


def loss_source(case: Case) -> SourceLine | None:
    """Where the loss function begins."""
    function: Any = case.losses
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    code = getattr(function, "__code__", None) or getattr(vars(type(function)).get("__call__"), "__code__", None)
    code = getattr(inspect.unwrap(function), "__code__", code) if callable(function) else code
    return None if code is None else SourceLine(code.co_filename, code.co_firstlineno)


def source_line(
    operations: Iterable[TracedOperation], sites: Iterable[TensorSite], names: tuple[str, ...] = (), last: bool = False
) -> SourceLine | None:
    """The first (or last) line outside the model that reads one of the sites, by one of the operations if they are named."""
    wanted = list(sites)
    mine = [each for each in operations if any(_made_of(each.site, site) for site in wanted)]
    named = [each for each in mine if each.name in names]
    chosen = named[-1 if last else 0] if named else (mine[0] if mine and not names else None)
    return SourceLine(chosen.file, chosen.line) if chosen is not None and chosen.file else None


def _made_of(site: TensorSite, origin: TensorSite) -> bool:
    return site.layer == origin.layer and site.chain[: len(origin.chain)] == origin.chain
