"""Garbage collection beside work that makes many objects in a process that holds many."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sparing() -> Iterator[None]:
    """Collections leave alone what is there already: to walk the libraries' objects takes a quarter of a second each time.

    Where somebody has frozen objects himself, nothing is changed: thawing ours would thaw his.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
