"""Rules on the shape of a penalty at the bottleneck: its target, its minimisers, its slope, its bounds."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import make_finding, source_line
from harness.auditing.optima import Minimum, SetPoint, is_reached, minima, set_point
from harness.auditing.probe import replace_with_leaves
from harness.auditing.probe_values import RANGES, random_values, value_levels
from harness.auditing.recorder import TensorSite, TracedOperation
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity


def unreachable_target(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """The penalty's set point lies outside what the layer, its normalisation included, can produce."""
    site, point = _site(subject), _point(subject)
    if site is None or point is None or not site.chain:
        return []
    least, low = is_reached(subject, point), RANGES.get(site.chain[-1], RANGES["none"])
    missing = (least - point.floor) / max(point.typical - point.floor, 1e-300)
    if missing <= bounds.unreachable_share:
        return []
    units = subject.probe.code.units
    numbers = {"set_point": point.at, "least": point.floor, "floor": least, "floor_per_unit": least / units}
    return [
        make_finding(
            "unreachable_target",
            subject.term,
            f"{subject.term} is least ({point.floor:.4g}) where {site} is {point.at:.4g}; {_range(low)}"
            f" The least that descents reached is {least:.4g} ({least / units:.4f} per unit)",
            "the penalty never rests: it pushes towards the edge of the layer's range, whatever the units carry",
            "put the sigmoid into the model, so that the penalised values are the code; or use L1 on a ReLU code",
            numbers,
            place=source_line(operations, [site]),
        )
    ]


def _range(ends: tuple[float, float]) -> str:
    if ends == RANGES["none"]:
        return "a normalisation on the way keeps it from there."
    return f"its values run from {ends[0]:g} to {ends[1]:g}."


