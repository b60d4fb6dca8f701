"""Epochs of a training loop, recognized by rows that return."""

from typing import NamedTuple

import torch
from torch import Tensor

SENTINELS = 16
MOST_FEATURES = 16  # of a row, evenly spaced, that tell it from others
EPOCHS_COUNTED = 5  # after which their length is known
MOST_VALUES = 2**16  # of a batch that is kept by reference


class Progress(NamedTuple):
    """Progress after a step.

    Args:
        complete: number of complete epochs.
        rows: rows of the latest complete epoch, or None.
        returning: True if epochs are declared, or rows of the first batch were seen again.
    """

    complete: int
    rows: int | None
    returning: bool


class _Batch(NamedTuple):
    """Inputs of a step, until they are counted; `version` is -1 for a copy."""

    rows: int
    values: Tensor | None
    version: int

    @property
    def changed(self) -> bool:
        return self.values is not None and self.version != -1 and self.values._version != self.version


EMPTY = torch.Size()
NO_ROWS = _Batch(0, None, -1)


class EpochCounter:
    """Counts epochs from the inputs alone.

    Up to 16 distinct rows of the first batch are remembered; an epoch is complete when each of them was seen once more.
    With shuffled batches the count is late by less than one epoch. Rows that never return (augmented, generated) leave it
    at 0. A declared number of steps takes the place of the count, and after 5 epochs their mean length does. A step only
    keeps its inputs; `count` compares them.

    >>> epochs, rows = EpochCounter(None), torch.arange(8.0)[:, None]
    >>> for batch in [*rows.split(4), *rows.split(4), rows[:4]]:
    ...     epochs.add(batch)
    >>> epochs.count()[-1]
    Progress(complete=2, rows=8, returning=True)
    """

    def __init__(self, steps: int | None) -> None:
        self.steps: float | None = steps
        self._first = self._origin = 0  # complete epochs and steps when the length became known
        self._ends: list[int] = []
        self.complete = 0
        self.rows: int | None = None
        self._step = self._rows_seen = self._start = 0
        self._pending: list[_Batch] = []
        self._copying = False  # batches are overwritten by the loop
        self._sentinels: Tensor | None = None
        self._counts = torch.zeros(0, dtype=torch.int64)

    def add(self, inputs: Tensor | None) -> None:
        """Keep the inputs of one step."""
        shape = EMPTY if inputs is None else inputs.shape
        if inputs is None or not len(shape) or not shape[0]:
            self._pending.append(NO_ROWS)
        elif self.steps is not None:
            self._pending.append(_Batch(shape[0], None, -1))
        elif self._copying or shape.numel() > MOST_VALUES or inputs.is_inference():
            self._pending.append(_Batch(shape[0], _features(inputs.detach()).clone(), -1))
        else:
            values = inputs if inputs.grad_fn is None else inputs.detach()  # no graph is kept
            self._pending.append(_Batch(shape[0], values, inputs._version))

    def count(self) -> list[Progress]:
        """Compare the inputs of the steps since the last call, and return the progress after each of these steps."""
        pending, self._pending = self._pending, []
        if self.steps is None and any(batch.changed for batch in pending):
            self._copying, self._sentinels = True, None
            pending = [_Batch(batch.rows, None, -1) for batch in pending]
        if self.steps is not None:
            return [self._after(batch, (0, 0)) for batch in pending]
        sightings = self._sightings(pending)
        return [self._after(batch, sighting) for batch, sighting in zip(pending, sightings, strict=True)]

    def _sightings(self, pending: list[_Batch]) -> list[tuple[int, int]]:
        """Return the smallest and the largest count of the sentinels after each step."""
        counts: list[tuple[int, int]] = []
        position = 0
        while position < len(pending):
            values, end = pending[position].values, position + 1
            if values is None:
                counts.append(counts[-1] if counts else self._range())
            else:
                while end < len(pending) and _alike(pending[end].values, values):
                    end += 1
                batches = [_features(batch.values) for batch in pending[position:end] if batch.values is not None]
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

    def _after(self, batch: _Batch, counts: tuple[int, int]) -> Progress:
        self._step += 1
        if self.steps is not None:
            self._rows_seen += batch.rows
            self._finish(self._first + int((self._step - self._origin) / self.steps))
            return Progress(self.complete, self.rows, True)
        self._finish(counts[0] - 1)
        self._rows_seen += batch.rows
        if self.complete >= EPOCHS_COUNTED and self._step == self._ends[-1]:
            self._learn()
        return Progress(self.complete, self.rows, counts[1] > 1)

    def _learn(self) -> None:
        """Take the mean length of the complete epochs as the length of those to come."""
        steps = (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        self._first, self._origin, self.steps = self.complete, self._step, steps

    def _finish(self, complete: int) -> None:
        if complete > self.complete:
            self.rows, self._start = self._rows_seen - self._start, self._rows_seen
            self.complete = complete
            self._ends.append(self._step)


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
