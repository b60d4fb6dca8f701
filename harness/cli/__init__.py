"""The command line. Heavy libraries load when a command needs them."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from harness import __version__
from harness.cli.signals import kill_now, leave, spare_children
from harness.errors import HarnessError, missing_extra
from harness.execution.gc_control import freeze_gc, raise_gc_threshold
from harness.execution.worker_environment import leave_working_directory
from harness.user_code import CaseExit, guarded, refuse_os_exit

app = typer.Typer(
    name="harness",
    help="Diagnose collapsed bottlenecks of torch models: which units are dead, why, and which change revives them.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run a command. A wrong request prints one sentence on standard error and exits with code 2."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.pop("MPLBACKEND", None)  # figures become files; matplotlib cannot be imported with a wrong name
    leave_working_directory()
    raise_gc_threshold()
    for number in (signal.SIGINT, signal.SIGTERM):  # until a command installs its own handlers
        signal.signal(number, kill_now)
    spare_children()
    refuse_os_exit()
    _register()
    code = _exit_code()
    freeze_gc()
    leave(code)


def _exit_code() -> int:
    """Run the command of `sys.argv`, and return its exit code."""
    try:
        app()
        sys.stdout.flush()
    except SystemExit as end:
        return _flushed(end.code if isinstance(end.code, int) else int(end.code is not None))
    except HarnessError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        print(f"Error: {missing}", file=sys.stderr)
        return 2
    except CaseExit as error:
        print(f"Error: the case's code ended with {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return CLOSED_PIPE
    return 0


def _flushed(code: int) -> int:
    """Return the exit code after standard output was written: its reader may be gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return CLOSED_PIPE
    return code


@contextmanager
def _end_at_closed_pipe() -> Iterator[None]:
    """Exit like a command that SIGPIPE ends; typer would exit with code 1, the code of a finding."""
    try:
        yield
    except BrokenPipeError:
        raise typer.Exit(CLOSED_PIPE) from None


def _print_version(requested: bool) -> None:
    if requested:
        print(f"harness {__version__}")
        raise typer.Exit


def _register() -> None:
    from harness.cli import (
        audit,
        diagnose,
        effects,
        examples,
        explain,
        init,
        layers,
        merge,
        model,
        plan,
        prescribe,
        report,
        run,
        sync,
        ui,
    )

    verbs = (
        run.run,
        diagnose.diagnose,
        layers.layers,
        audit.audit,
        prescribe.prescribe,
        plan.plan,
        effects.effects,
        report.report,
        model.model,
        ui.ui,
        sync.sync,
        merge.merge,
        init.init,
        examples.examples,
        explain.explain,
    )
    for verb in verbs:
        # an empty line between two lines keeps them apart
        epilog = "\n\n".join(["Examples:", *EXAMPLES[verb.__name__]]) if verb.__name__ in EXAMPLES else None
        app.command(epilog=epilog)(_end_at_closed_pipe()(guarded()(verb)))


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version and exit.", callback=_print_version)
    ] = False,
) -> None:
    """Diagnose collapsed bottlenecks of torch models: which units are dead, why, and which change revives them."""


CLOSED_PIPE = 141  # 128 + SIGPIPE, as a shell reports it
EXAMPLES = {  # of verbs whose docstring has none
    "run": ("harness run experiments/quickstart.yaml", "harness run mine.yaml --workers 4 --json"),
    "diagnose": ("harness diagnose codes.npy --labels classes.npy", "harness diagnose forum --picture units.png"),
    "layers": ("harness layers forum", "harness layers model.py:Autoencoder --shape 48"),
    "audit": ("harness audit forum", "harness audit own_case.py --no-during --json"),
    "prescribe": ("harness prescribe mine.py", "harness prescribe forum --budget 2m --try batchnorm,leaky_relu"),
    "plan": ("harness plan experiments/quickstart.yaml", "harness plan mine.yaml --json"),
    "effects": ("harness effects quickstart", "harness effects mine.yaml --outcome r2"),
    "report": ("harness report quickstart", "harness report quickstart symptom"),
    "model": (
        "harness model quickstart --member 'as_posted s3'",
        "harness model mine.yaml --member 3f2a --output cured.safetensors",
    ),
    "ui": ("harness ui quickstart", "harness ui mine.yaml --port 5001"),
    "init": ("harness init model.py", "harness init model.py --model Autoencoder --bottleneck encoder.2"),
    "examples": ("harness examples", "harness examples quickstart"),
    "explain": ("harness explain", "harness explain single_live_unit dead"),
    "sync": ("harness sync mine.yaml", "harness sync --repair"),
    "merge": ("harness merge node1 node2", "harness merge /scratch/*/project"),
}