def collapse_optimum(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Every minimiser of the penalty alone is a code that is constant or dead."""
    site = _site(subject)
    if site is None or subject.inert:
        return []
    found = minima(subject)
    activation = subject.probe.code.activation
    if not all(math.isfinite(each.value) and (each.dead(activation) or each.constant()) for each in found):
        return []
    point = _point(subject)
    if point is None and not _fell(subject, found):
        return []
    ends = ", ".join(
        f"{each.start}: {'dead' if each.dead(activation) else 'constant'}, {each.value:.4g}" for each in found
    )
    return [
        make_finding(
            "collapse_optimum",
            subject.term,
            f"descents on {subject.term} alone end at {ends}",
            "a collapsed code is its optimum, not a side effect"
            if point
            else "it shrinks the code, which is what such a penalty is for: the reconstruction has to hold against it",
            "penalise values that can reach the target while they vary" if point else "keep its weight small enough",
            {f"value_{each.start}": each.value for each in found},
            severity=Severity.RISK if point else Severity.NOTE,
            place=source_line(operations, [site]),
        )
    ]


def _fell(subject: TermProbe, found: list[Minimum]) -> bool:
    return any(subject.differs(each.value, subject.base) for each in found)


def pushes_active_units_down(
    subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds
) -> list[Finding]:
    """Its gradient is >= 0 on every active entry and 0 on every inactive one, whatever the mean activity."""
    site, code = _site(subject), subject.probe.code
    if site is None or subject.inert or code.activation != "relu" or code.site is None:
        return []
    shares, pushed = (0.02, 0.1, 0.5, 0.9), 0
    for share in shares:
        for scale in (0.03, 0.3, 1.0, 5.0):
            outcome = _pushed(subject, code.site.layer, share, scale)
            if outcome is None:
                continue
            if not outcome:
                return []
            pushed += 1
    if not pushed:
        raise Undecided("its gradient is not finite at any level of activity")
    point = _point(subject)
    return [
        make_finding(
            "pushes_active_units_down",
            subject.term,
            f"at {pushed} levels of activity, from 2 % to 90 % of the entries active, the gradient of {subject.term} is >= 0"
            " on every active entry and 0 on every inactive one",
            "it silences what fires and never wakes what does not"
            + ("; its target does not matter" if point else ", as a penalty without a target does"),
            "penalise a mean that can lie on both sides of its target" if point else "keep its weight small enough",
            severity=Severity.RISK if point else Severity.NOTE,
            place=source_line(operations, [site]),
        )
    ]


def _pushed(subject: TermProbe, layer: str, share: float, scale: float) -> bool | None:
    """Whether the gradient only pushes down at this share and scale of activity; None where it is no number."""
    leaves: list[Tensor] = []
    draw = torch.Generator().manual_seed(21)

    def values(found: Tensor, index: int) -> Tensor:
        size = scale * (0.1 + torch.rand(found.shape, generator=draw)).to(found.dtype)
        chance = torch.rand(found.shape, generator=draw)
        # of 64 rows of one unit 2 % are often none, and no active entry would be pushed
        return torch.where(chance <= chance.min().clamp_min(share), size, -size)

    gradients = subject.at({TensorSite(layer): replace_with_leaves(values, leaves)}).gradient(subject.term, leaves)
    active = torch.cat([g[x > 0] for g, x in zip(gradients, leaves, strict=True)])
    inactive = torch.cat([g[x <= 0] for g, x in zip(gradients, leaves, strict=True)])
    if not bool(active.isfinite().all()) or not bool(inactive.isfinite().all()):
        return None
    return bool((active >= 0).all()) and bool((active > 0).any()) and bool((inactive == 0).all())


def unbounded(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """It falls without bound as activity grows or shrinks: shown by following it.

    It falls from each value to the next, from the first to the last, by more than rounding, and the falls do not die
    out. A bounded term that is met where its own arithmetic breaks down (distances of 1e12) falls in part of the run.
    """
    site = _site(subject)
    if site is None:
        return []
    like = subject.shape(site)
    for direction, follow in _ways(site, like, subject.probe.code.activation if site.chain else "none"):
        values = [subject.value(site, each) for each in follow]
        run = _finite_run(values)
        if len(run) < 4:
            continue
        if not all(before > after and subject.differs(before, after) for before, after in pairwise(run)):
            continue
        drops = [a - b for a, b in pairwise(run)]
        size = max(abs(run[0]), abs(run[-1]), 1e-12)
        # a bounded term levels off; a logarithm loses as much in each stretch, a line ever more
        if drops[-1] > 1e-3 * size and drops[-1] >= 0.7 * drops[-2] and drops[-2] >= 0.7 * drops[-3]:
            shown = " to ".join(f"{each:.4g}" for each in (run[0], run[-1]))
            return [
                make_finding(
                    "unbounded",
                    subject.term,
                    f"as {site} {direction}, {subject.term} falls from {shown} and does not level off",
                    "minimised, it drives the code without limit; a divergence of values that are no probabilities can do that",
                    "give the divergence probabilities: a sigmoid's mean, or a softmax",
                    {"first": run[0], "last": run[-1]},
                    place=source_line(operations, [site]),
                )
            ]
    return []


def _ways(site: TensorSite, like: Tensor, activation: str) -> list[tuple[str, list[Tensor]]]:
    base = random_values(like, activation, 1.0, 31)
    low, high = RANGES.get(activation, RANGES["none"])
    # far beyond any constant that keeps a quotient finite
    small, large = [1e-5**k for k in range(5)], [1e3**k for k in range(5)]
    one = torch.ones_like(base)
    ways = [("shrinks", [base * p for p in small]), ("shrinks", [0.5 * one * p for p in small])]
    if math.isinf(high):
        ways += [("grows", [base * p for p in large]), ("grows", [one * p for p in large])]
    elif activation == "sigmoid":
        ways += [("nears 1", [1 - 0.5 * one * 1e-3**k for k in range(5)])]
    if math.isinf(low):
        ways += [("grows negative", [-one * p for p in large])]
    return ways


def _finite_run(values: list[float]) -> list[float]:
    run: list[float] = []
    for value in values:
        if not math.isfinite(value):
            break
        run.append(value)
    return run


def escape(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Its gradient at the activation in use vanishes for large activations."""
    code = subject.probe.code
    if code.site is None or code.site not in subject.direct or subject.inert:
        return []
    found = [(level, *_slope(subject, code.site, level)) for level in value_levels(code.activation)]
    slopes = [(level, slope) for level, slope, _ in found if math.isfinite(slope)]
    if not any(
        pull > 0 and slope >= 0.5 * max(s for _, s in slopes) for _, slope, pull in found if math.isfinite(slope)
    ):
        return []  # where it is steepest it lifts the unit: what is large does not flee from it
    if len(slopes) < 3:
        raise Undecided("its gradient is not finite at large activations")
    steepest = max(slope for _, slope in slopes)
    flat = [level for level, slope in slopes if slope <= bounds.escape * steepest]
    tail = [level for level, _ in slopes[len(slopes) - len(flat) :]]
    if steepest == 0 or len(flat) < 2 or flat != tail:
        return []
    return [
        make_finding(
            "escape",
            subject.term,
            f"once a unit is at {flat[0]:g} or above, the gradient of {subject.term} there is 0 (at most {steepest:.3g} below)",
            "a unit that is large already escapes; the penalty presses on the others alone",
            "leave out the clamp, or penalise a bounded code",
            {"from": flat[0], "steepest": steepest},
            place=source_line(operations, [code.site], ("clamp", "clip", "relu", "clamp_max", "minimum", "hardtanh"))
            or source_line(operations, [code.site]),
        )
    ]


def _slope(subject: TermProbe, site: TensorSite, level: float) -> tuple[float, float]:
    """The steepest gradient in a unit that is at `level` on every row, and the sum of its gradient."""
    leaves: list[Tensor] = []

    def values(found: Tensor, index: int) -> Tensor:
        put = random_values(found, subject.probe.code.activation, 0.3, 41 + index)
        put[:, 0] = level
        return put

    gradients = subject.at({site: replace_with_leaves(values, leaves)}).gradient(subject.term, leaves)
    columns = [each[:, 0] for each in gradients]
    return max((float(each.abs().max()) for each in columns), default=0.0), sum(float(each.sum()) for each in columns)


def _site(subject: TermProbe) -> TensorSite | None:
    return subject.direct[0] if subject.direct else None


def _point(subject: TermProbe) -> SetPoint | None:
    site = _site(subject)
    return None if site is None else set_point(subject, site)
