"""`--json`: one document on standard output and nothing else, whatever the author's code prints meanwhile."""

import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else.")]


def stdout_to_stderr(wanted: bool) -> AbstractContextManager[Any]:
    """What is printed inside goes to standard error, where that is wanted: a case is code, and code prints."""
    return redirect_stdout(sys.stderr) if wanted else nullcontext()


def console() -> "Console":
    """The terminal; a file or a pipe has no width of its own, and rich would fold tables at 80."""
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=140)
