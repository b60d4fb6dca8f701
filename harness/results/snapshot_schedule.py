"""Choice of the snapshots at which expensive measures are computed."""

from collections.abc import Sequence


def log_spaced(epochs: Sequence[int], count: int) -> set[int]:
    """Choose at most `count` epochs, the first and the last among them, denser at the beginning.

    >>> sorted(log_spaced(range(31), 8))
    [0, 1, 2, 3, 5, 10, 17, 30]
    """
    last = len(epochs) - 1
    if len(epochs) <= count:
        return set(epochs)
    indices = (round(last ** (step / (count - 2))) for step in range(count - 1))
    return {epochs[0], epochs[last], *(epochs[min(index, last)] for index in indices)}
