"""When Python looks for garbage: libraries make half a million objects that stay, and each look goes through them."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 10_000  # since the last look; Python's own is 700


def raise_gc_threshold() -> None:
    """In a process of our own, before libraries load: a quarter of a second for torch alone."""
    gc.set_threshold(NEW_OBJECTS)


def freeze_gc() -> None:
    """At the end of a process of our own: Python would look through everything once more, two seconds after a run."""
    gc.freeze()


@contextmanager
def gc_paused() -> Iterator[None]:
    """No look while so much is made that stays: each takes up to .3 seconds."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
