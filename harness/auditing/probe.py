"""Repeatable evaluations of a case's loss: one model, one batch, one random state, and changes at sites."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.auditing.isolation import isolated, preserved_rng, preserved_state
from harness.auditing.loss_state import loss_arguments, loss_numbers, preserved_loss, schedule_keywords
from harness.auditing.probe_values import on_simplex
from harness.auditing.recorder import TensorRecorder, hooked_model, layers_of
from harness.auditing.trace import Change, TensorSite, Trace
from harness.capture import BottleneckTap, code_of, reconstruction_of
from harness.case import Case
from harness.errors import HarnessError
from harness.loss_terms import check_terms
from harness.models import cast_floats, own_precision
from harness.user_code import failure, guarded


@dataclass(frozen=True)
class Code:
    """Location of the bottleneck's activation in use.

    Args:
        site: the layer and the operations that produce the code; None where it comes from no layer's output.
        activation: name of the activation; "softmax" for any code whose units add up to 1.
        units: width of the flattened code.
        values: the code on the probe's batch.
    """

    site: TensorSite | None
    activation: str
    units: int
    values: Tensor


@dataclass
class Evaluation:
    """Terms of one evaluation and the record of it."""

    terms: dict[str, Any]
    record: Trace

    def value(self, term: str) -> float:
        """Return the term as a number, which may be NaN."""
        term_value = self.terms[term]
        return float(term_value.detach().sum()) if isinstance(term_value, Tensor) else float(term_value)

    def gradient(self, term: str, leaves: Sequence[Tensor]) -> list[Tensor]:
        """Return the term's gradient at every leaf, zero where there is none."""
        term_value = self.terms[term]
        if not isinstance(term_value, Tensor) or not term_value.requires_grad or not leaves:
            return [torch.zeros_like(leaf) for leaf in leaves]
        gradients = torch.autograd.grad(term_value.sum(), leaves, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]


