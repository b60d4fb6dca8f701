"""Sample of a layer's values over a whole training, in a bounded amount of memory."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_UNITS = 2**11  # of a wider layer, units evenly spaced
MOST_ROWS = 2**14  # of all steps; at more, steps at twice the distance
MOST_VALUES = 2**23  # 32 MiB of float32
STEPS = 64  # that are kept at least, of a training that has them
LEAST_STEP_ROWS = 16  # of a step with so many


class ValueHistory:
    """Values of the units at steps at equal distances: all rows of a step, or some at random.

    >>> history = ValueHistory()
    >>> history.add(range(1, 301), torch.zeros(300, 1000, 2), None)
    >>> len(history.steps), history.steps[:3], history.steps[1][1].shape
    (38, [(1, tensor...), (9, tensor...), (17, tensor...)], torch.Size([256, 2]))
    """

    def __init__(self) -> None:
        self.units: NDArray[np.int64] = np.zeros(0, np.int64)  # numbers of the kept units
        self.total = 0  # units of the layer
        self.steps: list[tuple[int, Tensor]] = []  # number of the step, values [row, unit]
        self.distance = 1
        self._count = self._rows = 0
        self._generator = torch.Generator().manual_seed(0)  # its own: the global one is the model's

    def add(self, steps: Sequence[int], values: Tensor, judged: Tensor | None) -> None:
        """Add steps of equal shape.

        Args:
            steps: their numbers.
            values: `[step, row, unit]`.
            judged: numbers of the units that are judged; None for all.
        """
        start = -self._count % self.distance
        self._count += len(steps)
        numbers = list(steps)[start :: self.distance]
        if not numbers:
            return
        rows, self.total = values.shape[1:]
        units = torch.arange(self.total) if judged is None else judged
        if len(units) > MOST_UNITS:
            units = units[torch.linspace(0, len(units) - 1, MOST_UNITS).long()]
        self.units = units.numpy()
        most = min(MOST_ROWS, MOST_VALUES // max(1, len(units)))
        step_rows = max(LEAST_STEP_ROWS, most // STEPS)
        part = values[start :: self.distance]
        if rows > step_rows:
            index = torch.randperm(rows, generator=self._generator)[:step_rows].sort().values
            part = part[:, index.to(values.device)]
        if len(units) < self.total:
            part = part[..., units.to(values.device)]
        self.steps += zip(numbers, part.detach().float().cpu().clone().unbind(), strict=True)
        self._rows += part.shape[0] * part.shape[1]
        while self._rows > most and len(self.steps) > 1:
            self.distance *= 2
            # copies, because a view would keep the rows of the other steps
            self.steps = [(step, block.clone()) for step, block in self.steps[::2]]
            self._rows = sum(len(block) for _, block in self.steps)
