"""A contender that may start, whatever library it uses."""

from collections.abc import Callable
from dataclasses import dataclass

BATCH = 64
EPOCH = 42  # steps that go once through the source's rows
PIECE = 5  # steps between two looks at the clock


@dataclass(frozen=True)
class Ready:
    """A contender that may start.

    Args:
        work: takes so many steps; the model-steps it did (or billions of operations, or of bytes).
        threads: that it works with.
        steps: that it takes at a time, until the time is over.
        compile_seconds: what a compiler took before.
    """

    work: Callable[[int], float]
    threads: int
    steps: int = PIECE
    compile_seconds: float | None = None
