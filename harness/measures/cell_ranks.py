"""Average ranks of whole numbers by counting, without sorting."""

from torch import Tensor, arange, bincount, where


def cell_ranks(cells: Tensor, few_rows: int) -> Tensor | None:
    """Average rank of each row within its line of `[*member, unit, sample]`, from 1; ties share theirs.

    A line with fewer than `few_rows` rows outside its most frequent cell gets equal ranks.

    Args:
        cells: finite whole numbers.
        few_rows: see above.

    Returns:
        The ranks in float64; None if a line spreads over more cells than it has rows.

    >>> from torch import tensor
    >>> cell_ranks(tensor([[3.0, 0.0, 0.0, 2.0]]), 1).tolist()
    [[4.0, 1.5, 1.5, 3.0]]
    """
    rows = cells.shape[-1]
    lines = cells.reshape(-1, rows)
    number = lines - lines.amin(-1, keepdim=True)
    highest = float(number.amax())
    if not highest < rows:
        return None
    width = int(highest) + 1
    index = number.long() + arange(len(lines))[:, None] * width
    counts = bincount(index.flatten(), minlength=len(lines) * width).reshape(-1, width)
    # the rows before a cell, and the middle of its own
    middle = (counts.cumsum(-1) - counts).double() + (counts.double() + 1) / 2
    varied = rows - counts.amax(-1, keepdim=True) >= few_rows
    ranks = middle.flatten()[index]
    return where(varied, ranks, (rows + 1) / 2).reshape(cells.shape)
