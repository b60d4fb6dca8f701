"""History of the steps of a layer, in a bounded amount of memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MOST_STEPS = 4096  # at more, steps at twice the distance
MOST_RECORDS = 2**22  # steps x units, about 100 MiB


@dataclass(frozen=True)
class Steps:
    """Measures of several steps: `step` and `rows` `[step]`, the others `[step, unit]`.

    `gradients` has one dict per step, term -> `[unit]`, which may be filled later.
    """

    step: NDArray[np.int64]
    rows: NDArray[np.int64]
    activation_frequency: NDArray[Any]
    mean: NDArray[Any]
    sd: NDArray[Any]
    dead: NDArray[np.bool_]
    gradients: list[dict[str, Tensor]]

    def __len__(self) -> int:
        return len(self.step)

    def each(self, distance: int, start: int = 0) -> "Steps":
        """Return a copy of each `distance`-th step."""
        arrays = {name: getattr(self, name)[start::distance].copy() for name in ARRAYS}
        return Steps(**arrays, gradients=self.gradients[start::distance])


@dataclass
class StepHistory:
    """History of a layer: all steps, or if they are too many, steps at equal distances.

    >>> history = StepHistory()
    >>> for step in range(1, 9001):
    ...     one = np.zeros((1, 2))
    ...     history.add(Steps(np.array([step]), np.array([64]), one, one, one, one > 0, [{}]))
    >>> len(history), history.steps().step[:3].tolist()
    (2250, [1, 5, 9])
    """

    distance: int = 1
    _count: int = 0
    _blocks: list[Steps] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def add(self, steps: Steps) -> None:
        """Add steps."""
        start = -self._count % self.distance
        self._count += len(steps)
        thinned = steps if self.distance == 1 else steps.each(self.distance, start)
        if not len(thinned):
            return
        self._blocks.append(thinned)
        most = min(MOST_STEPS, max(8, MOST_RECORDS // max(1, thinned.mean.shape[1])))
        while len(self) > most:
            self.distance *= 2
            self._blocks = [joined(self._blocks).each(2)]

    def replace(self, steps: Steps) -> None:
        """Replace all steps."""
        self._blocks = [steps]

    def steps(self) -> Steps | None:
        """Return all steps; None without any."""
        if len(self._blocks) > 1:
            self._blocks = [joined(self._blocks)]
        return self._blocks[0] if self._blocks else None

    def entries(self, first: int = 0) -> Iterator[dict[str, Any]]:
        """Iterate over the steps from the number `first`, as one dict each."""
        for block in self._blocks:
            for index in np.flatnonzero(block.step >= first):
                entry = {name: getattr(block, name)[index] for name in ARRAYS}
                yield {**entry, "step": int(entry["step"]), "gradients": block.gradients[index]}


def joined(blocks: Sequence[Steps]) -> Steps:
    """Return blocks as one."""
    arrays = {name: np.concatenate([getattr(block, name) for block in blocks]) for name in ARRAYS}
    return Steps(**arrays, gradients=[gradients for block in blocks for gradients in block.gradients])


ARRAYS = ("step", "rows", "activation_frequency", "mean", "sd", "dead")
