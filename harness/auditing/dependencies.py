"""Direct dependencies of a loss term on the layers, measured with the outputs of all other layers fixed."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.auditing.probe import Evaluation, LossProbe, has_changed, replace_with, replace_with_leaves
from harness.auditing.probe_values import RANGES, random_outputs, random_values
from harness.auditing.trace import Change, TensorSite
from harness.capture.outputs import output_named
from harness.errors import HarnessError
from harness.remedies.posterior import log_variance

MOST_LAYERS = 32  # replaced one by one, where the gradient shows no dependency


class Undecided(Exception):
    """Raised with the reason where a rule cannot be decided; the audit records it."""


@dataclass
class TermProbe:
    """One loss term under the probe of one initialization, with the facts that the rules share.

    Args:
        probe: the model, the batch and the way to evaluate them.
        term: its name in `losses`.
        base: the term on the data, as it is.
        noise: absolute difference between two equal evaluations (a loss with a generator of its own).
        follows: True if it changes when the code in use is replaced and later layers are computed from the new code.
        layers: the layers it depends on directly.
        direct: the sites at the bottleneck that it reads directly: code, pre-activation, raw output.
        astray: sites before the code that change the term although the code stays the same.
        beside: layers that join the bottleneck's output before the next layer (the other head of a VAE), and the layer
            of the declared log-variance.
        inert: "no_gradient", "zero_gradient" or "".
    """

    probe: LossProbe
    term: str
    base: float
    noise: float = 0.0
    follows: bool = False
    layers: tuple[str, ...] = ()
    direct: tuple[TensorSite, ...] = ()
    astray: tuple[TensorSite, ...] = ()
    beside: tuple[str, ...] = ()
    inert: str = ""
    cache: dict[str, object] = field(default_factory=dict)

    @property
    def site(self) -> TensorSite | None:
        """Site at which the term reads the model: the code, else the nearest site before it, else another layer."""
        if self.direct:
            return self.direct[0]
        return TensorSite(self.layers[0]) if self.layers else None

    @property
    def at_bottleneck(self) -> bool:
        """True if the term reads the bottleneck directly."""
        return bool(self.direct)

    def at(self, changes: dict[TensorSite, Change], hold: bool = True) -> Evaluation:
        """Evaluate with these changes; with `hold`, the outputs of all other layers are fixed."""
        return self.probe.evaluate(changes, hold=hold)

    def value(self, site: TensorSite, values: Tensor, hold: bool = True) -> float:
        """Return the term with these values at the site."""
        return self.at({site: replace_with(values)}, hold).value(self.term)

    def differs(self, first: float, second: float) -> bool:
        """True if two values differ by more than rounding and the term's own noise."""
        tolerance = ROUNDING.get(self.probe.dtype, 0.05)
        if math.isnan(first) or math.isnan(second):
            return math.isnan(first) != math.isnan(second)
        return abs(first - second) > 10 * self.noise and has_changed(first, second, tolerance=tolerance)

    def shape(self, site: TensorSite) -> Tensor:
        """Return the values at the site on the data."""
        if site not in self.probe.observed:
            values = observed_values(self.probe, site)
            if not values:
                raise Undecided(f"{site} is not computed while the loss is evaluated")
            self.probe.observed[site] = values[0]
        return self.probe.observed[site]


def observed_values(probe: LossProbe, site: TensorSite) -> list[Tensor]:
    """Return the values of every instance of a site while the loss is evaluated on the data."""
    record = probe.evaluate(watch=(site,)).record
    return [values.detach() for values in record.met.get(site, [])]


def inspect_term(probe: LossProbe, term: str) -> TermProbe:
    """Measure the facts about one term that the rules share."""
    first, second = probe.evaluate(), probe.evaluate()
    subject = TermProbe(probe, term, first.value(term), abs(first.value(term) - second.value(term)))
    subject.noise = subject.noise if subject.noise == subject.noise else 0.0
    subject.layers, joining = _direct_layers(subject)
    subject.beside = tuple(dict.fromkeys((*joining, *_posterior_layers(probe))))
    if probe.code.site is not None:
        subject.follows = follows_site(subject, probe.code.site, probe.code.activation)
        subject.direct, subject.astray = _direct_sites(subject, probe.code.site)
    return subject


