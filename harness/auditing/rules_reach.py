"""Rules on what no gradient reaches: an encoder that is cut off, parameters without a gradient, numbers without an effect."""

import dis
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from numbers import Real
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

from harness.auditing.dependencies import TermProbe, Undecided, follows_site, observed_values
from harness.auditing.findings import loss_source, make_finding, source_line
from harness.auditing.gradient_ratios import ProbeLoop
from harness.auditing.isolation import preserved_rng, preserved_state
from harness.auditing.loss_state import preserved_loss
from harness.auditing.probe import Evaluation, LossProbe, has_changed, replace_with_leaves
from harness.auditing.probe_values import random_values
from harness.auditing.trace import Change, TensorSite, TracedOperation
from harness.auditing.weight_keywords import SUPPLIED
from harness.case import Case, build_optimizer
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.remedies.apply import TreatedLosses

CUTS = ("detach", "argmin", "argmax", "round", "sign", "floor", "ceil", "heaviside", "bucketize", "numpy")
MOVES = ((0, 0.3), (1, 1.0))  # (seed, size relative to a parameter's root mean square) of random changes of parameters
SPREADS = (0.1, 3.0, 30.0)  # of random layer outputs at which a number is looked for
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
            "remove the `.detach()`; behind a quantizer, pass the gradient straight through:"
            " `code + (quantized - code).detach()`",
            {"parameters": float(len(encoder))},
            source=source_line(operations, [TensorSite(site.layer)], CUTS),
        )
    ]


def _has_gradient_before_code(subject: TermProbe, site: TensorSite) -> bool:
    probe = subject.probe
    if _reaches_layers(subject, site, lambda values, index: values.detach()):
        return True
    parameters = list(probe.model.parameters())
    for seed, size in MOVES:
        with moved(parameters, size, seed):
            for change in (
                lambda values, index: values.detach(),
                lambda values, index, seed=seed: random_values(values, "none", 3.0, seed + 7 * index),
            ):
                if _reaches_layers(subject, site, change):
                    return True
    return False


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
    return [*_unreached(parameters, faults, followers, looks), *_unused(parameters, unused, looks)]


def _unreached(
    parameters: Mapping[str, Tensor], names: list[str], followers: Mapping[str, set[str]], looks: str
) -> list[Finding]:
    if not names:
        return []
    terms = sorted(set().union(*(followers[name] for name in names)))
    count = sum(parameters[name].numel() for name in names)
    return [
        make_finding(
            "unreached_parameter",
            None,
            f"no term's gradient reaches {_modules_in_words(names)} ({len(names)} parameters, {count} numbers) {looks};"
            f" moving them changes {', '.join(terms)}",
            "they stay as they were initialized, though the loss depends on them",
            "let a term reach them (the codebook term of a quantizer takes the codes before the straight-through step),"
            " or take them out of the optimizer",
            {"parameters": float(len(names)), "numbers": float(count)},
        )
    ]


def _unused(parameters: Mapping[str, Tensor], names: list[str], looks: str) -> list[Finding]:
    if not names:
        return []
    count = sum(parameters[name].numel() for name in names)
    return [
        make_finding(
            "unreached_parameter",
            None,
            f"no term's gradient or value depends on {_modules_in_words(names)} ({len(names)} parameters, {count} numbers)"
            f" {looks}",
            "an unused branch of the model: it is neither trained nor read",
            "nothing to do, if the branch is meant for later; else remove it",
            {"parameters": float(len(names)), "numbers": float(count)},
            severity=Severity.NOTE,
        )
    ]


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


# --- unused_number ----------------------------------------------------------------------------------------------------


