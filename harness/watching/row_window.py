"""Window of the latest rows of a layer."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

LEAST_ROWS = 1000  # 0 of 1,000 rows puts a frequency below 0.0037 (Clopper-Pearson)
MOST_ROWS = 8192  # of a longer epoch, random rows of every step
MOST_UNITS = 2**13  # of a wider layer, units evenly spaced: their diagnosis takes some seconds
MOST_VALUES = 2**25  # 128 MiB of float32


@dataclass(frozen=True)
class Block:
    """Rows of steps of equal shape.

    Args:
        values: `[step, row, unit]`.
        first: number of the first step's first sample in the training.
        samples: samples of each step.
        sample, position: sample of each row within its step, and its place in the sample; None if each row is a sample.
        labels: one tensor per step, or None.
        start: first step that is in the window.
    """

    values: Tensor
    first: int
    samples: int
    sample: Tensor | None
    position: Tensor | None
    labels: Sequence[Tensor | None]
    start: int = 0

    @property
    def rows(self) -> int:
        """Rows of a step."""
        return self.values.shape[1]

    @property
    def size(self) -> int:
        """Rows in the window."""
        return (len(self.values) - self.start) * self.rows

    def within(self) -> Tensor:
        """Return the sample of each row within its step."""
        return torch.arange(self.rows) if self.sample is None else self.sample

    def thinned(self, count: int, generator: torch.Generator) -> "Block":
        """Return the block with `count` rows of each step; see `drawn_rows`."""
        index = drawn_rows(self.rows, count, generator)
        position = None if self.position is None else self.position[index]
        values = self.values[:, index.to(self.values.device)]
        return replace(self, values=values, sample=self.within()[index], position=position)

    def all_samples(self) -> Tensor:
        """Return the sample of each row in the training."""
        return (self._first_samples()[:, None] + self.within()).flatten()

    def all_places(self) -> tuple[Tensor, Tensor]:
        """Return the first sample of the step of each row, which tells steps apart, and its place in the sample."""
        position = torch.zeros(self.rows, dtype=torch.long) if self.position is None else self.position
        steps = self._first_samples()
        return steps.repeat_interleave(self.rows), position.repeat(len(steps))

    def _first_samples(self) -> Tensor:
        return self.first + self.samples * torch.arange(self.start, len(self.values))

    def all_labels(self) -> Tensor | None:
        """Return the label of each row, if all have one."""
        within = self.within()
        labels = [None if step is None or len(step) != self.samples else step for step in self.labels[self.start :]]
        tensors = [step.detach().cpu()[within] for step in labels if step is not None]
        return torch.cat(tensors) if tensors and len(tensors) == len(labels) else None


def drawn_rows(rows: int, count: int, generator: torch.Generator) -> Tensor:
    """Return the numbers of `count` of the rows, drawn without replacement, in their order.

    Rows at equal distances would be few positions of a sequence, again and again.
    """
    return torch.randperm(rows, generator=generator)[:count].sort().values


class RowWindow:
    """The latest rows: at least those of `window` rows, in whole steps, and a bounded number of values.

    >>> window = RowWindow()
    >>> for _ in range(5):
    ...     window.add(Block(torch.zeros(1, 400, 2), 0, 400, None, None, [None]), 1000)
    >>> len(window.rows()["values"])
    1200
    """

    def __init__(self) -> None:
        self.sampled: Tensor | None = None  # the units, if not all
        self.blocks: deque[Block] = deque()
        self._size = 0
        self._generator = torch.Generator().manual_seed(0)  # its own: the global one is the model's

    def add(self, block: Block, window: int) -> None:
        """Add a block, and drop the oldest steps that a window of `window` rows does not need."""
        units = block.values.shape[2]
        if units > MOST_UNITS:
            self.sampled = torch.linspace(0, units - 1, MOST_UNITS).long()
            block = replace(block, values=block.values[..., self.sampled.to(block.values.device)])
        most_rows = max(LEAST_ROWS, min(MOST_ROWS, MOST_VALUES // min(units, MOST_UNITS)))
        most = min(window, most_rows)
        share = min(block.rows, max(1, -(-block.rows * most // max(window, 1))), most_rows)
        if share < block.rows:
            block = block.thinned(share, self._generator)
        needless = max(0, len(block.values) - -(-most // max(block.rows, 1)))
        values = block.values[needless:].cpu()
        block = replace(
            block, values=values, first=block.first + needless * block.samples, labels=block.labels[needless:]
        )
        self.blocks.append(block)
        self._size += block.size
        while self.blocks and self._size - self.blocks[0].rows >= most:
            oldest = self.blocks[0]
            steps = min((self._size - most) // max(1, oldest.rows), len(oldest.values) - oldest.start)
            self._size -= steps * oldest.rows
            if oldest.start + steps == len(oldest.values):
                self.blocks.popleft()
            else:
                self.blocks[0] = replace(oldest, start=oldest.start + steps)

    def rows(self) -> dict[str, Tensor]:
        """Return `values`, `sample`, `place`, and `labels` where every step brought them; nothing without rows.

        Rows with equal `place` are of one step and one position in their samples.
        """
        if not self.blocks:
            return {}
        steps, positions = map(torch.cat, zip(*(block.all_places() for block in self.blocks), strict=True))
        rows = {
            "values": torch.cat([block.values[block.start :].flatten(0, 1) for block in self.blocks]),
            "sample": torch.cat([block.all_samples() for block in self.blocks]),
            "place": steps * (1 + int(positions.max())) + positions,
        }
        labels = [block.all_labels() for block in self.blocks]
        tensors = [block for block in labels if block is not None]
        return {**rows, "labels": torch.cat(tensors)} if len(tensors) == len(labels) else rows
