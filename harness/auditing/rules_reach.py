"""Rules on what no gradient reaches: an encoder that is cut off, and parameters without a gradient."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.auditing.dependencies import TermProbe, Undecided, follows_site, observed_values
from harness.auditing.findings import make_finding, source_line
from harness.auditing.probe import LossProbe, has_changed, replace_with_leaves
from harness.auditing.probe_values import random_outputs
from harness.auditing.trace import Change, TensorSite, TracedOperation
from harness.case import Case, build_optimizer
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

CUTS = ("detach", "argmin", "argmax", "round", "sign", "floor", "ceil", "heaviside", "bucketize", "numpy")
MOVES = ((0, 0.3), (1, 1.0))  # (seed, size relative to a parameter's root mean square) of random changes of parameters
CODE_SPREADS = (3.0, 100.0)  # of random values there: the wide ones reach what a saturated activation hides
MOST_GROUPS = 64  # modules whose parameters are moved one after another

Terms = Mapping[str, Any]


# --- cut_encoder ------------------------------------------------------------------------------------------------------


def cut_encoder(subject: TermProbe, operations: list[TracedOperation]) -> list[Finding]:
    """Find a main term whose value changes with the code while no gradient reaches the layers that compute the code."""
    probe, site = subject.probe, subject.probe.code.site
    if site is None:
        raise Undecided("no layer's output leads to the code")
    if subject.inert or _has_gradient_before_code(subject, site):
        return []
    # a loss that decodes a quantized code itself reads the layer, and not the sum of the straight-through step
    followed = site if subject.follows else TensorSite(site.layer)
    if not subject.follows and not follows_site(subject, followed, "none"):
        return []
    encoder = encoder_parameters(probe)
    if not encoder:
        return []  # frozen, or not in the optimizer
    names = ", ".join(encoder[:6]) + (", ..." if len(encoder) > 6 else "")
    return [
        make_finding(
            "cut_encoder",
            subject.term,
            f"{subject.term} changes when {followed} is replaced, and its gradient is zero at {site.layer} and at every layer"
            f" before it: on the data, with random values there, and with {len(MOVES)} random changes of all parameters",
            f"{len(encoder)} trainable parameters before the code ({names}) do not learn from {subject.term}",
            "let the gradient pass: no `.detach()`, `.data` or `torch.no_grad()` between these layers and the loss; behind a"
            " quantizer, an argmax or a comparison, pass it straight through: `code + (quantized - code).detach()`",
            {"parameters": float(len(encoder))},
            source=source_line(operations, [TensorSite(site.layer)], CUTS),
        )
    ]


def _has_gradient_before_code(subject: TermProbe, site: TensorSite) -> bool:
    probe = subject.probe
    if _reaches_layers(subject, site, _unchanged):
        return True
    parameters = list(probe.model.parameters())
    for seed, size in MOVES:
        changes: list[Change] = [_unchanged, *(random_outputs(seed, scale) for scale in CODE_SPREADS)]
        with moved(parameters, size, seed):
            if any(_reaches_layers(subject, site, change) for change in changes):
                return True
    return False


def _unchanged(values: Tensor, index: int) -> Tensor:
    return values.detach()


def _reaches_layers(subject: TermProbe, site: TensorSite, values: Callable[[Tensor, int], Tensor]) -> bool:
    """Return True if a gradient arrives at the bottleneck's layer, cut there, or at a layer called before it."""
    leaves: list[Tensor] = []
    evaluation = subject.probe.evaluate({TensorSite(site.layer): replace_with_leaves(values, leaves)})
    calls = evaluation.record.calls
    first = next((index for index, call in enumerate(calls) if call.name == site.layer), len(calls))
    before = [call.after for call in calls[:first] if call.after.requires_grad]
    return any(bool((gradient != 0).any()) for gradient in evaluation.gradient(subject.term, [*leaves, *before]))


def encoder_parameters(probe: LossProbe) -> list[str]:
    """Return the names of the optimized parameters whose change alters the output of the bottleneck's layer."""
    assert probe.code.site is not None
    layer = TensorSite(probe.code.site.layer)
    base = observed_values(probe, layer)
    groups = by_module(optimized_parameters(probe.case, probe.model))
    names: list[str] = []
    for parameters in list(groups.values())[:MOST_GROUPS]:
        with moved(parameters.values(), 0.3, 0):
            values = observed_values(probe, layer)
        if len(values) != len(base) or not all(map(torch.equal, base, values)):
            names += parameters
    return names


# --- unreached_parameter ----------------------------------------------------------------------------------------------


