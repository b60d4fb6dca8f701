"""What a loss term depends on: which layers directly, the others held, and whether the bottleneck is among them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harness.auditing.probe import Evaluation, LossProbe, has_changed, replace_with, replace_with_leaves
from harness.auditing.probe_values import RANGES, random_values
from harness.auditing.recorder import Change, TensorSite

MOST_LAYERS = 32  # moved one by one, where no gradient tells


class Undecided(Exception):
    """A rule cannot be decided here, and why; recorded, never guessed."""


@dataclass
class TermProbe:
    """One loss term under the probe of one initialisation, and what is known of it.

    Args:
        probe: the model, the batch and the way to evaluate them.
        term: its name in `losses`.
        base: the term on the data, as it is.
        noise: how much it differs between two equal evaluations (a loss with a generator of its own).
        follows: whether it changes when the code in use is replaced, later layers following.
        layers: the layers it depends on directly.
        direct: the sites at the bottleneck that it reads directly: the code, its pre-activation, the raw output.
        astray: those before the code whose values move it though the code that they lead to stays the same.
        beside: layers that join the bottleneck's output before the next layer (a VAE's other head).
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
        """Where the term reads the model: the code if it does, else the nearest site before it, else another layer."""
        if self.direct:
            return self.direct[0]
        return TensorSite(self.layers[0]) if self.layers else None

    @property
    def at_bottleneck(self) -> bool:
        """Whether it reads the bottleneck directly."""
        return bool(self.direct)

    def at(self, changes: dict[TensorSite, Change], hold: bool = True) -> Evaluation:
        """One evaluation with these changes, all other layers held unless told otherwise."""
        return self.probe.evaluate(changes, hold=hold)

    def value(self, site: TensorSite, values: Tensor, hold: bool = True) -> float:
        """The term with these values at the site."""
        return self.at({site: replace_with(values)}, hold).value(self.term)

    def differs(self, first: float, second: float) -> bool:
        """Whether two values differ by more than rounding and the term's own noise."""
        tolerance = ROUNDING.get(self.probe.dtype, 0.05)
        if math.isnan(first) or math.isnan(second):
            return math.isnan(first) != math.isnan(second)
        return abs(first - second) > 10 * self.noise and has_changed(first, second, tolerance=tolerance)

    def shape(self, site: TensorSite) -> Tensor:
        """The values that stand at the site on the data."""
        found = observed_values(self.probe, site)
        if not found:
            raise Undecided(f"{site} is never met while the loss is evaluated")
        return found[0]


def observed_values(probe: LossProbe, site: TensorSite) -> list[Tensor]:
    """The values of every instance of a site while the loss is evaluated on the data."""
    record = probe.evaluate(watch=(site,)).record
    return [each.detach() for each in record.met.get(site, [])]


def inspect_term(probe: LossProbe, term: str) -> TermProbe:
    """Everything that the rules share about one term."""
    first, second = probe.evaluate(), probe.evaluate()
    found = TermProbe(probe, term, first.value(term), abs(first.value(term) - second.value(term)))
    found.noise = found.noise if found.noise == found.noise else 0.0
    found.layers, found.beside = _direct_layers(found)
    if probe.code.site is not None:
        found.follows = _follows(found, probe.code.site)
        found.direct, found.astray = _direct_sites(found, probe.code.site)
    return found


def perturbations(site: TensorSite, activation: str) -> list[Change]:
    """Large moves of the values at a site: replaced, scaled, silenced, shuffled over the rows."""

    def replaced(seed: int, scale: float) -> Change:
        return lambda found, index: found * 0 + random_values(found, activation, scale, seed + 10 * index)

    def shuffled(found: Tensor, index: int) -> Tensor:
        return found.roll(1, 0)

    def small(found: Tensor, index: int) -> Tensor:
        return (
            found * 0 + 0.05 + 0.1 * random_values(found, "sigmoid", 1.0, 2 + index)
        )  # inside the domain of a logarithm

    # scaling keeps the graph: a penalty on the code's derivative (contractive) follows it and no constant
    double, silenced = (lambda found, index: found * 2), (lambda found, index: found * 0)
    return [replaced(0, 1.0), small, double, shuffled, replaced(1, 5.0), silenced]


def _follows(found: TermProbe, site: TensorSite) -> bool:
    return any(
        found.differs(found.probe.evaluate({site: move}).value(found.term), found.base)
        for move in perturbations(site, found.probe.code.activation)
    )


