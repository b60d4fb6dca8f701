"""Refusal of standard input for cases, whose members run in worker processes and repeatedly."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from harness.errors import HarnessError


class NoInput(io.TextIOBase):
    """Standard input that raises an error when it is read."""

    def read(self, size: int | None = -1) -> str:
        """Raise an error.

        Raises:
            HarnessError: always.
        """
        raise HarnessError(NO_STDIN)

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        """Raise an error; `input()`, a loop over lines and a debugger call this method."""
        return self.read(size)


@contextmanager
def forbid_stdin() -> Iterator[None]:
    """Make reading standard input an error inside the block."""
    before, sys.stdin = sys.stdin, NoInput()
    try:
        yield
    finally:
        sys.stdin = before


def take_stdin() -> TextIO:
    """Return standard input for the caller alone; from now on, other code finds it empty."""
    stream = os.fdopen(os.dup(0), encoding="utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = NoInput()
    return stream


NO_STDIN = (
    "the case reads standard input (input(), sys.stdin or breakpoint()), which worker processes do not have; "
    "write the value into the case, or run it in this process, with --workers 0"
)
