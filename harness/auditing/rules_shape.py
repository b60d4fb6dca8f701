"""Rules on the shape of a penalty at the bottleneck: target, minima, gradient, bounds."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import make_finding, source_line
from harness.auditing.optima import Minimum, SetPoint, minima, reachable_least, set_point
from harness.auditing.probe import replace_with_leaves
from harness.auditing.probe_values import RANGES, on_simplex, random_values, value_levels
from harness.auditing.trace import TensorSite, TracedOperation
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

ZERO_SHARE = 0.02  # of the way from its least to a typical value: the least value of a distance is 0


def unreachable_target(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a set point that the layer, with its normalization, cannot produce."""
    site, point = _site(subject), _set_point(subject)
    shares = _shares(subject) if point is None else None
    if shares is not None:
        site, point = shares, set_point(subject, shares)
    if site is None or point is None or not site.chain:
        return []
    least, ends = reachable_least(subject, point), RANGES.get(_range_name(subject, site), RANGES["none"])
    missing = (least - point.floor) / max(point.typical - point.floor, 1e-300)
    if missing <= bounds.unreachable_share:
        return []
    shared = shares is not None or _range_name(subject, site) == "softmax"
    if shared and abs(point.floor) > ZERO_SHARE * (point.typical - point.floor):
        return []  # not a distance, which is 0 at its target: an entropy of the distribution, least off the simplex
    units = subject.probe.code.units
    numbers = {"set_point": point.at, "least": point.floor, "floor": least, "floor_per_unit": least / units}
    return [
        make_finding(
            "unreachable_target",
            subject.term,
            f"{subject.term} is least ({point.floor:.4g}) where {site} is {point.at:.4g}; {_shared_range(site, units) if shared else _range(ends)}"
            f" The lowest value reached is {least:.4g} ({least / units:.4f} per unit)",
            "the target cannot be reached, so the penalty keeps pushing units to the end of their range",
            _shared_remedy(units) if shared else _reachable_remedy(site),
            numbers,
            source=source_line(operations, [site]),
        )
    ]


def _range_name(subject: TermProbe, site: TensorSite) -> str:
    """Return the activation that bounds a site: "softmax" for a code whose units add up to 1, however it is computed."""
    code = subject.probe.code
    return code.activation if site == code.site and code.activation == "softmax" else site.chain[-1]


def _shares(subject: TermProbe) -> TensorSite | None:
    """Return the site behind the code whose units add up to 1 in every row, such as a code divided by its sum."""
    probe, code = subject.probe, subject.probe.code.site
    if code is None:
        return None
    behind = [
        site
        for site in probe.evaluate().record.sites
        if site.layer == code.layer
        and len(site.chain) > len(code.chain)
        and site.chain[: len(code.chain)] == code.chain
    ]
    met = probe.evaluate(watch=tuple(behind)).record.met
    return next((site for site in behind if met.get(site) and on_simplex(met[site][0].detach())), None)


def _shared_range(site: TensorSite, units: int) -> str:
    owner = "of a softmax" if site.chain[-1] == "softmax" else "of every row"
    return f"the {units} units {owner} add up to 1, so their average is {1 / units:.4g}."


def _shared_remedy(units: int) -> str:
    return f"use 1/{units}, the inverse of the number of units, as the target, or penalize the entropy of each row"


def _reachable_remedy(site: TensorSite) -> str:
    """Return the remedy for a target out of reach that fits the activation."""
    if any("norm" in name for name in site.chain):
        return "penalize the values before the normalization, choose a target that it allows, or remove it"
    if "relu" in site.chain:
        return "move the sigmoid into the model, so that the penalized values are the code, or use L1 on the ReLU code"
    low, high = RANGES.get(site.chain[-1], RANGES["none"])
    return f"choose a target between {low:g} and {high:g}, the range of {site.chain[-1]}"


def _range(ends: tuple[float, float]) -> str:
    if ends == RANGES["none"]:
        return "the normalization before it does not allow that."
    return f"its values run from {ends[0]:g} to {ends[1]:g}."


KEEP_SMALL = "give it a weight at which its gradient norm is at most that of the main term"


