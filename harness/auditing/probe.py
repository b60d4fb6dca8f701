"""Evaluations of a case's loss that can be repeated: one model, one batch, one random state, and changes at sites."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.auditing.isolation import isolated, preserved_rng, preserved_state
from harness.auditing.recorder import Change, TensorRecorder, TensorSite, Trace, hooked_model, layers_of
from harness.capture import BottleneckTap, code_of, reconstruction_of
from harness.case import Case
from harness.errors import HarnessError
from harness.loss_terms import check_terms
from harness.models import cast_floats, own_precision
from harness.user_code import failure, guarded


@dataclass(frozen=True)
class Code:
    """Where the bottleneck's activation in use is.

    Args:
        site: the layer and the operations that make it; None where no layer's output leads to it.
        activation: its name.
        units: its width once flattened.
        values: the values on the probe's batch.
    """

    site: TensorSite | None
    activation: str
    units: int
    values: Tensor


@dataclass
class Evaluation:
    """The terms of one evaluation and what was recorded meanwhile."""

    terms: dict[str, Any]
    record: Trace

    def value(self, term: str) -> float:
        """The term as a number, NaN included."""
        found = self.terms[term]
        return float(found.detach().sum()) if isinstance(found, Tensor) else float(found)

    def gradient(self, term: str, leaves: Sequence[Tensor]) -> list[Tensor]:
        """The term's gradient at each leaf, zero where there is none."""
        found = self.terms[term]
        if not isinstance(found, Tensor) or not found.requires_grad or not leaves:
            return [torch.zeros_like(each) for each in leaves]
        gradients = torch.autograd.grad(found.sum(), leaves, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]


@dataclass
class LossProbe:
    """A model with the initial weights of one seed, lent, and a batch, under one fixed random state."""

    case: Case
    model: nn.Module
    batch: Tensor
    dtype: torch.dtype
    layers: dict[nn.Module, str]
    code: Code
    natural: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    evaluations: int = 0

    def evaluate(
        self,
        changes: Mapping[TensorSite, Change] | None = None,
        hold: bool = False,
        batch: Tensor | None = None,
        **options: Any,
    ) -> Evaluation:
        """The loss terms with `changes` at their sites; with `hold`, every layer gives its natural output."""
        self.evaluations += 1
        recorder = TensorRecorder(self.layers, changes, self.natural if hold else None, **options)
        rows = (self.batch if batch is None else batch).clone()
        keywords = {name: self.case.numbers[name] for name in self.case.loss_keywords()}
        with (
            preserved_rng(0),
            preserved_state(self.model),
            torch.enable_grad(),
            hooked_model(self.model, self.layers, recorder),
        ):
            terms = self.case.losses(self.model, rows, **keywords)
        return Evaluation(dict(check_terms(self.case, terms)), recorder.record)

    def forward(self, batch: Tensor, changes: Mapping[TensorSite, Change] | None = None) -> Trace:
        """One forward pass of the model, without its loss."""
        self.evaluations += 1
        recorder = TensorRecorder(self.layers, changes)
        with preserved_rng(0), preserved_state(self.model), hooked_model(self.model, self.layers, recorder):
            self.model(batch.clone())
        return recorder.record

    def penalties(self) -> list[str]:
        """The names of the terms that are penalties."""
        return [name for name in self.evaluate().terms if name != "reconstruction"]

    def prefixes(self) -> list[TensorSite]:
        """The sites before the code on its way from the bottleneck's layer: its raw output, its pre-activation."""
        site = self.code.site
        return (
            [] if site is None else [TensorSite(site.layer, site.chain[:length]) for length in range(len(site.chain))]
        )


@contextmanager
def make_probe(case: Case, model: nn.Module, batch: Tensor, widest: bool = True) -> Iterator[LossProbe]:
    """The model in training mode and float64 where it can be, else float32 or its own precision, ready to be evaluated.

    Args:
        case: what is evaluated. model: of the case. batch: rows `[sample, *feature]`.
        widest: whether float64 is tried; else the model's own precision holds, in which it will be trained.

    Raises:
        HarnessError: when the model or the loss cannot be evaluated, or the bottleneck is never reached.
    """
    wide = (torch.float64, torch.float32) if widest else ()
    dtype = next((each for each in wide if _runs(case, model, batch, each)), own_precision(model))
    batch = cast_floats(batch, dtype)
    with isolated(model, dtype):
        model.train()
        for parameter in model.parameters():
            parameter.grad = None
        layers = layers_of(model)
        probe = LossProbe(case, model, batch, dtype, layers, _code(case, model, batch, layers))
        record = _checked(probe).record
        probe.natural = {(call.name, call.index): call.before.detach() for call in record.calls}
        yield probe


def _runs(case: Case, model: nn.Module, batch: Tensor, dtype: torch.dtype) -> bool:
    keywords = {name: case.numbers[name] for name in case.loss_keywords()}
    with isolated(model, dtype), preserved_rng(0):
        model.train()
        try:
            with guarded():
                case.losses(model, cast_floats(batch, dtype), **keywords)
        except Exception:  # whatever it is, the same call in the model's own precision will tell it to the user
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
    seen = tap.passes[0]
    try:
        reconstruction_of(seen.outputs, batch, case.reconstruction)
    except HarnessError as error:
        raise HarnessError(f"{case.name}: reconstruction: {error}") from error
    code = code_of(seen, case.bottleneck)
    site = None if seen.holder is None else recorder.site_when(seen.holder)
    return Code(site, seen.activation, code.reshape(len(code), -1).shape[1], code.detach())


def has_changed(first: float, second: float, scale: float = 0.0, tolerance: float = 1e-9) -> bool:
    """Whether two values of a term differ by more than rounding; two NaN are the same.

    >>> has_changed(1.0, 1.0 + 1e-12), has_changed(1.0, 1.1), has_changed(math.nan, math.nan)
    (False, True, False)
    """
    if not (math.isfinite(first) and math.isfinite(second)):
        return repr(first) != repr(second)
    return abs(first - second) > tolerance * max(abs(first), abs(second), scale, 1e-12)


def differs(batch: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """Another batch that the model takes: quantities moved as told; of tokens other rows, since no other are known.

    >>> differs(torch.tensor([[5], [6], [7], [8]]), lambda rows: rows * 2).T
    tensor([[6, 5, 5, 6]])
    """
    return move(batch) if batch.is_floating_point() else batch[torch.arange(len(batch)) // 2].roll(1, 0)


def replace_with(values: Tensor) -> Change:
    """A change that puts these values at every instance of a site, still in the graph of what was there."""
    return lambda found, index: found * 0 + _fit(values, found)


def replace_with_leaves(values: Callable[[Tensor, int], Tensor], leaves: list[Tensor]) -> Change:
    """A change that puts a fresh leaf at every instance, and keeps the leaves for gradients."""

    def change(found: Tensor, index: int) -> Tensor:
        leaf = values(found, index).detach().clone().requires_grad_(True)
        leaves.append(leaf)
        return found * 0 + leaf

    return change


def _fit(values: Tensor, found: Tensor) -> Tensor:
    if values.dim() == 0 or values.shape == found.shape:
        return values
    return values.reshape(-1, *found.shape[1:])[: len(found)]