@dataclass
class ReachedParameters:
    """Parameters without a gradient so far, over all initializations and training probes.

    Args:
        without_gradient: names whose gradient was zero or absent at every probe; None before the first probe.
        without_path: those of them that no term depends on in its autograd graph.
        followers: name -> terms whose value changed with the parameter at some probe.
        written: names of parameters without a gradient that a training changed, such as moving averages.
    """

    without_gradient: set[str] | None = None
    without_path: set[str] = field(default_factory=set)
    followers: dict[str, set[str]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    _initial: dict[str, Tensor] = field(default_factory=dict)

    def start(self, model: nn.Module) -> None:
        """Keep the initial values of the parameters without a path, before a training."""
        self._initial = {
            name: value.detach().clone() for name, value in model.named_parameters() if name in self.without_path
        }

    def compare(self, model: nn.Module) -> None:
        """Find the parameters that a training has changed although no term depends on them in its autograd graph."""
        values = dict(model.named_parameters())
        changed = {name for name, value in self._initial.items() if not torch.equal(value, values[name])}
        self.written |= changed & self.without_path

    def look(self, case: Case, model: nn.Module, terms: Terms) -> None:
        """Remove the parameters that a term's gradient reaches."""
        parameters = optimized_parameters(case, model)
        if self.without_gradient is None:
            self.without_gradient = set(parameters)
            self.without_path = set(parameters)
        for term in terms.values():
            names = sorted(self.without_gradient)
            if names and isinstance(term, Tensor) and term.requires_grad:
                gradients = torch.autograd.grad(
                    term.sum(), [parameters[name] for name in names], allow_unused=True, retain_graph=True
                )
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is not None:
                        self.without_path.discard(name)
                        if bool((gradient != 0).any()):  # NaN counts: it is not zero
                            self.without_gradient.discard(name)
        self.without_path &= self.without_gradient

    def follow(self, model: nn.Module, evaluate: Callable[[], Terms], tolerance: float) -> None:
        """Record which terms change with the value of the parameters that are left."""
        named_parameters = dict(model.named_parameters())
        groups = by_module({name: named_parameters[name] for name in sorted(self.without_gradient or ())})
        base = values_of(evaluate())
        if not groups or any(has_changed(value, base[name]) for name, value in values_of(evaluate()).items()):
            return  # a loss with a generator of its own: a change shows nothing

        def followers(parameters: Iterable[Tensor]) -> set[str]:
            terms: set[str] = set()
            for seed, size in MOVES:
                with moved(parameters, size, seed):
                    values = values_of(evaluate())
                terms |= {name for name in base if has_changed(values[name], base[name], tolerance=tolerance)}
            return terms

        for parameters in list(groups.values())[:MOST_GROUPS]:
            together = followers(list(parameters.values()))
            for name, value in parameters.items():
                alone = followers([value]) if together and len(parameters) > 1 else together
                self.followers.setdefault(name, set()).update(alone)


def unreached_parameters(
    probe: LossProbe,
    reached: ReachedParameters,
    inert: set[str],
    explained: set[str],
    tied: set[str],
    looks: str,
    zero_explained: bool = False,
) -> list[Finding]:
    """Find trainable parameters that change the value of some term and get a gradient from none.

    Args:
        probe: the model and its loss at one initialization.
        reached: what the training probes found.
        inert: terms without a gradient, which have a finding of their own.
        explained: names of parameters that another finding explains.
        tied: names of parameters that share their memory with one that has a gradient (tied weights).
        looks: the probes in words, for the finding.
        zero_explained: True if a dead or constant code explains gradients that are zero, but not absent.
    """
    parameters = dict(probe.model.named_parameters())
    averaged = set(probe.averaged)  # changed by the forward pass
    terms = probe.evaluate().terms
    reached.look(probe.case, probe.model, terms)
    for seed, size in MOVES:
        with moved(parameters.values(), size, seed):
            reached.look(probe.case, probe.model, probe.evaluate().terms)
    reached.without_gradient = (reached.without_gradient or set()) - averaged - explained - tied - reached.written
    reached.without_path &= reached.without_gradient
    reached.follow(probe.model, lambda: probe.evaluate().terms, 1e-9 if probe.dtype == torch.float64 else 1e-4)
    names = sorted(reached.without_gradient)
    followers = {name: reached.followers.get(name, set()) for name in names}
    judged = reached.without_path if zero_explained else reached.without_gradient
    faults = [name for name in names if followers[name] - inert and name in judged]
    unused = [name for name in names if not followers[name] and name in reached.without_path]
    # in the graph, but behind a function that is constant; a dead code or a term without a gradient explains zeros too
    tested = set() if zero_explained or inert else set(reached.followers) - reached.without_path
    idle = [name for name in names if not followers[name] and name in tested]
    return [
        *_unreached(parameters, faults, followers, looks),
        *_unused(parameters, unused, looks),
        *_idle(parameters, idle, looks),
    ]


def _unreached(
    parameters: Mapping[str, Tensor], names: list[str], followers: Mapping[str, set[str]], looks: str
) -> list[Finding]:
    terms = sorted(set().union(*(followers[name] for name in names)))
    return _on_parameters(
        parameters,
        names,
        lambda listed: f"no term's gradient reaches {listed} {looks}; moving them changes {', '.join(terms)}",
        "they stay as they were initialized, though the loss depends on them",
        "let a term reach them (the codebook term of a quantizer takes the codes before the straight-through step),"
        " or take them out of the optimizer",
    )


def _unused(parameters: Mapping[str, Tensor], names: list[str], looks: str) -> list[Finding]:
    return _on_parameters(
        parameters,
        names,
        lambda listed: f"no term's gradient or value depends on {listed} {looks}",
        "an unused branch of the model: it is neither trained nor read",
        "nothing to do, if the branch is meant for later; else remove it",
        Severity.NOTE,
    )


def _idle(parameters: Mapping[str, Tensor], names: list[str], looks: str) -> list[Finding]:
    return _on_parameters(
        parameters,
        names,
        lambda listed: f"the gradient of every term is exactly 0 at {listed} {looks}, and moving them changes no term",
        "the model runs them, but what reads them is constant: they are not trained",
        "check the axes behind them: a softmax over an axis of one number is always 1",
        Severity.NOTE,
    )


def _on_parameters(
    parameters: Mapping[str, Tensor],
    names: list[str],
    evidence: Callable[[str], str],
    meaning: str,
    remedy: str,
    severity: Severity | None = None,
) -> list[Finding]:
    """Return the finding on the named parameters; none without any. `evidence` gets them in words."""
    if not names:
        return []
    count = sum(parameters[name].numel() for name in names)
    listed = f"{_modules_in_words(names)} ({len(names)} parameters, {count} numbers)"
    numbers = {"parameters": float(len(names)), "numbers": float(count)}
    return [make_finding("unreached_parameter", None, evidence(listed), meaning, remedy, numbers, severity=severity)]


def _modules_in_words(names: list[str], most: int = 6) -> str:
    """Return parameter names by module.

    >>> _modules_in_words(["book", "other.weight", "other.bias"])
    'book, other (weight, bias)'
    """
    modules: dict[str, list[str]] = {}
    for name in names:
        module, _, parameter = name.rpartition(".")
        modules.setdefault(module, []).append(parameter)
    words = [
        f"{module} ({', '.join(parameters)})" if module else ", ".join(parameters)
        for module, parameters in modules.items()
    ]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more modules" if len(words) > most else "")


def tied_parameters(model: nn.Module, names: Iterable[str]) -> set[str]:
    """Return those of the named parameters that share their memory with a parameter that is not named."""
    names = set(names)
    pointers = {value.data_ptr() for name, value in model.named_parameters() if name not in names and value.numel()}
    return {name for name, value in model.named_parameters() if name in names and value.data_ptr() in pointers}


def optimized_parameters(case: Case, model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters that are in the case's optimizer, by name."""
    optimizer = build_optimizer(case, model)
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad and value.numel()}
    if optimizer is None:
        return trainable
    members = {id(value) for group in optimizer.param_groups for value in group["params"]}
    return {name: value for name, value in trainable.items() if id(value) in members}


def by_module(parameters: Mapping[str, nn.Parameter]) -> dict[str, dict[str, nn.Parameter]]:
    """Return parameters grouped by the module that owns them."""
    groups: dict[str, dict[str, nn.Parameter]] = {}
    for name, value in parameters.items():
        groups.setdefault(name.rpartition(".")[0], {})[name] = value
    return groups


@contextmanager
def moved(parameters: Iterable[Tensor], size: float, seed: int) -> Iterator[None]:
    """Add noise of `size` times their root mean square to parameters (times 1 where they are zero); then undo it."""
    originals = [(value, value.data) for value in parameters if value.is_floating_point()]
    draw = torch.Generator().manual_seed(seed)
    try:
        for value, data in originals:
            scale = float(data.double().pow(2).mean().sqrt()) or 1.0
            noise = torch.randn(data.shape, generator=draw, dtype=torch.float64).to(
                dtype=data.dtype, device=data.device
            )
            value.data = data + size * scale * noise
        yield
    finally:
        for value, data in originals:
            value.data = data


def values_of(terms: Terms) -> dict[str, float]:
    """Return the terms as numbers."""
    return {
        name: float(term.detach().sum()) if isinstance(term, Tensor) else float(term) for name, term in terms.items()
    }
