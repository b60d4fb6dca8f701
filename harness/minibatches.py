"""Bounds and number of the batches of an epoch. Imports no torch, so that plans are fast."""


def batch_bounds(rows: int, batch_size: int) -> list[tuple[int, int]]:
    """Return the bounds of each batch of an epoch, without a last batch of a single row, which has no variance.

    >>> batch_bounds(10, 4)
    [(0, 4), (4, 8), (8, 10)]
    >>> batch_bounds(9, 4)
    [(0, 4), (4, 8)]
    """
    bounds = [(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]
    return bounds[: steps_per_epoch(rows, batch_size)]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Return the number of optimizer steps per epoch; a last batch of a single row after larger ones does not count.

    >>> [steps_per_epoch(rows, 64) for rows in (1, 64, 65, 66, 128)]
    [1, 1, 1, 2, 2]
    """
    batches = -(-rows // batch_size)
    ends_in_single_row = batch_size > 1 and batches > 1 and rows % batch_size == 1
    return batches - 1 if ends_in_single_row else batches