def numbers_without_effect(probe: LossProbe) -> list[str]:
    """Return the keywords of `losses` that change no term and no gradient, on the data and at random layer outputs."""
    case = probe.case
    names = [name for name in _number_keywords(case) if not has_effect(case, name, _differentiated(probe))]
    for scale in SPREADS:

        def spread(values: Tensor, index: int, scale: float = scale) -> Tensor:
            return random_values(values, "none", scale, 11 + index)

        changes: dict[TensorSite, Change] = {
            TensorSite(name): replace_with_leaves(spread, []) for name, _ in probe.natural
        }
        names = [name for name in names if not has_effect(case, name, _differentiated(probe, changes))]
    return names


def changes_state(probe: LossProbe, name: str) -> bool:
    """Return True if another value of the number changes what the loss writes into the model, for a later step."""
    case, number = probe.case, _default(probe.case, name)
    base = _state_after(probe, case)
    return any(
        _state_after(probe, replace(case, numbers={**case.numbers, name: trial})) != base for trial in _trials(number)
    )


def _state_after(probe: LossProbe, case: Case) -> list[str]:
    """Return the parameters, buffers, and number and tensor attributes of the model after an evaluation, as text."""
    model = probe.model
    loop = ProbeLoop(case, model, probe.batch, 0, {})
    parameters = [(value, value.detach().clone()) for value in model.parameters()]
    with preserved_rng(0), preserved_state(model), preserved_loss(case.losses):
        loop.terms(probe.batch)
        attributes = [value for module in model.modules() for value in vars(module).values()]
        tensors = [*model.parameters(), *model.buffers(), *(v for v in attributes if isinstance(v, Tensor))]
        state = [repr(value.detach().tolist()) for value in tensors]
        state += [repr(value) for value in attributes if isinstance(value, int | float)]
    for value, copy in parameters:
        value.data = copy
    return state


def _differentiated(
    probe: LossProbe, changes: Mapping[TensorSite, Change] | None = None
) -> Callable[[Case], tuple[Terms, Callable[[], list[Tensor]]]]:
    def evaluate(case: Case) -> tuple[Terms, Callable[[], list[Tensor]]]:
        evaluation: Evaluation = replace(probe, case=case).evaluate(changes)
        return evaluation.terms, lambda: gradients_of(probe.model, evaluation.terms)

    return evaluate


