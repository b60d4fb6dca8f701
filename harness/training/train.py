"""A stack becomes snapshots. Training yields and knows no tracker; the caller decides what is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.case import Case
from harness.data.rows import Split
from harness.minibatches import batch_bounds
from harness.models import cast_floats
from harness.training.batches import batch_orders, gather_rows
from harness.training.program import State
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine
from harness.training.vmap_support import VmapSupport, check_vmap_support


@dataclass(frozen=True)
class Snapshot:
    """What is seen of a stack at a step. Valid until the next one is asked for.

    Args:
        step: optimiser steps done.
        epoch: epochs done.
        last: whether training ends here.
        losses: term -> mean training loss since the previous snapshot, `[member]`, with `total`; at step 0 the loss
            at initialisation.
        diverged: first step whose total was NaN or infinite, -1 where there was none, `[member]`.
        engine: the stack itself: `observe(rows)`, `losses(batch)`, `gradients(batch)`, `state_of(member)`.
    """

    step: int
    epoch: int
    last: bool
    losses: State
    diverged: Tensor
    engine: StackedEngine | SequentialEngine


def train(
    cases: Sequence[Case],
    seeds: Sequence[int],
    split: Split,
    stacking: VmapSupport | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> Iterator[Snapshot]:
    """Train one member per (case, seed); all cases share one structure and one set of training numbers.

    The same seed means the same initial weights and the same order of rows in every variant.

    Args:
        cases: treated cases.
        seeds: one a member.
        split: what is trained on.
        stacking: how the case trains, where it is known already.
        device: where.
        dtype: another precision for rows of floats and the models; None trains in that of the rows, the model's own.

    Yields:
        A snapshot before the first step, every `snapshot_every` epochs, and at the end.
    """
    inputs = split.train.inputs.to(device)
    inputs = inputs if dtype is None else cast_floats(inputs, dtype)
    stacking = stacking or check_vmap_support(cases[0], inputs)
    engine = _engine(cases, seeds, inputs, stacking)
    numbers = cases[0].training()
    batches = batch_bounds(len(inputs), numbers["batch_size"])
    birth = _birth(engine, inputs, seeds, batches[0])
    yield birth
    progress = RunningLosses(birth.diverged.to(device))
    for epoch in range(1, numbers["epochs"] + 1):
        order = batch_orders(seeds, epoch, len(inputs)).to(device)
        for start, end in batches:
            totals, terms = engine.step(gather_rows(inputs, order[:, start:end]))
            progress.add(totals, terms, end - start)
        if epoch % numbers["snapshot_every"] == 0 or epoch == numbers["epochs"]:
            last = epoch == numbers["epochs"]
            yield Snapshot(progress.steps, epoch, last, progress.means(), progress.diverged.cpu(), engine)


class RunningLosses:
    """Running means of the loss terms, and the first step at which a member's total was no number."""

    def __init__(self, diverged: Tensor) -> None:
        self.steps, self.rows = 0, 0
        self.diverged = diverged
        self._sums: State = {}

    def add(self, totals: Tensor, terms: State, rows: int) -> None:
        """Count one step."""
        self.steps += 1
        self.rows += rows
        # a sum of finite numbers that is finite has no NaN in it: one look, not one per member; a GPU is not waited for
        if totals.is_cuda or not bool(torch.isfinite(totals.sum())):
            lost = ~torch.isfinite(totals) & (self.diverged < 0)
            self.diverged = torch.where(lost, self.steps, self.diverged)
        for name, value in {**terms, "total": totals}.items():
            if name in self._sums:
                self._sums[name].add_(value, alpha=rows)
            else:
                self._sums[name] = value * rows

    def means(self) -> State:
        """The means since the last call."""
        means = {name: (value / self.rows).cpu() for name, value in self._sums.items()}
        self._sums, self.rows = {}, 0
        return means


def _engine(
    cases: Sequence[Case], seeds: Sequence[int], inputs: Tensor, stacking: VmapSupport
) -> StackedEngine | SequentialEngine:
    if stacking.rule is None:
        return SequentialEngine(cases, seeds, inputs)
    return StackedEngine(cases, seeds, stacking.rule, inputs, stacking.fixed, stacking.shares)


def _birth(
    engine: StackedEngine | SequentialEngine, inputs: Tensor, seeds: Sequence[int], bounds: tuple[int, int]
) -> Snapshot:
    order = batch_orders(seeds, 1, len(inputs))[:, bounds[0] : bounds[1]].to(inputs.device)
    losses = engine.losses(gather_rows(inputs, order))
    lost = ~torch.isfinite(losses["total"].cpu())
    return Snapshot(0, 0, False, {name: value.cpu() for name, value in losses.items()}, lost.long() - 1, engine)
