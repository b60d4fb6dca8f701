"""Which of many snapshots are worth a closer look: a few, spread over the logarithm."""

from collections.abc import Sequence


def log_spaced(epochs: Sequence[int], count: int) -> set[int]:
    """At most `count` of the epochs, the first and the last among them, denser at the beginning.

    >>> sorted(log_spaced(range(31), 8))
    [0, 1, 2, 3, 5, 10, 17, 30]
    """
    last = len(epochs) - 1
    if len(epochs) <= count:
        return set(epochs)
    wanted = (round(last ** (step / (count - 2))) for step in range(count - 1))
    return {epochs[0], epochs[last], *(epochs[min(index, last)] for index in wanted)}