def collapse_optimum(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a term whose every minimum is a constant or dead code."""
    site = _site(subject)
    if site is None or subject.inert:
        return []
    ends = minima(subject)
    activation = subject.probe.code.activation
    point = _set_point(subject)
    if point is not None and _asks_every_entry(subject, site, point, ends):
        return [_entry_finding(subject, site, point, operations)]
    if not all(math.isfinite(end.value) and (end.dead(activation) or end.constant()) for end in ends):
        return []
    if point is None and not _fell(subject, ends):
        return []
    ends_text = ", ".join(
        f"{end.start}: {'dead' if end.dead(activation) else 'constant'}, {end.value:.4g}" for end in ends
    )
    return [
        make_finding(
            "collapse_optimum",
            subject.term,
            f"gradient descent on {subject.term} alone ends at a {ends_text}",
            "a collapsed code minimizes it"
            if point
            else "it shrinks the code, as intended; only the other terms keep the code from collapse",
            "penalize values that can reach the target while they vary" if point else KEEP_SMALL,
            {f"value_{end.start}": end.value for end in ends},
            severity=Severity.RISK if point else Severity.NOTE,
            source=source_line(operations, [site]),
        )
    ]


def _asks_every_entry(subject: TermProbe, site: TensorSite, point: SetPoint, ends: list[Minimum]) -> bool:
    """True if every deviation from the set point raises the penalty, although the means of rows and units stay."""
    size = point.typical - point.floor
    if any(math.isfinite(end.value) and end.value < point.floor - 1e-6 * size for end in ends):
        return False
    like = subject.shape(site)
    low, high = RANGES.get(site.chain[-1] if site.chain else "none", RANGES["none"])
    room = min(point.at - low, high - point.at, 1.0)
    if room <= 0 or len(like) < 4:
        return False
    for seed in range(2):
        noise = random_values(like, "tanh", 1.0, 45 + seed).reshape(len(like), -1)
        noise = noise - noise.mean(0)
        noise = noise - noise.mean(1, keepdim=True) if noise.shape[1] > 1 else noise
        noise = (noise / noise.abs().max().clamp_min(1e-12)).reshape(like.shape)
        for share in (0.03, 0.3, 0.6, 0.95):  # the first within a bound of the values, such as a clamp at 0
            value = subject.value(site, point.at + share * room * noise)
            if not (math.isfinite(value) and value - point.floor > 1e-6 * size and subject.differs(value, point.floor)):
                return False
    return True


def _entry_finding(subject: TermProbe, site: TensorSite, point: SetPoint, operations: list[TracedOperation]) -> Finding:
    return make_finding(
        "collapse_optimum",
        subject.term,
        f"{subject.term} is least ({point.floor:.4g}) where every entry of {site} is {point.at:.4g}, and higher at every"
        " tried code with the same means that varies",
        "it asks every activation, not every unit's mean, to be at the target: a constant code minimizes it",
        "average over the batch first (dim 0), then take the divergence of the mean",
        {"set_point": point.at, "least": point.floor},
        source=source_line(operations, [site]),
    )


def _fell(subject: TermProbe, ends: list[Minimum]) -> bool:
    return any(subject.differs(end.value, subject.base) for end in ends)


def pushes_active_units_down(
    subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds
) -> list[Finding]:
    """Find a gradient that is >= 0 on every active entry and 0 on every inactive entry at all levels of activity."""
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
    point = _set_point(subject)
    return [
        make_finding(
            "pushes_active_units_down",
            subject.term,
            f"at {pushed} levels of activity, from 2 % to 90 % of the entries active, the gradient of {subject.term} is >= 0"
            " on every active entry and 0 on every inactive entry",
            "it lowers active units and never activates inactive ones"
            + (", even if activity is below the target" if point else ", as every penalty without a target does"),
            "penalize a mean that can lie on both sides of its target" if point else KEEP_SMALL,
            severity=Severity.RISK if point else Severity.NOTE,
            source=source_line(operations, [site]),
        )
    ]


def _pushed(subject: TermProbe, layer: str, share: float, scale: float) -> bool | None:
    """True if the gradient only lowers activity at this share and scale; None where it is not finite."""
    leaves: list[Tensor] = []
    draw = torch.Generator().manual_seed(21)

    def values(current: Tensor, index: int) -> Tensor:
        size = scale * (0.1 + torch.rand(current.shape, generator=draw)).to(current.dtype)
        chance = torch.rand(current.shape, generator=draw)
        # 2 % of 64 rows of one unit are often none, so at least one entry is active
        return torch.where(chance <= chance.min().clamp_min(share), size, -size)

    gradients = subject.at({TensorSite(layer): replace_with_leaves(values, leaves)}).gradient(subject.term, leaves)
    active = torch.cat([g[x > 0] for g, x in zip(gradients, leaves, strict=True)])
    inactive = torch.cat([g[x <= 0] for g, x in zip(gradients, leaves, strict=True)])
    if not bool(active.isfinite().all()) or not bool(inactive.isfinite().all()):
        return None
    return bool((active >= 0).all()) and bool((active > 0).any()) and bool((inactive == 0).all())


def unbounded(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a term that decreases without bound as the code grows or shrinks.

    It decreases at every step by more than rounding, and the decreases do not die out. A bounded term whose own
    arithmetic breaks down (distances of 1e12) decreases only in part of the run.
    """
    site = _site(subject)
    if site is None:
        return []
    if site.chain and _range_name(subject, site) not in RANGES:
        site = TensorSite(site.layer)  # the values of such an operation (a quotient) may have a range of their own
    activation = (
        "none"
        if not site.chain
        else "softmax"
        if _range_name(subject, site) == "softmax"
        else subject.probe.code.activation
    )
    like = subject.shape(site)
    for direction, follow in _directions(site, like, activation):
        values = [subject.value(site, value) for value in follow]
        run = _finite_run(values)
        if len(run) < 4:
            continue
        if not all(before > after and subject.differs(before, after) for before, after in pairwise(run)):
            continue
        drops = [a - b for a, b in pairwise(run)]
        size = max(abs(run[0]), abs(run[-1]), 1e-12)
        # a bounded term levels off; a logarithm loses equal amounts per step, a line growing amounts
        if drops[-1] > 1e-3 * size and drops[-1] >= 0.7 * drops[-2] and drops[-2] >= 0.7 * drops[-3]:
            values_text = " to ".join(f"{value:.4g}" for value in (run[0], run[-1]))
            # equal amounts per step of a factor 1000: the gradient falls as the code grows, as with a log barrier
            weakens = direction.startswith("grows") and drops[-1] <= 1.5 * drops[-2]
            return [
                make_finding(
                    "unbounded",
                    subject.term,
                    f"as {site} {direction}, {subject.term} decreases from {values_text} and does not level off"
                    f"{', by an equal amount for every factor of 1000: a logarithm' if weakens else ''}",
                    "it keeps raising the code, ever more weakly; a main term that does not see the scale of the code will not stop it"
                    if weakens
                    else "minimizing it drives the code to infinity or to the end of its range, as with a divergence of values that are not probabilities",
                    "if it is a divergence, apply it to probabilities (the mean of a sigmoid, a softmax); else bound it",
                    {"first": run[0], "last": run[-1]},
                    severity=Severity.RISK if weakens else None,
                    source=source_line(operations, [site]),
                )
            ]
    return []


def _directions(site: TensorSite, like: Tensor, activation: str) -> list[tuple[str, list[Tensor]]]:
    base = random_values(like, activation, 1.0, 31)
    low, high = RANGES.get(activation, RANGES["none"])
    # beyond any constant that keeps a quotient finite
    small, large = [1e-5**k for k in range(5)], [1e3**k for k in range(5)]
    ones = torch.ones_like(base)
    ways = [("shrinks", [base * p for p in small]), ("shrinks", [0.5 * ones * p for p in small])]
    if math.isinf(high):
        ways += [("grows", [base * p for p in large]), ("grows", [ones * p for p in large])]
    elif activation == "sigmoid":
        ways += [("nears 1", [1 - 0.5 * ones * 1e-3**k for k in range(5)])]
    if math.isinf(low):
        ways += [("grows negative", [-ones * p for p in large])]
    return ways


def _finite_run(values: list[float]) -> list[float]:
    run: list[float] = []
    for value in values:
        if not math.isfinite(value):
            break
        run.append(value)
    return run


def escape(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a gradient at the code that vanishes for large activations."""
    code = subject.probe.code
    if code.site is None or code.site not in subject.direct or subject.inert:
        return []
    spread = float(subject.shape(code.site).std(correction=0))
    probed = [(level, *_slope(subject, code.site, level, spread)) for level in value_levels(code.activation)]
    slopes = [(level, slope) for level, slope, _ in probed if math.isfinite(slope)]
    if not any(
        pull > 0 and slope >= 0.5 * max(s for _, s in slopes) for _, slope, pull in probed if math.isfinite(slope)
    ):
        return []  # it raises the unit where it is steepest, so large units do not escape from it
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
            "units that are already large escape the penalty; it acts only on the others",
            "remove the clamp, or penalize a bounded code",
            {"from": flat[0], "steepest": steepest},
            source=source_line(operations, [code.site], ("clamp", "clip", "relu", "clamp_max", "minimum", "hardtanh"))
            or source_line(operations, [code.site]),
        )
    ]


def _slope(subject: TermProbe, site: TensorSite, level: float, spread: float) -> tuple[float, float]:
    """Return the largest gradient of a unit around `level`, and the sum of its gradient.

    The unit has the observed spread, limited to half of the way to either end of its range (0 for an unbounded one),
    since a covariance has no gradient at a constant unit.
    """
    leaves: list[Tensor] = []
    high = RANGES.get(subject.probe.code.activation, RANGES["none"])[1]
    room = min(spread or 1.0, 0.5 * level, 0.5 * (high - level))

    def values(current: Tensor, index: int) -> Tensor:
        put = random_values(current, subject.probe.code.activation, 0.3, 41 + index)
        noise = random_values(put[:, 0], "tanh", 1.0, 43)
        noise = noise - noise.mean(0)
        put[:, 0] = level + room * noise / noise.abs().amax(0).clamp_min(1e-12)
        return put

    gradients = subject.at({site: replace_with_leaves(values, leaves)}).gradient(subject.term, leaves)
    columns = [gradient[:, 0] for gradient in gradients]
    return max((float(gradient.abs().max()) for gradient in columns), default=0.0), sum(
        float(gradient.sum()) for gradient in columns
    )


def _site(subject: TermProbe) -> TensorSite | None:
    return subject.direct[0] if subject.direct else None


def _set_point(subject: TermProbe) -> SetPoint | None:
    site = _site(subject)
    return None if site is None else set_point(subject, site)
