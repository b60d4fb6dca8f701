"""Epochs of a training loop, recognized by rows that return."""

import torch
from torch import Tensor

SENTINELS = 16


class EpochCounter:
    """Counts epochs from the inputs alone.

    Up to 16 distinct rows of the first batch are remembered; an epoch is complete when each of them was seen once more.
    With shuffled batches the count is late by less than one epoch. Rows that never return (augmented, generated) leave it
    at 0. A declared number of steps takes the place of the count.

    >>> epochs, rows = EpochCounter(None), torch.arange(8.0)[:, None]
    >>> for batch in [*rows.split(4), *rows.split(4), rows[:4]]:
    ...     epochs.add(batch)
    >>> epochs.complete, epochs.rows
    (2, 8)
    """

    def __init__(self, steps: int | None) -> None:
        self.steps = steps
        self.complete = 0
        self.rows: int | None = None  # rows of the latest epoch, once one is complete
        self._step = self._seen = self._start = 0
        self._sentinels: Tensor | None = None
        self._counts = torch.zeros(0)

    def add(self, inputs: Tensor | None) -> None:
        """Count the inputs of one step."""
        self._step += 1
        if self.steps is not None:
            self._count(self._step // self.steps, 0 if inputs is None else len(inputs))
            return
        if inputs is None or inputs.dim() == 0 or not len(inputs):
            return
        keys = _row_keys(inputs)
        if self._sentinels is None:
            self._sentinels = keys.unique()[:SENTINELS]
            self._counts = torch.zeros(len(self._sentinels))
        self._counts += torch.isin(self._sentinels, keys)
        self._count(int(self._counts.min()) - 1, len(inputs))

    @property
    def returning(self) -> bool:
        """True if epochs are declared, or rows of the first batch were seen again."""
        return self.steps is not None or (len(self._counts) > 0 and bool(self._counts.max() > 1))

    def _count(self, complete: int, rows: int) -> None:
        if self.steps is not None:
            self._seen += rows
        if complete > self.complete:
            self.rows, self._start = self._seen - self._start, self._seen
            self.complete = complete
        if self.steps is None:
            self._seen += rows


def _row_keys(inputs: Tensor) -> Tensor:
    values = inputs.detach().reshape(len(inputs), -1)
    weights = torch.sin(torch.arange(1.0, values.shape[1] + 1, dtype=torch.float64))
    return values.cpu().double() @ weights
