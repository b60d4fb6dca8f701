"""The set point of a penalty and its minimisers: constants at a site, and descents on the penalty alone."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.isolation import copies
from harness.auditing.probe import replace_with_leaves
from harness.auditing.probe_values import random_values, set_point_grid
from harness.auditing.recorder import Change, TensorSite, TracedCall

STEPS = 70
STARTS = ("moderate", "wide", "sparse")


@dataclass(frozen=True)
class SetPoint:
    """The constant at which a penalty is least, when that is no edge and not zero.

    Args:
        at: the constant.
        floor: the penalty there.
        typical: the median of the penalty over the constants that were tried.
    """

    at: float
    floor: float
    typical: float


def set_point(subject: TermProbe, site: TensorSite) -> SetPoint | None:
    """Where the penalty is least if every value at the site is one constant; None for none, as of L1, L2, Hoyer.

    A least value at zero is no set point: such a penalty shrinks, and that is what it is for.
    """
    if f"point {site}" not in subject.cache:
        subject.cache[f"point {site}"] = _searched(subject, site)
    return subject.cache[f"point {site}"]  # type: ignore[return-value]


def _searched(subject: TermProbe, site: TensorSite) -> SetPoint | None:
    like = subject.shape(site)
    tried = [(c, _constant(subject, site, like, c)) for c in set_point_grid()]
    tried = [(c, value) for c, value in tried if math.isfinite(value)]
    if len(tried) < 3:
        return None
    refined = _refined(subject, site, like, tried)
    tried = sorted([*tried, *refined])
    values = [value for _, value in tried]
    least, most = min(values), max(values)
    zero = next((value for c, value in tried if c == 0.0), math.inf)
    at = values.index(least)
    tolerance = 1e-5 * (sorted(values)[len(values) // 2] - least) + 1e-12
    edges = min(values[0], values[-1])
    if most - least <= 1e-9 * max(1.0, abs(most)) or zero <= least + tolerance or edges <= least + tolerance:
        return None
    return SetPoint(tried[at][0], least, sorted(values)[len(values) // 2])


def _refined(
    subject: TermProbe, site: TensorSite, like: Tensor, tried: list[tuple[float, float]]
) -> list[tuple[float, float]]:
    at = min(range(len(tried)), key=lambda i: tried[i][1])
    low, high = tried[max(at - 1, 0)][0], tried[min(at + 1, len(tried) - 1)][0]
    points = [low + (high - low) * k / 12 for k in range(1, 12)]
    found = [(c, _constant(subject, site, like, c)) for c in points]
    return [(c, value) for c, value in found if math.isfinite(value)]


def _constant(subject: TermProbe, site: TensorSite, like: Tensor, constant: float) -> float:
    return subject.value(site, torch.full_like(like, constant))


@dataclass(frozen=True)
class Minimum:
    """Where one descent on the penalty alone ended.

    Args:
        start: which start it came from.
        value: the penalty there.
        code: the code in use there, `[sample, unit]`.
        started: the code it started from.
    """

    start: str
    value: float
    code: Tensor
    started: Tensor

    def dead(self, activation: str) -> bool:
        """No unit of the code fires on any row."""
        return activation in DEADENED and bool((self.code <= 1e-9).all())

    def constant(self) -> bool:
        """No unit of the code varies over the rows, against its own size and that of the start."""
        deviation, size = self.code.std(0), self.code.pow(2).mean(0).sqrt()
        shrunk = size <= 1e-4 * self.started.pow(2).mean(0).sqrt()
        return bool(((deviation <= 1e-2 * size) | shrunk).all())


def minima(subject: TermProbe) -> list[Minimum]:
    """The ends of several descents on the term alone, by the sign of its gradient, with free activations.

    What is free: the outputs of the bottleneck's layer, and the parameters (of a normalisation, say) on the way
    from there to the code. Every other layer is held.

    Raises:
        Undecided: when the term has no gradient there.
    """
    if "minimisers" not in subject.cache:
        found = [_descend(subject, start) for start in STARTS]
        if all(torch.equal(each.code, each.started) for each in found):
            raise Undecided("it has no gradient at values spread over the bottleneck")
        subject.cache["minimisers"] = found
    return subject.cache["minimisers"]  # type: ignore[return-value]


def is_reached(subject: TermProbe, point: SetPoint) -> float:
    """The least value that the bottleneck's layer can bring about: by descending, or by a constant output of its own."""
    code = subject.probe.code.site
    assert code is not None
    like = subject.shape(TensorSite(code.layer))
    constants = [point.at]
    if 0 < point.at < 1:
        constants += [math.log(point.at / (1 - point.at)), math.atanh(point.at)]
    ends = [each.value for each in minima(subject)] + [
        _constant(subject, TensorSite(code.layer), like, c) for c in constants
    ]
    ends = [each for each in ends if math.isfinite(each)]
    if not ends:
        raise Undecided("no descent on the penalty ends at a number")
    return min(ends)


