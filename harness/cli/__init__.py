"""The command line: four verbs and what stands beside them. Nothing heavy loads before a command runs."""

import os
import signal
import sys

import typer

from harness.cli.signals import kill_now, spare_children
from harness.errors import HarnessError, missing_extra
from harness.execution.gc_control import freeze_gc, raise_gc_threshold
from harness.execution.worker_environment import leave_working_directory
from harness.user_code import CaseExit, guarded, refuse_os_exit

app = typer.Typer(
    name="harness",
    help="A doctor for collapsed bottlenecks: whether, which unit, how, why, and what fixes it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run a command. A wrong request is one sentence on standard error and exit code 2."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    leave_working_directory()
    raise_gc_threshold()
    for number in (signal.SIGINT, signal.SIGTERM):  # until a command has something to put in order
        signal.signal(number, kill_now)
    spare_children()
    refuse_os_exit()
    _register()
    try:
        app()
    except HarnessError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        print(f"Error: {missing}", file=sys.stderr)
        sys.exit(2)
    except CaseExit as error:
        print(f"Error: the case's code ended with {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    finally:
        freeze_gc()


def _register() -> None:
    from harness.cli import audit, diagnose, effects, plan, prescribe, report, run, sync, ui

    verbs = (
        run.run,
        diagnose.diagnose,
        audit.audit,
        prescribe.prescribe,
        plan.plan,
        effects.effects,
        report.report,
        ui.ui,
        sync.sync,
    )
    for verb in verbs:
        app.command()(guarded()(verb))