def perturbations(site: TensorSite, activation: str) -> list[Change]:
    """Return large changes of the values at a site: replaced, scaled, silenced, shuffled over the rows."""

    def replaced(seed: int, scale: float) -> Change:
        return lambda values, index: values * 0 + random_values(values, activation, scale, seed + 10 * index)

    def shuffled(values: Tensor, index: int) -> Tensor:
        return values.roll(1, 0)

    def small(values: Tensor, index: int) -> Tensor:
        return (
            values * 0 + 0.05 + 0.1 * random_values(values, "sigmoid", 1.0, 2 + index)
        )  # within the domain of a logarithm

    # scaling keeps the graph: a penalty on the code's derivative (contractive) changes with it, not with a constant
    double, silenced = (lambda values, index: values * 2), (lambda values, index: values * 0)
    return [replaced(0, 1.0), small, double, shuffled, replaced(1, 5.0), silenced]


def follows_site(subject: TermProbe, site: TensorSite, activation: str) -> bool:
    """True if a term changes when the values at a site are replaced and later layers are computed from the new ones."""
    return any(
        subject.differs(subject.probe.evaluate({site: change}).value(subject.term), subject.base)
        for change in [*perturbations(site, activation), *_extremes(activation)]
    )


def _extremes(activation: str) -> list[Change]:
    """Return constants near the ends of the activation's range, beyond the margin of a hinge."""
    low, high = RANGES.get(activation, RANGES["none"])
    ends = [low + 1e-3 if math.isfinite(low) else -size for size in (30.0, 1e3, 1e6)]
    ends += [high - 1e-3 if math.isfinite(high) else size for size in (30.0, 1e3, 1e6)]
    return [lambda values, index, end=end: values * 0 + end for end in dict.fromkeys(ends)]  # type: ignore[misc]


def _direct_sites(subject: TermProbe, code: TensorSite) -> tuple[tuple[TensorSite, ...], tuple[TensorSite, ...]]:
    observed = {site: observed_values(subject.probe, site) for site in (code, *reversed(subject.probe.prefixes()))}
    # an index of chosen units has no values in between
    chain = [site for site, values in observed.items() if all(value.is_floating_point() for value in values)]
    fixed = {site: _hold_at(observed[site]) for site in chain}
    base = subject.at(dict(fixed)).value(subject.term)

    def moved(site: TensorSite, change: Change) -> bool:
        # the sites from here up to the code are fixed, so the sites before have no influence
        return subject.differs(subject.at({**fixed, site: change}).value(subject.term), base)

    activation = subject.probe.code.activation
    direct = tuple(
        s for s in chain if any(moved(s, change) for change in perturbations(s, activation if s == code else "none"))
    )
    before = [site for site in direct if site != code]
    return direct, tuple(site for site in before if any(moved(site, change) for change in _same_code(site, code)))


def _same_code(site: TensorSite, code: TensorSite) -> list[Change]:
    """Return changes of the values before an activation that leave the code as it is.

    A ReLU ignores the size of a negative value, a normalization ignores shift and scale. An invertible activation has
    no such change, so every change is tried there while the code is fixed.
    """
    if any("norm" in name for name in code.chain[len(site.chain) :]):
        return [lambda values, index: values * 2 + 1]
    if code.chain and code.chain[-1] not in RANGES:
        return []  # a sample from the layer's distribution (VAE), not an activation
    if code.chain[-1:] == ("relu",):
        return [lambda values, index, k=k: torch.where(values > 0, values, values * k - 0.1 * k) for k in (3.0, 0.1)]  # type: ignore[misc]
    return perturbations(site, "none")


