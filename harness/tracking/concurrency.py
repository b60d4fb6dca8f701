"""Requests to a server, several side by side: most of their time is the network's."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

SIDE_BY_SIDE = 8  # requests; MLflow's session keeps 10 connections open
Item = TypeVar("Item")


def for_all(action: Callable[[Item], object], items: Iterable[Item], workers: int = SIDE_BY_SIDE) -> None:
    """Call `action` with every item, `workers` of them at a time.

    After an error the calls that have not begun are dropped; those that have begun are awaited, so that nothing is
    written after the return.

    Raises:
        Exception: the first error in the order of the items.

    >>> squares = []
    >>> for_all(lambda number: squares.append(number**2), [1, 2, 3], workers=1)
    >>> squares
    [1, 4, 9]
    """
    items = list(items)
    if workers == 1 or len(items) < 2:
        for item in items:
            action(item)
        return
    with ThreadPoolExecutor(min(workers, len(items))) as pool:
        calls = [pool.submit(action, item) for item in items]
        try:
            for call in calls:
                call.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