def gradients_of(model: nn.Module, terms: Terms) -> list[Tensor]:
    """Return the gradients of all terms at all trainable parameters, zero where there is none."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    gradients: list[Tensor] = []
    for term in terms.values():
        if isinstance(term, Tensor) and term.requires_grad and parameters:
            slopes = torch.autograd.grad(term.sum(), parameters, allow_unused=True, retain_graph=True)
            gradients += [
                torch.zeros_like(value) if slope is None else slope
                for value, slope in zip(parameters, slopes, strict=True)
            ]
    return gradients


def has_effect(case: Case, name: str, evaluate: Callable[[Case], tuple[Terms, Callable[[], list[Tensor]]]]) -> bool:
    """Return True if another value of the number changes a term or a gradient, or makes the loss fail.

    Raises:
        Undecided: if two equal evaluations differ.
    """
    number = _default(case, name)
    assert isinstance(number, Real)
    terms, slopes = evaluate(case)
    base, again = values_of(terms), values_of(evaluate(case)[0])
    if repr(base) != repr(again):
        raise Undecided(f"two equal evaluations differ, so the effect of {name} cannot be measured")
    gradients: list[Tensor] | None = None
    for trial in _trials(number):
        try:
            other_terms, other_slopes = evaluate(replace(case, numbers={**case.numbers, name: trial}))
            if repr(values_of(other_terms)) != repr(base):
                return True
            gradients = slopes() if gradients is None else gradients
            other_gradients = other_slopes()
        except Exception:  # the loss refuses the number, so it reads it
            return True
        if len(gradients) != len(other_gradients) or not all(
            torch.equal(first.nan_to_num(), second.nan_to_num())
            for first, second in zip(gradients, other_gradients, strict=True)
        ):
            return True
    return False


def _trials(number: Any) -> list[Any]:
    """Return other values of a number; a whole number stays whole.

    >>> _trials(2), _trials(0.5)
    ([3, 4, 1, 0], [1.0, 0.25, 1.5, 0.0, -0.5])
    """
    if isinstance(number, int):
        trials: list[Any] = [number + 1, 2 * number, number - 1, 0]
    else:
        number = float(number)
        trials = [2 * number, 0.5 * number, number + 1.0, 0.0, -number]
    return [trial for trial in trials if trial != number]


def _number_keywords(case: Case) -> list[str]:
    """Return the numbers that the signature of `losses` names."""
    if isinstance(case.losses, TreatedLosses):
        return []  # a remedy may have replaced the penalty that reads them
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(case.losses).parameters
    names = [name for name, parameter in list(parameters.items())[2:] if parameter.kind in kinds]
    return [name for name in names if name not in SUPPLIED and _is_number(_default(case, name))]


def _default(case: Case, name: str) -> Any:
    return case.numbers[name] if name in case.numbers else inspect.signature(case.losses).parameters[name].default


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def unused_number(case: Case, names: list[str], inert: set[str], unmet: set[str], looks: str) -> list[Finding]:
    """Report the keywords of `losses` that change nothing.

    Args:
        case: any case. names: keywords without an effect at every probe.
        inert: terms without a gradient; a number may be the weight of one of them.
        unmet: keywords that the loss reads on a branch that no probe took.
        looks: the probes in words, for the finding.
    """
    if not names:
        return []
    if inert:
        raise Undecided(f"{', '.join(names)} may weigh {', '.join(sorted(inert))}, which has no gradient")
    if branch := [name for name in names if name in unmet]:
        raise Undecided(f"losses reads {', '.join(branch)} on a branch that no probe took")
    return [
        make_finding(
            "unused_number",
            None,
            f"{name} = {float(_default(case, name)):g} is a keyword of losses, and no other value of it changes a term or a"
            f" gradient: on the data, at random layer outputs of {len(SPREADS)} sizes{looks}",
            "a factor over this number would compare equal runs",
            f"use {name} in the loss, or remove the keyword",
            {"value": float(_default(case, name))},
            source=loss_source(case),
        )
        for name in names
    ]


def unmet_reads(case: Case, names: Iterable[str], evaluate: Callable[[], object]) -> set[str]:
    """Return the names that the loss function reads at an instruction that an evaluation does not reach."""
    codes = _code_objects(case.losses)
    reads = {
        name: {(code, step.offset) for code in codes for step in dis.get_instructions(code) if _reads(step, name)}
        for name in names
    }
    reached: set[tuple[CodeType, int]] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            reached.add((frame.f_code, frame.f_lasti))
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        evaluate()
    finally:
        sys.settrace(previous)
    return {name for name, steps in reads.items() if steps - reached}


def _reads(step: dis.Instruction, name: str) -> bool:
    return step.opname.startswith("LOAD_") and step.argval == name and step.opname in READS


def _code_objects(function: Any) -> list[CodeType]:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    function = inspect.unwrap(function)
    call = vars(type(function)).get("__call__")
    code = getattr(function, "__code__", None) or getattr(call, "__code__", None)
    codes = [code] if isinstance(code, CodeType) else []
    for outer in codes:
        codes += [constant for constant in outer.co_consts if isinstance(constant, CodeType)]
    return codes


READS = ("LOAD_FAST", "LOAD_DEREF", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_CLASSDEREF")


def evaluated(case: Case, loop: ProbeLoop, batch: Tensor) -> Terms:
    """Return the loss terms at a loop's step under one fixed random state; buffers, attributes and counters are restored."""
    look = ProbeLoop(case, loop.model, loop.rows, 0, {})
    look.step = loop.step
    with preserved_rng(0), preserved_state(loop.model), preserved_loss(case.losses):
        return look.terms(batch)