def _hold_at(values: list[Tensor]) -> Change:
    return lambda current, index: current * 0 + values[index] if index < len(values) else current


def _direct_layers(subject: TermProbe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = list(dict.fromkeys(name for name, _ in subject.probe.natural))
    for scale in (1.0, 0.1, 0.0):
        leaves: list[Tensor] = []
        changes = {TensorSite(name): replace_with_leaves(_near(scale), leaves) for name in names}
        cut = subject.probe.evaluate(changes)
        gradients = cut.gradient(subject.term, leaves)
        if all(bool(gradient.isfinite().all()) for gradient in gradients):
            break
    calls = [call.name for call in cut.record.calls]
    direct = [name for name, gradient in zip(calls, gradients, strict=True) if bool((gradient != 0).any())]
    if not direct:
        direct = [name for name in names[:MOST_LAYERS] if _changes_with(subject, name)]
    return tuple(dict.fromkeys(direct)), _joining_layers(subject.probe, cut, leaves)


def _near(scale: float) -> Callable[[Tensor, int], Tensor]:
    return lambda value, index: (
        value.detach()
        + scale * random_values(value, "none", max(1.0, float(value.detach().std(correction=0))), 3 + index)
    )


def _changes_with(subject: TermProbe, name: str) -> bool:
    base = subject.at({}).value(subject.term)
    return any(
        subject.differs(subject.at({TensorSite(name): change}).value(subject.term), base)
        for change in perturbations(TensorSite(name), "none")
    )


def _joining_layers(probe: LossProbe, cut: Evaluation, leaves: list[Tensor]) -> tuple[str, ...]:
    """Return layers whose output has the bottleneck's shape and joins it before the next layer."""
    if probe.code.site is None:
        return ()
    names: list[str] = []
    for call in cut.record.calls[:64]:
        if call.entered is None or not call.entered.requires_grad:
            continue
        gradients = torch.autograd.grad(_sum(call.entered), leaves, allow_unused=True, retain_graph=True)
        joined = [
            (c.name, x.shape) for c, x, g in zip(cut.record.calls, leaves, gradients, strict=True) if _is_nonzero(g)
        ]
        shapes = [shape for name, shape in joined if name == probe.code.site.layer]
        names += [name for name, shape in joined if shape in shapes]
    return tuple(dict.fromkeys(name for name in names if name != probe.code.site.layer))


def layers_after(probe: LossProbe) -> set[str]:
    """Return the layers whose input differs when random numbers replace the output of the bottleneck's layer."""
    if probe.code.site is None:
        return set()
    changes = {TensorSite(probe.code.site.layer): random_outputs(0)}
    natural, moved = probe.evaluate().record.calls, probe.evaluate(changes).record.calls
    return {
        call.name
        for call, original in zip(moved, natural, strict=False)
        if call.entered is not None and original.entered is not None and not torch.equal(call.entered, original.entered)
    }


def _posterior_layers(probe: LossProbe) -> tuple[str, ...]:
    """Return the layer of the declared log-variance, which no gradient shows where the sample is detached."""
    case, code = probe.case, probe.code
    if case.posterior is None or code.site is None:
        return ()
    with suppress(HarnessError), log_variance(case, probe.model) as recorded:  # a wrong name, which training reports
        record = probe.forward(probe.batch)
        values = recorded[0] if recorded else output_named(record.outputs[0], case.posterior)
        site = record.site_of.get(id(values))
        # a layer of another size feeds more than the log-variance
        return tuple(
            dict.fromkeys(
                call.name
                for call in record.calls
                if site is not None
                and call.name == site.layer != code.site.layer
                and call.before.numel() == values.numel()
            )
        )
    return ()


def _sum(values: Tensor) -> Tensor:
    # a plain sum of a normalized tensor has zero gradient, so every value gets its own weight
    return (values * random_values(values, "none", 1.0, 5)).sum()


def _is_nonzero(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


# relative tolerance between two evaluations of one term; 16-bit floats: 0.05
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
