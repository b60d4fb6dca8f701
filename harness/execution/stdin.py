"""Standard input is nothing that a case may read: its members run in processes of their own, again and again."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from harness.errors import HarnessError


class NoInput(io.TextIOBase):
    """Standard input that nobody is behind: whoever reads it is told so, and waits for nothing."""

    def read(self, size: int | None = -1) -> str:
        """Refused.

        Raises:
            HarnessError: always.
        """
        raise HarnessError(ASKS)

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        """Refused, as `read` is: `input()`, a loop over the lines and a debugger come here."""
        return self.read(size)


@contextmanager
def forbid_stdin() -> Iterator[None]:
    """While this is open, reading standard input is an error of whoever reads it."""
    before, sys.stdin = sys.stdin, NoInput()
    try:
        yield
    finally:
        sys.stdin = before


def take_stdin() -> TextIO:
    """What this process is told on standard input, for its caller alone: from now on others find none there."""
    told = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = NoInput()
    return told


ASKS = (
    "the case reads standard input (input(), sys.stdin or breakpoint()), which the processes that train its members "
    "do not have; write the value into the case, or run it in this process, with --workers 0"
)
