"""Rows grouped by their position in a sample, such as the place of a token in its sequence or of a pixel in its image."""

import torch
from torch import Tensor


class PositionGroups:
    """Groups of rows at one position: a unit that differs only between groups ignores the input.

    Positions with a single row are left out, as they cannot show a difference.

    Args:
        positions: `[sample]` integers.

    >>> groups = PositionGroups(torch.tensor([0, 1, 0, 1, 2]))
    >>> groups.count, [end.tolist() for end in groups.ends(torch.tensor([1.0, 5.0, 1.0, 6.0, 9.0]))]
    (2, [[1.0, 5.0], [1.0, 6.0]])
    """

    def __init__(self, positions: Tensor) -> None:
        _, number, sizes = positions.unique(return_inverse=True, return_counts=True)
        self._rows = (sizes[number] > 1).nonzero()[:, 0]
        _, self._number, sizes = number[self._rows].unique(return_inverse=True, return_counts=True)
        self._sizes = sizes.double()
        self.count = len(sizes)

    def ends(self, lines: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value of `[*member, unit, sample]` at each position, `[*member, unit, position]`."""
        values, number = self._grouped(lines)
        start = values.new_zeros(*values.shape[:-1], self.count)
        low = start.scatter_reduce(-1, number, values, "amin", include_self=False)
        return low, start.scatter_reduce(-1, number, values, "amax", include_self=False)

    def variation(self, lines: Tensor) -> Tensor:
        """Return standard deviation within positions / root mean square of `[*member, unit, sample]`, `[*member, unit]`.

        From 0 (constant at each position) to 1 (mean zero at each).
        """
        values, number = self._grouped(lines)
        size = values.abs().amax(-1, keepdim=True)
        values = values / torch.where(size > 0, size, 1.0)  # squares of 1e200 leave the range of float64
        start = values.new_zeros(*values.shape[:-1], self.count)
        means = start.scatter_add(-1, number, values) / self._sizes
        squares = (values - means.gather(-1, number)).square().sum(-1) / (values.shape[-1] - self.count)
        power = values.square().mean(-1)
        return torch.where(power > 0, (squares / power).sqrt().clamp_max(1.0), 0.0)

    def _grouped(self, lines: Tensor) -> tuple[Tensor, Tensor]:
        values = lines[..., self._rows]
        return values, self._number.expand(values.shape)


def position_groups(positions: Tensor | None) -> PositionGroups | None:
    """Return the groups of rows; None without positions, or where no two rows share one.

    >>> position_groups(torch.arange(3)) is None
    True
    """
    groups = None if positions is None else PositionGroups(positions)
    return groups if groups is not None and groups.count else None
