"""`--json`: one document on standard output and nothing else, whatever the author's code prints meanwhile."""

import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, and nothing else.")]


def prints_aside(wanted: bool) -> AbstractContextManager[Any]:
    """What is printed inside goes to standard error, where that is wanted: a case is code, and code prints."""
    return redirect_stdout(sys.stderr) if wanted else nullcontext()
