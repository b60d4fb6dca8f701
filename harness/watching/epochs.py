"""Epochs of a training loop, recognized by rows that return."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SENTINELS = 16
MOST_FEATURES = 16  # of a row, evenly spaced, that tell it from others
EPOCHS_COUNTED = 5  # after which their length is known
MOST_VALUES = 2**16  # of a batch that is kept by reference
MOST_BATCHES = 128  # kept by reference: a batch of a loader's worker holds a file descriptor


class Progress(NamedTuple):
    """Progress after each of some steps, `[step]`.

    Args:
        complete: number of complete epochs.
        rows: rows of the latest complete epoch; 0 before there is one.
        returning: True if epochs are declared, or rows of the first batch were seen again.
    """

    complete: NDArray[np.int64]
    rows: NDArray[np.int64]
    returning: NDArray[np.bool_]


# rows, inputs (None where they are not compared) and their version (-1 for a copy) of a step, until it is counted
_Batch = tuple[int, Tensor | None, int]
NO_ROWS: _Batch = (0, None, -1)


class EpochCounter:
    """Counts epochs from the inputs alone.

    Up to 16 distinct rows of the first batch are remembered; an epoch is complete when each of them was seen once more.
    With shuffled batches the count is late by less than one epoch. Rows that never return (augmented, generated) leave it
    at 0. A declared number of steps takes the place of the count, and after 5 epochs their mean length does; the inputs of
    the steps that follow need not be added. A step only keeps its inputs; they are compared 128 steps at a time.

    >>> epochs, rows = EpochCounter(None), torch.arange(8.0)[:, None]
    >>> for batch in [*rows.split(4), *rows.split(4), rows[:4]]:
    ...     epochs.add(batch)
    >>> [column.tolist() for column in epochs.progress(np.array([2, 5]))]
    [[0, 2], [0, 8], [False, True]]
    """

    def __init__(self, steps: int | None) -> None:
        self.steps: float | None = steps
        self._first = self._origin = 0  # complete epochs and steps when the length became known
        self._batch = 0.0  # rows of a step, when the length is known
        self._asked = 0  # steps of a declared length
        self._ends: list[int] = []
        self.complete = self.rows = 0
        self._step = self._rows_seen = self._start = self._first_rows = 0
        self._pending: list[_Batch] = []
        self._counted: list[tuple[int, int, bool]] = []  # progress after the latest steps up to `_step`
        self._copying = False  # batches are overwritten by the loop
        self._sentinels: Tensor | None = None
        self._counts = torch.zeros(0, dtype=torch.int64)

    def add(self, inputs: Tensor | None) -> None:
        """Keep the inputs of one step."""
        if inputs is None or not inputs.dim() or not inputs.size(0):
            self._pending.append(NO_ROWS)
        elif self.steps is not None:
            if not self._ends:  # a declared length; of a counted one, the rows of a step are known
                self._rows_seen, self._asked = self._rows_seen + inputs.size(0), self._asked + 1
                self._batch = self._rows_seen / self._asked
            return
        elif self._copying or inputs.numel() > MOST_VALUES or inputs.is_inference():
            self._pending.append((inputs.size(0), _features(inputs.detach()).clone(), -1))
        else:
            values = inputs if inputs.grad_fn is None else inputs.detach()  # no graph is kept
            self._pending.append((inputs.size(0), values, inputs._version))
        if len(self._pending) >= MOST_BATCHES:
            self._compare()

    def progress(self, steps: NDArray[np.int64]) -> Progress:
        """Compare the inputs that were kept, and return the progress after steps that were not asked for earlier."""
        self._compare()
        counted, self._counted = self._counted, []
        first = self._step - len(counted) + 1
        entries = [counted[step - first] if step <= self._step else self._at(step) for step in steps.tolist()]
        complete, rows, returning = zip(*entries, strict=True) if entries else ((), (), ())
        return Progress(np.array(complete, np.int64), np.array(rows, np.int64), np.array(returning, bool))

    def _at(self, step: int) -> tuple[int, int, bool]:
        """Return the progress after a step of an epoch of known length."""
        assert self.steps is not None
        complete = self._first + int((step - self._origin) / self.steps)
        return complete, round(self._batch * self.steps) if complete else 0, True

    def _compare(self) -> None:
        pending, self._pending = self._pending, []
        if self.steps is not None:
            return
        if any(map(_is_changed, pending)):
            self._copying, self._sentinels = True, None
            pending = [(rows, None, -1) for rows, _, _ in pending]
        for (rows, _, _), sightings in zip(pending, self._sightings(pending), strict=True):
            if self.steps is None:
                self._count(rows, sightings)

    def _sightings(self, pending: list[_Batch]) -> list[tuple[int, int]]:
        """Return the smallest and the largest count of the sentinels after each step."""
        counts: list[tuple[int, int]] = []
        position = 0
        while position < len(pending):
            values, end = pending[position][1], position + 1
            if values is None:
                counts.append(counts[-1] if counts else self._range())
            else:
                while end < len(pending) and _alike(pending[end][1], values):
                    end += 1
                batches = [_features(batch) for _, batch, _ in pending[position:end] if batch is not None]
                with torch.no_grad():
                    keys = _row_keys(torch.stack(batches))
                counts += self._add_keys(keys)
            position = end
        return counts

    def _add_keys(self, keys: Tensor) -> list[tuple[int, int]]:
        """Count the sentinels among keys `[step, row]`; return the smallest and the largest count after each step."""
        if self._sentinels is None:
            self._sentinels = _distinct(keys[0])[:SENTINELS]
            self._counts = torch.full((len(self._sentinels),), self.complete)
        # products of equal rows can differ in the last bits with the row's position
        distance = (keys[..., None] - self._sentinels).abs()
        repeated = (distance <= 1e-12 * self._sentinels.abs()).any(1)
        counts = self._counts + repeated.cumsum(0)
        self._counts = counts[-1]
        low, high = counts.amin(-1).tolist(), counts.amax(-1).tolist()
        return list(zip(low, high, strict=True))

    def _range(self) -> tuple[int, int]:
        return (int(self._counts.min()), int(self._counts.max())) if len(self._counts) else (1, 1)

    def _count(self, rows: int, sightings: tuple[int, int]) -> None:
        """Count a step after which the sentinels were seen between `sightings` times."""
        self._step += 1
        self._finish(sightings[0] - 1)
        self._rows_seen += rows
        entry = (self.complete, self.rows, sightings[1] > 1)
        # equal entries are one object: there may be very many
        self._counted.append(self._counted[-1] if self._counted and self._counted[-1] == entry else entry)
        if self.complete >= EPOCHS_COUNTED and self._step == self._ends[-1]:
            # the mean length of the complete epochs is the length of those to come
            epochs = len(self._ends) - 1
            steps, self._first, self._origin = self._ends[-1] - self._ends[0], self.complete, self._step
            self.steps, self._batch = steps / epochs, (self._start - self._first_rows) / steps

    def _finish(self, complete: int) -> None:
        if complete > self.complete:
            self.rows, self._start = self._rows_seen - self._start, self._rows_seen
            if not self._ends:
                self._first_rows = self._rows_seen
            self.complete = complete
            self._ends.append(self._step)


def _is_changed(batch: _Batch) -> bool:
    _, values, version = batch
    return values is not None and version != -1 and values._version != version


def _alike(values: Tensor | None, first: Tensor) -> bool:
    return values is not None and values.shape == first.shape and values.device == first.device


def _features(values: Tensor) -> Tensor:
    """Return some numbers of each row, evenly spaced."""
    values = values.flatten(1) if values.dim() > 1 else values[:, None]
    stride = values.shape[1] // MOST_FEATURES
    return values if stride <= 1 else values[:, : stride * MOST_FEATURES : stride]


def _row_keys(batches: Tensor) -> Tensor:
    """Return one number per row of `[step, row, feature]`, the same up to rounding for equal rows."""
    values = batches.double()
    weights = torch.sin(torch.arange(1.0, values.shape[-1] + 1, dtype=torch.float64, device=values.device))
    return (values @ weights).cpu()


def _distinct(keys: Tensor) -> Tensor:
    """Return keys that differ by more than rounding, in increasing order."""
    keys = keys.sort().values
    gap = keys.diff().abs() > 1e-9 * keys[1:].abs()
    return torch.cat([keys[:1], keys[1:][gap]])