@dataclass
class LossProbe:
    """A model with the initial weights of one seed and a batch, evaluated under one fixed random state.

    `natural` has the layers' outputs on the batch, by name and index of the call, and `observed` the values at sites.
    `averaged` are the names of parameters that an evaluation writes to, such as moving averages; every evaluation
    restores them.
    """

    case: Case
    model: nn.Module
    batch: Tensor
    dtype: torch.dtype
    layers: dict[nn.Module, str]
    code: Code
    natural: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    observed: dict[TensorSite, Tensor] = field(default_factory=dict)
    evaluations: int = 0
    step: int = 0
    steps: int = 300
    averaged: tuple[str, ...] = ()

    def evaluate(
        self,
        changes: Mapping[TensorSite, Change] | None = None,
        hold: bool = False,
        batch: Tensor | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Evaluation:
        """Evaluate the loss with `changes` at their sites; with `hold`, every layer returns its output on the data.

        What the loss or the model draws depends on `seed` alone.
        """
        self.evaluations += 1
        recorder = TensorRecorder(self.layers, changes, self.natural if hold else None, **options)
        rows = (self.batch if batch is None else batch).clone()
        keywords = loss_arguments(self.case, self.step, self.steps)
        with (
            preserved_rng(seed),
            preserved_state(self.model),
            _preserved_parameters(self.model, self.averaged),
            preserved_loss(self.case.losses),
            torch.enable_grad(),
            hooked_model(self.model, self.layers, recorder),
        ):
            terms = self.case.losses(self.model, rows, **keywords)
        return Evaluation(dict(check_terms(self.case, terms)), recorder.record)

    def forward(self, batch: Tensor, changes: Mapping[TensorSite, Change] | None = None) -> Trace:
        """Run one forward pass of the model, without the loss."""
        self.evaluations += 1
        recorder = TensorRecorder(self.layers, changes)
        with preserved_rng(0), preserved_state(self.model), hooked_model(self.model, self.layers, recorder):
            self.model(batch.clone())
        return recorder.record

    def penalties(self) -> list[str]:
        """Return the names of the terms that are penalties."""
        return [name for name in self.evaluate().terms if name != self.case.objective]

    def prefixes(self) -> list[TensorSite]:
        """Return the sites between the bottleneck's layer and the code: raw output, pre-activation."""
        site = self.code.site
        return (
            [] if site is None else [TensorSite(site.layer, site.chain[:length]) for length in range(len(site.chain))]
        )


@contextmanager
def make_probe(case: Case, model: nn.Module, batch: Tensor, widest: bool = True) -> Iterator[LossProbe]:
    """Yield a probe of the model in training mode, in float64 if possible, else in float32 or its own precision.

    Args:
        case: the case of the model and the loss.
        model: a model of the case.
        batch: rows `[sample, *feature]`.
        widest: try float64 first; False uses the model's own precision, in which it will be trained.

    Raises:
        HarnessError: when the model or the loss cannot be evaluated, or the bottleneck is not reached.
    """
    wide = (torch.float64, torch.float32) if widest else ()
    dtype = next((candidate for candidate in wide if _runs(case, model, batch, candidate)), own_precision(model))
    batch = cast_floats(batch, dtype)
    with isolated(model, dtype):
        model.train()
        for parameter in model.parameters():
            parameter.grad = None
        layers = layers_of(model)
        probe = LossProbe(case, model, batch, dtype, layers, _code(case, model, batch, layers))
        parameters = dict(model.named_parameters())
        with _preserved_parameters(model, tuple(parameters)) as written:
            record = _checked(probe).record
        probe.natural = {(call.name, call.index): call.before.detach() for call in record.calls}
        probe.averaged = tuple(written)
        yield probe


@contextmanager
def _preserved_parameters(model: nn.Module, names: tuple[str, ...]) -> Iterator[list[str]]:
    """Restore parameters when the block ends; yield a list that then has the names of those that were changed."""
    parameters = {name: value for name, value in model.named_parameters() if name in names} if names else {}
    before = {name: value.detach().clone() for name, value in parameters.items()}
    written: list[str] = []
    yield written
    for name, value in parameters.items():
        if not torch.equal(value, before[name]):
            written.append(name)
            value.data = before[name]


def _runs(case: Case, model: nn.Module, batch: Tensor, dtype: torch.dtype) -> bool:
    keywords = loss_arguments(case)
    with isolated(model, dtype), preserved_rng(0), preserved_loss(case.losses):
        model.train()
        try:
            with guarded():
                case.losses(model, cast_floats(batch, dtype), **keywords)
        except Exception:  # the same call in the model's own precision reports the error
            return False
    return True


def _checked(probe: LossProbe) -> Evaluation:
    try:
        with guarded():
            return probe.evaluate()
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(probe.case.loss_failure(error)) from error


def _code(case: Case, model: nn.Module, batch: Tensor, layers: dict[nn.Module, str]) -> Code:
    recorder = TensorRecorder(layers)
    try:
        with (
            guarded(),
            preserved_rng(0),
            preserved_state(model),
            BottleneckTap(model, case.bottleneck) as tap,
            hooked_model(model, layers, recorder),
        ):
            model(batch.clone())
    except HarnessError as error:
        raise HarnessError(f"{case.name}: {error}") from error
    except Exception as error:
        raise HarnessError(f"{case.name}: model(batch) {failure(error)}") from error
    view = tap.passes[0]
    try:
        reconstruction_of(view.outputs, batch, case.reconstruction)
    except HarnessError as error:
        raise HarnessError(f"{case.name}: reconstruction: {error}") from error
    code = code_of(view, case.bottleneck)
    site = None if view.holder is None else recorder.site_when(view.holder)
    activation = "softmax" if on_simplex(code.detach()) else view.activation
    return Code(site, activation, code.reshape(len(code), -1).shape[1], code.detach())


def has_schedule(probe: LossProbe) -> bool:
    """True if an evaluation changes attributes or buffers of the model, or the loss names `step` or `progress`."""
    if schedule_keywords(probe.case):
        return True
    modules = [module for module in probe.model.modules() if "Norm" not in type(module).__name__]
    with isolated(probe.model), preserved_rng(0), preserved_loss(probe.case.losses):
        before, counters = [_numbers(module) for module in modules], loss_numbers(probe.case.losses)
        probe.case.losses(probe.model, probe.batch.clone(), **loss_arguments(probe.case, probe.step, probe.steps))
        return before != [_numbers(module) for module in modules] or counters != loss_numbers(probe.case.losses)


def _numbers(module: nn.Module) -> dict[str, object]:
    """Return the plain numbers and the small buffers of a module as values that can be compared."""
    numbers = {name: value for name, value in vars(module).items() if isinstance(value, int | float)}
    buffers = {name: buffer.tolist() for name, buffer in module.named_buffers(recurse=False) if buffer.numel() <= 16}
    return {**numbers, **buffers}


def has_changed(first: float, second: float, scale: float = 0.0, tolerance: float = 1e-9) -> bool:
    """Return True if two values of a term differ by more than rounding; two NaN are equal.

    >>> has_changed(1.0, 1.0 + 1e-12), has_changed(1.0, 1.1), has_changed(math.nan, math.nan)
    (False, True, False)
    """
    if not (math.isfinite(first) and math.isfinite(second)):
        return repr(first) != repr(second)
    return abs(first - second) > tolerance * max(abs(first), abs(second), scale, 1e-12)


def differs(batch: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Return another valid batch: `move` applied to floats; rows repeated and rolled for tokens.

    >>> differs(torch.tensor([[5], [6], [7], [8]]), lambda rows: rows * 2).T
    tensor([[6, 5, 5, 6]])
    """
    return move(batch) if batch.is_floating_point() else batch[torch.arange(len(batch)) // 2].roll(1, 0)


def replace_with(values: Tensor) -> Change:
    """Return a change that puts these values at every instance of a site and keeps the graph."""
    return lambda current, index: current * 0 + _fit(values, current)


def replace_with_leaves(values: Callable[[Tensor, int], Tensor], leaves: list[Tensor]) -> Change:
    """Return a change that puts a new leaf at every instance and appends it to `leaves`."""

    def change(current: Tensor, index: int) -> Tensor:
        leaf = values(current, index).detach().clone().requires_grad_(True)
        leaves.append(leaf)
        return current * 0 + leaf

    return change


def _fit(values: Tensor, current: Tensor) -> Tensor:
    if values.dim() == 0 or values.shape == current.shape:
        return values
    return values.reshape(-1, *current.shape[1:])[: len(current)]
