"""Set point and minima of a term: constants at a site, and descents on the term alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.isolation import copies
from harness.auditing.probe import replace_with_leaves
from harness.auditing.probe_values import random_values, set_point_grid
from harness.auditing.trace import Change, TensorSite, TracedCall

STEPS = 70
STARTS = ("moderate", "wide", "sparse")


@dataclass(frozen=True)
class SetPoint:
    """Constant at which a penalty is least, if that lies inside the range and is not zero.

    Args:
        at: the constant.
        floor: the penalty at that constant.
        typical: median of the penalty over all constants tried.
    """

    at: float
    floor: float
    typical: float


NEAREST = min(abs(constant) for constant in set_point_grid() if constant)  # to 0, of the constants that are tried


def set_point(subject: TermProbe, site: TensorSite) -> SetPoint | None:
    """Return the set point of the penalty at a site; None where it has none (L1, L2, Hoyer).

    A minimum at zero is not a set point: such a penalty is meant to shrink the code.
    """
    if f"point {site}" not in subject.cache:
        subject.cache[f"point {site}"] = _searched(subject, site)
    return subject.cache[f"point {site}"]  # type: ignore[return-value]


def _searched(subject: TermProbe, site: TensorSite) -> SetPoint | None:
    like = subject.shape(site)
    values_at = [(c, _constant(subject, site, like, c)) for c in set_point_grid()]
    values_at = [(c, value) for c, value in values_at if math.isfinite(value)]
    if len(values_at) < 3:
        return None
    refined = _refined(subject, site, like, values_at)
    values_at = sorted([*values_at, *refined])
    values = [value for _, value in values_at]
    least, most = min(values), max(values)
    zero = next((value for c, value in values_at if c == 0.0), math.inf)
    at = values.index(least)
    tolerance = 1e-5 * (sorted(values)[len(values) // 2] - least) + 1e-12
    edges = min(values[0], values[-1])
    if most - least <= 1e-9 * max(1.0, abs(most)) or zero <= least + tolerance or edges <= least + tolerance:
        return None
    if math.isinf(zero) and abs(values_at[at][0]) <= NEAREST:
        return None  # it falls towards 0, where it is not a number (0 log 0): 0 is its minimum
    return SetPoint(values_at[at][0], least, sorted(values)[len(values) // 2])


def _refined(
    subject: TermProbe, site: TensorSite, like: Tensor, values_at: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    at = min(range(len(values_at)), key=lambda i: values_at[i][1])
    low, high = values_at[max(at - 1, 0)][0], values_at[min(at + 1, len(values_at) - 1)][0]
    points = [low + (high - low) * k / 12 for k in range(1, 12)]
    refined = [(c, _constant(subject, site, like, c)) for c in points]
    return [(c, value) for c, value in refined if math.isfinite(value)]


def _constant(subject: TermProbe, site: TensorSite, like: Tensor, constant: float) -> float:
    return subject.value(site, torch.full_like(like, constant))


@dataclass(frozen=True)
class Minimum:
    """End of one descent on the term alone.

    Args:
        start: name of the start.
        value: the term at the end.
        code: the code in use at the end, `[sample, unit]`; of several calls, the first one that the descent moves.
        started: the code at the start.
        reason: why the code did not move, or "".
    """

    start: str
    value: float
    code: Tensor
    started: Tensor
    reason: str = ""

    def dead(self, activation: str) -> bool:
        """True if no unit of the code fires on any row."""
        return activation in CAN_BE_DEAD and bool((self.code <= 1e-9).all())

    def constant(self) -> bool:
        """True if no unit varies over the rows, relative to its own size and to that of the start."""
        deviation, size = self.code.std(0), self.code.pow(2).mean(0).sqrt()
        shrunk = size <= 1e-4 * self.started.pow(2).mean(0).sqrt()
        return bool(((deviation <= 1e-2 * size) | shrunk).all())


def minima(subject: TermProbe) -> list[Minimum]:
    """Descend on the term alone from several starts, by the sign of its gradient.

    The variables are the outputs of the bottleneck's layer and the parameters between that layer and the code (of a
    normalization, say). The outputs of all other layers are fixed. Calls that repeat one another, as where the loss
    computes the code again, have one variable.

    Raises:
        Undecided: when no descent moves the code.
    """
    if "minimisers" not in subject.cache:
        ends = [_descend(subject, start) for start in STARTS]
        if all(end.reason for end in ends):
            reasons = {end.reason for end in ends}
            raise Undecided(max(reasons, key=REASONS.index).format(layer=subject.probe.code.site.layer))  # type: ignore[union-attr]
        subject.cache["minimisers"] = ends
    return subject.cache["minimisers"]  # type: ignore[return-value]


def reachable_least(subject: TermProbe, point: SetPoint) -> float:
    """Return the least value that the bottleneck's layer can produce, by a descent or by a constant output."""
    code = subject.probe.code.site
    assert code is not None
    like = subject.shape(TensorSite(code.layer))
    constants = [point.at]
    if 0 < point.at < 1:
        constants += [math.log(point.at / (1 - point.at)), math.atanh(point.at)]
    ends = [end.value for end in minima(subject)] + [
        _constant(subject, TensorSite(code.layer), like, c) for c in constants
    ]
    ends = [end for end in ends if math.isfinite(end)]
    if not ends:
        raise Undecided("no descent on the penalty ends at a finite value")
    return min(ends)