def _direct_sites(found: TermProbe, code: TensorSite) -> tuple[tuple[TensorSite, ...], tuple[TensorSite, ...]]:
    chain = [code, *reversed(found.probe.prefixes())]
    held = {site: _held(observed_values(found.probe, site)) for site in chain}
    base = found.at(dict(held)).value(found.term)

    def moved(site: TensorSite, move: Change) -> bool:
        # what comes after the site, up to the code, stays; what comes before does not matter then
        return found.differs(found.at({**held, site: move}).value(found.term), base)

    activation = found.probe.code.activation
    direct = tuple(
        s for s in chain if any(moved(s, each) for each in perturbations(s, activation if s == code else "none"))
    )
    before = [site for site in direct if site != code]
    return direct, tuple(site for site in before if any(moved(site, each) for each in _same_code(site, code)))


def _same_code(site: TensorSite, code: TensorSite) -> list[Change]:
    """Moves of the values before an activation that leave what the activation makes of them as it is.

    A ReLU does not see how far below zero a value lies, a normalisation neither shift nor scale. An activation that
    can be undone leaves no such move, so there everything is moved while the code is held.
    """
    if any("norm" in name for name in code.chain[len(site.chain) :]):
        return [lambda found, index: found * 2 + 1]
    if code.chain and code.chain[-1] not in RANGES:
        return []  # a draw from what a layer says of it (a VAE's), and no activation
    if code.chain[-1:] == ("relu",):
        return [lambda found, index, k=k: torch.where(found > 0, found, found * k - 0.1 * k) for k in (3.0, 0.1)]  # type: ignore[misc]
    return perturbations(site, "none")


def _held(values: list[Tensor]) -> Change:
    return lambda found, index: found * 0 + values[index] if index < len(values) else found


def _direct_layers(found: TermProbe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = list(dict.fromkeys(name for name, _ in found.probe.natural))
    for scale in (1.0, 0.1, 0.0):
        leaves: list[Tensor] = []
        changes = {TensorSite(name): replace_with_leaves(_near(scale), leaves) for name in names}
        cut = found.probe.evaluate(changes)
        gradients = cut.gradient(found.term, leaves)
        if all(bool(each.isfinite().all()) for each in gradients):
            break
    calls = [call.name for call in cut.record.calls]
    direct = [name for name, each in zip(calls, gradients, strict=True) if bool((each != 0).any())]
    if not direct:
        direct = [name for name in names[:MOST_LAYERS] if _moved_alone(found, name)]
    return tuple(dict.fromkeys(direct)), _beside(found.probe, cut, leaves)


def _near(scale: float) -> Callable[[Tensor, int], Tensor]:
    return lambda value, index: (
        value.detach()
        + scale * random_values(value, "none", max(1.0, float(value.detach().std(correction=0))), 3 + index)
    )


def _moved_alone(found: TermProbe, name: str) -> bool:
    base = found.at({}).value(found.term)
    return any(
        found.differs(found.at({TensorSite(name): move}).value(found.term), base)
        for move in perturbations(TensorSite(name), "none")
    )


def _beside(probe: LossProbe, cut: Evaluation, leaves: list[Tensor]) -> tuple[str, ...]:
    """Layers whose output, of the bottleneck's shape, meets the bottleneck's before the next layer is entered."""
    if probe.code.site is None:
        return ()
    found: list[str] = []
    for call in cut.record.calls[:64]:
        if call.entered is None or not call.entered.requires_grad:
            continue
        gradients = torch.autograd.grad(_sum(call.entered), leaves, allow_unused=True, retain_graph=True)
        joined = [(c.name, x.shape) for c, x, g in zip(cut.record.calls, leaves, gradients, strict=True) if _some(g)]
        shapes = [shape for name, shape in joined if name == probe.code.site.layer]
        found += [name for name, shape in joined if shape in shapes]
    return tuple(dict.fromkeys(name for name in found if name != probe.code.site.layer))


def _sum(values: Tensor) -> Tensor:
    # a plain sum of a normalised tensor has no gradient, so every value has a weight of its own
    return (values * random_values(values, "none", 1.0, 5)).sum()


def _some(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


# by how much, of itself, two evaluations of one term may differ; 16-bit floats: 0.05
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
