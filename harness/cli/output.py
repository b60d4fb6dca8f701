"""Standard output: with `--json` one document and nothing else, even if the case's code prints."""

import ctypes
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else.")]


def print_json(document: Mapping[str, Any]) -> None:
    """Print a JSON document, with its schema version; numbers that are not finite become null."""
    from harness.results.files import with_schema_version

    print(json.dumps(_finite(with_schema_version(document)), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def stdout_to_stderr(redirect: bool) -> Iterator[None]:
    """Redirect standard output to standard error inside the block, if `redirect`.

    A case's code may print, or write to descriptor 1, as compiled code and child processes do.
    """
    if not redirect:
        yield
        return
    with redirect_stdout(sys.stderr), _descriptor_to_stderr():
        yield


@contextmanager
def _descriptor_to_stderr() -> Iterator[None]:
    try:
        before = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        yield
        return
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # output that compiled code still buffers
        os.dup2(before, 1)
        os.close(before)


def console(width: int | None = 140) -> "Console":
    """Return the console of standard output.

    Args:
        width: columns where standard output is a file or pipe; None for 80, as rich has it.

    Raises:
        BrokenPipeError: later, when it prints and the reader of the pipe is gone.
    """
    from rich.console import Console

    class PipeConsole(Console):
        """A console that raises where rich would end the process with code 1, the code of a finding."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipeConsole(highlight=False, width=None if sys.stdout.isatty() else width)