def _descend(subject: TermProbe, start: str) -> Minimum:
    code = subject.probe.code
    if code.site is None:
        raise Undecided("no layer's output leads to the code")
    own = [code.site.layer, *subject.beside]
    between = _between(subject, own)
    originals = copies(between)
    try:
        calls, order = _calls(subject, own)
        for scale in (1.0, 0.3, 0.1):  # some terms are finite near zero only
            free = [_start(call.before, start, index) * scale for index, call in enumerate(calls)]
            first = _evaluated(subject, own, [*free, *between], order)
            if math.isfinite(first[0]):
                break
        last = _downhill(subject, own, [*free, *between], order, first)
        pairs = list(zip(last[1], first[1], strict=True))
        moved = [pair for pair in pairs if not torch.equal(*pair)]
        reason = "" if moved else _why_still(first, last)
        return Minimum(start, last[0], *(moved or pairs)[0], reason)
    finally:
        _undo(between, originals)


Point = tuple[float, list[Tensor], list[Tensor]]  # the term, the code of every call, the gradient at the variables


def _why_still(first: Point, last: Point) -> str:
    """Return the reason why a descent did not move the code."""
    if not any(bool((gradient != 0).any()) for gradient in first[2]):
        return FLAT
    return NOT_LOWER if last[0] == first[0] else OTHER_CALL


def _downhill(subject: TermProbe, own: list[str], variables: list[Tensor], order: list[int], point: Point) -> Point:
    """Step along the sign of the gradient; halve a step that does not lower the term."""
    step = 0.5
    for _ in range(STEPS):
        before = copies(variables)
        with torch.no_grad():
            for variable, gradient in zip(variables, point[2], strict=True):
                variable.sub_(step * gradient.nan_to_num(0, 0, 0).sign())
        trial = _evaluated(subject, own, variables, order)
        if trial[0] < point[0]:
            point, step = trial, min(1.2 * step, 3.0)
            continue
        step /= 2
        with torch.no_grad():
            for variable, value in zip(variables, before, strict=True):
                variable.copy_(value)
        if step < 1e-6:
            break
    return point


def _evaluated(subject: TermProbe, own: list[str], variables: list[Tensor], order: list[int]) -> Point:
    assert subject.probe.code.site is not None
    for variable in variables:
        variable.requires_grad_(True)
    changes = _free(own, [variables[index] for index in order])
    evaluation = subject.probe.evaluate(changes, hold=True, watch=(subject.probe.code.site,))
    codes = evaluation.record.met.get(subject.probe.code.site, [])
    if not codes:
        raise Undecided("the loss does not compute the code")
    return (
        evaluation.value(subject.term),
        [code.detach().reshape(len(code), -1) for code in codes],
        [variable.detach() for variable in evaluation.gradient(subject.term, variables)],
    )


def _undo(parameters: list[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
            parameter.grad = None


def _calls(subject: TermProbe, own: list[str]) -> tuple[list[TracedCall], list[int]]:
    """Return the calls of the layers without those that repeat another one, and for every call the index of its like."""
    calls: list[TracedCall] = []
    order: list[int] = []
    for call in (call for call in subject.probe.evaluate().record.calls if call.name in own):
        order.append(next((index for index, first in enumerate(calls) if _repeats(call, first)), len(calls)))
        if order[-1] == len(calls):
            calls.append(call)
    return calls, order


def _repeats(call: TracedCall, first: TracedCall) -> bool:
    """True for two calls of one layer with equal inputs and outputs."""
    if call.name != first.name or call.entered is None or first.entered is None:
        return False
    return torch.equal(call.entered, first.entered) and torch.equal(call.before, first.before)


def _start(like: Tensor, start: str, seed: int) -> Tensor:
    if start == "sparse":
        on = random_values(like, "none", 1.0, 70 + seed) > 2.3  # on a twentieth of the rows, independently per unit
        return torch.where(on, 6.0, -6.0).to(like.dtype) + 0.5 * random_values(like, "none", 1.0, 80 + seed)
    return random_values(like, "none", 1.0 if start == "moderate" else 5.0, 60 + seed)


def _free(own: list[str], free: list[Tensor]) -> dict[TensorSite, Change]:
    order = iter(free)  # the calls come in the same order in every evaluation
    return {TensorSite(name): lambda values, index: values * 0 + next(order) for name in own}


def _between(subject: TermProbe, own: list[str]) -> list[Tensor]:
    """Return the parameters between the bottleneck's layer and its code, such as those of a normalization."""
    code = subject.probe.code.site
    assert code is not None
    leaves: list[Tensor] = []
    cut = subject.probe.evaluate(
        {TensorSite(name): replace_with_leaves(lambda v, i: v, leaves) for name in own}, hold=True, watch=(code,)
    )
    codes = cut.record.met.get(code, [])
    parameters = [
        parameter for parameter in subject.probe.model.parameters() if parameter.requires_grad and parameter.dim() <= 1
    ]
    if not codes or not codes[0].requires_grad or not parameters or code.chain == ():
        return []
    # everything before the cut is multiplied by zero, so its gradient is exactly zero
    gradients = torch.autograd.grad(codes[0].pow(2).sum() + codes[0].sum(), parameters, allow_unused=True)
    return [p for p, g in zip(parameters, gradients, strict=True) if g is not None and bool((g != 0).any())]


CAN_BE_DEAD = ("relu",)
FLAT = "the gradient is 0 at random outputs of {layer}"
NOT_LOWER = (
    "at random outputs of {layer}, no step along the gradient lowers the term, as where a part of it is detached"
)
OTHER_CALL = "the term reads a call of {layer} that does not make the code"
REASONS = (FLAT, NOT_LOWER, OTHER_CALL)
