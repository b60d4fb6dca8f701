"""The batches of an epoch: their bounds and their number. Imports no torch, so that plans are instant."""


def batch_bounds(rows: int, batch_size: int) -> list[tuple[int, int]]:
    """First and last row of each batch of an epoch. A last batch of a single row is left out: it has no variance.

    >>> batch_bounds(10, 4)
    [(0, 4), (4, 8), (8, 10)]
    >>> batch_bounds(9, 4)
    [(0, 4), (4, 8)]
    """
    bounds = [(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]
    return bounds[: steps_per_epoch(rows, batch_size)]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps of one epoch: a smaller last batch counts, unless it is a single row after larger ones.

    >>> [steps_per_epoch(rows, 64) for rows in (1, 64, 65, 66, 128)]
    [1, 1, 1, 2, 2]
    """
    batches = -(-rows // batch_size)
    single_row_left = batch_size > 1 and batches > 1 and rows % batch_size == 1
    return batches - 1 if single_row_left else batches
