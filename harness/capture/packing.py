"""Sequences behind the rows of a packed sequence."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from harness.capture.outputs import first_value


@dataclass(frozen=True)
class Packing:
    """Layout of a `PackedSequence`: one row per token, position by position, the longest sequences first.

    Args:
        batch_sizes: `[position]`, number of sequences that are so long.
        order: number of each sorted sequence in the batch; None if the batch was sorted.

    >>> packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(1, 4), torch.zeros(3, 4)], enforce_sorted=False)
    >>> packing = packing_of((packed, None))
    >>> packing.samples, packing.rows, packing.sample_of_rows().tolist(), packing.position_of_rows().tolist()
    (2, 4, [1, 0, 1, 1], [0, 0, 1, 2])
    """

    batch_sizes: Tensor
    order: Tensor | None

    @property
    def samples(self) -> int:
        """Number of sequences."""
        return int(self.batch_sizes[0])

    @property
    def rows(self) -> int:
        """Number of tokens."""
        return int(self.batch_sizes.sum())

    def fits(self, code: Tensor | None) -> bool:
        """Return True for a code with one row per token."""
        return code is not None and len(code) == self.rows

    def sample_of_rows(self) -> Tensor:
        """Return the sequence of each row, from 0."""
        rank = self._places()[:, 1]
        return rank if self.order is None else self.order.cpu()[rank]

    def position_of_rows(self) -> Tensor:
        """Return the place of each row in its sequence, from 0."""
        return self._places()[:, 0]

    def _places(self) -> Tensor:
        """Return the place in its sequence, and the number of the sorted sequence, of each row."""
        return (torch.arange(self.samples) < self.batch_sizes[:, None]).nonzero()


def is_packed(value: Any) -> bool:
    """Return True for a packed sequence, which is a tuple to all others."""
    return isinstance(value, PackedSequence)


def on_device(value: Any, device: torch.device) -> Any:
    """Return a tensor or packed sequence on a device, any other value unchanged."""
    return value.to(device) if isinstance(value, Tensor) or is_packed(value) else value


def packing_of(output: Any) -> Packing | None:
    """Return the layout of an output whose first tensor is that of a packed sequence; None for any other."""
    value = first_value(output)
    return Packing(value.batch_sizes, value.sorted_indices) if isinstance(value, PackedSequence) else None
