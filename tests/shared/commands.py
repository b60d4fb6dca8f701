"""The command line, in a process of its own as a user has it, or within this one where no process is in question."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from waiting import LONGEST

from harness.errors import HarnessError

Done = subprocess.CompletedProcess[str]
ROOT = Path(__file__).parents[2]
# the current folder is not on the path of an installed program
CODE = "import sys; sys.path.pop(0); sys.argv[0] = 'harness'; from harness.cli import main; main()"


def harness(*arguments: object, folder: Path, **environment: str) -> Done:
    """`harness ...` in a folder."""
    return python(CODE, *arguments, folder=folder, **environment)


def python(code: str, *arguments: object, folder: Path, **environment: str) -> Done:
    """A program in a folder, with the harness on its path."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=LONGEST)


def within(*arguments: object, folder: Path) -> Done:
    """`harness ...` in a folder as `harness.cli.main` runs it, in this process, which has loaded torch and MLflow already.

    What only a process can show (what is loaded, what the shell sees, signals, workers) is tested with `harness`.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr("harness.cli.signals.install_handlers", lambda farewell: None)
        result = CliRunner().invoke(_application(), [*map(str, arguments)])
    if isinstance(result.exception, HarnessError):
        return Done(arguments, 2, result.stdout, f"{result.stderr}Error: {result.exception}\n")
    if not isinstance(result.exception, SystemExit | None):
        raise result.exception
    return Done(arguments, result.exit_code, result.stdout, result.stderr)


@cache
def _application() -> typer.Typer:
    from harness import cli

    cli._register()
    return cli.app