def _descend(subject: TermProbe, start: str) -> Minimum:
    code = subject.probe.code
    if code.site is None:
        raise Undecided("no layer's output leads to the code")
    own = [code.site.layer, *subject.beside]
    between = _between(subject, own)
    kept = copies(between)
    try:
        for scale in (1.0, 0.3, 0.1):  # a term may be a number near zero only
            free = [_start(call.before, start, index) * scale for index, call in enumerate(_calls(subject, own))]
            first = _evaluated(subject, own, [*free, *between], len(free))
            if math.isfinite(first[0]):
                break
        last = _downhill(subject, own, [*free, *between], len(free), first)
        return Minimum(start, last[0], last[1], first[1])
    finally:
        _undo(between, kept)


Point = tuple[float, Tensor, list[Tensor]]  # the term, the code in use, the gradient at what is free


def _downhill(subject: TermProbe, own: list[str], variables: list[Tensor], count: int, now: Point) -> Point:
    """Steps along the sign of the gradient, each kept only if the term falls, halved if it does not."""
    step = 0.5
    for _ in range(STEPS):
        before = copies(variables)
        with torch.no_grad():
            for variable, gradient in zip(variables, now[2], strict=True):
                variable.sub_(step * gradient.nan_to_num(0, 0, 0).sign())
        found = _evaluated(subject, own, variables, count)
        if found[0] < now[0]:
            now, step = found, min(1.2 * step, 3.0)
            continue
        step /= 2
        with torch.no_grad():
            for variable, value in zip(variables, before, strict=True):
                variable.copy_(value)
        if step < 1e-6:
            break
    return now


def _evaluated(subject: TermProbe, own: list[str], variables: list[Tensor], count: int) -> Point:
    assert subject.probe.code.site is not None
    for each in variables:
        each.requires_grad_(True)
    found = subject.probe.evaluate(_free(own, variables[:count]), hold=True, watch=(subject.probe.code.site,))
    met = found.record.met.get(subject.probe.code.site, [])
    if not met:
        raise Undecided("the loss never meets the code")
    code = met[0].detach().reshape(len(met[0]), -1)
    return found.value(subject.term), code, [each.detach() for each in found.gradient(subject.term, variables)]


def _undo(parameters: list[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
            parameter.grad = None


def _calls(subject: TermProbe, own: list[str]) -> list[TracedCall]:
    return [call for call in subject.probe.evaluate().record.calls if call.name in own]


def _start(like: Tensor, start: str, seed: int) -> Tensor:
    if start == "sparse":
        on = random_values(like, "none", 1.0, 70 + seed) > 2.3  # on a twentieth of the rows, unit by unit
        return torch.where(on, 6.0, -6.0).to(like.dtype) + 0.5 * random_values(like, "none", 1.0, 80 + seed)
    return random_values(like, "none", 1.0 if start == "moderate" else 5.0, 60 + seed)


def _free(own: list[str], free: list[Tensor]) -> dict[TensorSite, Change]:
    order = iter(free)  # the calls come in the same order each time
    return {TensorSite(name): lambda found, index: found * 0 + next(order) for name in own}


def _between(subject: TermProbe, own: list[str]) -> list[Tensor]:
    """Parameters between the bottleneck's layer and its code: what a normalisation learns."""
    code = subject.probe.code.site
    assert code is not None
    leaves: list[Tensor] = []
    cut = subject.probe.evaluate(
        {TensorSite(name): replace_with_leaves(lambda v, i: v, leaves) for name in own}, hold=True, watch=(code,)
    )
    met = cut.record.met.get(code, [])
    parameters = [each for each in subject.probe.model.parameters() if each.requires_grad and each.dim() <= 1]
    if not met or not met[0].requires_grad or not parameters or code.chain == ():
        return []
    # what hangs before the cut is multiplied by zero, so its gradient is exactly zero
    gradients = torch.autograd.grad(met[0].pow(2).sum() + met[0].sum(), parameters, allow_unused=True)
    return [p for p, g in zip(parameters, gradients, strict=True) if g is not None and bool((g != 0).any())]


DEADENED = ("relu",)
