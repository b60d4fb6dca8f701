"""Training loop of a stack: an iterator over snapshots, independent of trackers and measures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.case import Case
from harness.data.rows import Split
from harness.loss_terms import step_values
from harness.minibatches import batch_bounds
from harness.models import cast_floats
from harness.training.batches import batch_orders, gather_rows
from harness.training.program import State
from harness.training.resampling import resample, resampling_steps
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine
from harness.training.vmap_support import VmapSupport, check_vmap_support


@dataclass(frozen=True)
class Snapshot:
    """State of a stack at a step, valid until the next snapshot is requested.

    Args:
        step: optimizer steps done.
        epoch: epochs done.
        last: True at the end of training.
        losses: term -> mean training loss since the previous snapshot, `[member]`, with `total`; at step 0 the loss
            at initialization.
        diverged: first step whose total was NaN or infinite, -1 for none, `[member]`; after `fit`, 1 for non-finite weights.
        engine: the stack itself: `observe(rows)`, `losses(batch)`, `gradients(batch)`, `state_of(member)`.
        progress: share of the steps done, from 0 to 1.
    """

    step: int
    epoch: int
    last: bool
    losses: State
    diverged: Tensor
    engine: StackedEngine | SequentialEngine
    progress: float = 0.0


def train(
    cases: Sequence[Case],
    seeds: Sequence[int],
    split: Split,
    stacking: VmapSupport | None = None,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> Iterator[Snapshot]:
    """Train one member per (case, seed); all cases have the same structure and training numbers.

    A seed determines the initial weights and the order of rows in every variant.

    Args:
        cases: treated cases.
        seeds: one per member.
        split: the rows.
        stacking: result of `check_vmap_support`, if available.
        device: device of training.
        dtype: precision of floating rows and models; None for that of the rows.

    Yields:
        A snapshot before the first step, every `snapshot_every` epochs, and at the end. A case with `fit` is trained by
        that function in a single step, with a snapshot before and after it.
    """
    inputs = split.train.inputs.to(device)
    inputs = inputs if dtype is None else cast_floats(inputs, dtype)
    targets = None if split.train.targets is None else split.train.targets.to(device)
    stacking = stacking or check_vmap_support(cases[0], inputs, targets=targets)
    engine = _engine(cases, seeds, inputs, stacking)
    numbers = cases[0].training()
    batches = batch_bounds(len(inputs), numbers["batch_size"])
    steps = numbers["epochs"] * len(batches)
    initial = _initial_snapshot(engine, inputs, targets, seeds, batches[0])
    yield initial
    if cases[0].fit is not None and isinstance(engine, SequentialEngine):
        yield _fitted(engine, inputs, targets, seeds, batches[0])
        return
    progress, resampled = RunningLosses(initial.diverged.to(device)), resampling_steps(engine, steps)
    for epoch in range(1, numbers["epochs"] + 1):
        order = batch_orders(seeds, epoch, len(inputs)).to(device)
        for start, end in batches:
            rows, step = order[:, start:end], progress.steps
            batch_targets = None if targets is None else gather_rows(targets, rows)
            extras = step_values(batch_targets, step, step / steps)
            totals, terms = engine.step(gather_rows(inputs, rows), extras)
            progress.add(totals, terms, end - start)
            if progress.steps in resampled:
                resample(engine, inputs, seeds, progress.steps)
        if epoch % numbers["snapshot_every"] == 0 or epoch == numbers["epochs"]:
            last = epoch == numbers["epochs"]
            done = progress.steps / steps
            yield Snapshot(progress.steps, epoch, last, progress.means(), progress.diverged.cpu(), engine, done)


def _fitted(
    engine: SequentialEngine, inputs: Tensor, targets: Tensor | None, seeds: Sequence[int], bounds: tuple[int, int]
) -> Snapshot:
    """Train by the case's own function, as a single step, and return the last snapshot."""
    broken = engine.fit()
    losses = _first_losses(engine, inputs, targets, seeds, bounds, step=1, progress=1.0)
    return Snapshot(1, engine.cases[0].training()["epochs"], True, losses, 2 * broken.long() - 1, engine, 1.0)


class RunningLosses:
    """Running means of the loss terms, and the first step at which a member's total was not finite."""

    def __init__(self, diverged: Tensor) -> None:
        self.steps, self.rows = 0, 0
        self.diverged = diverged
        self._sums: State = {}

    def add(self, totals: Tensor, terms: State, rows: int) -> None:
        """Count one step."""
        self.steps += 1
        self.rows += rows
        # a finite sum has no NaN: one test for all members; on a GPU the test would wait for the device
        if totals.is_cuda or not bool(torch.isfinite(totals.sum())):
            diverging = ~torch.isfinite(totals) & (self.diverged < 0)
            self.diverged = torch.where(diverging, self.steps, self.diverged)
        for name, value in {**terms, "total": totals}.items():
            if name in self._sums:
                self._sums[name].add_(value, alpha=rows)
            else:
                self._sums[name] = value * rows

    def means(self) -> State:
        """Return the means since the last call."""
        means = {name: (value / self.rows).cpu() for name, value in self._sums.items()}
        self._sums, self.rows = {}, 0
        return means


def _engine(
    cases: Sequence[Case], seeds: Sequence[int], inputs: Tensor, stacking: VmapSupport
) -> StackedEngine | SequentialEngine:
    if stacking.rule is None:
        return SequentialEngine(cases, seeds, inputs)
    return StackedEngine(cases, seeds, stacking.rule, inputs, stacking.fixed, stacking.shares)


def _initial_snapshot(
    engine: StackedEngine | SequentialEngine,
    inputs: Tensor,
    targets: Tensor | None,
    seeds: Sequence[int],
    bounds: tuple[int, int],
) -> Snapshot:
    losses = _first_losses(engine, inputs, targets, seeds, bounds)
    diverged = ~torch.isfinite(losses["total"]) if losses else torch.zeros(len(seeds), dtype=torch.bool)
    return Snapshot(0, 0, False, losses, diverged.long() - 1, engine)


def _first_losses(
    engine: StackedEngine | SequentialEngine,
    inputs: Tensor,
    targets: Tensor | None,
    seeds: Sequence[int],
    bounds: tuple[int, int],
    step: int = 0,
    progress: float = 0.0,
) -> State:
    """Return the loss terms on the first batch of the first epoch, `[member]` each."""
    order = batch_orders(seeds, 1, len(inputs))[:, bounds[0] : bounds[1]].to(inputs.device)
    extras = step_values(None if targets is None else gather_rows(targets, order), step, progress)
    return {name: value.cpu() for name, value in engine.losses(gather_rows(inputs, order), extras).items()}
