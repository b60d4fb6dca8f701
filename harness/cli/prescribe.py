"""`harness prescribe CASE`: the remedy that works on a model, proved on fresh seeds."""

import signal
import sys
from typing import Annotated, Any

import typer

from harness.cli.output import Json, print_json, stdout_to_stderr

FAREWELL = "Stopped. Results of trained members are kept; the same command goes on from them."


def prescribe(
    case: Annotated[str, typer.Argument(help="A shipped case, or a .py file with a module-level `case`.")],
    budget: Annotated[str, typer.Option(help="Wall time, such as 90s, 5m or 1h.")] = "5m",
    seeds: Annotated[
        int | None, typer.Option(min=2, help="Fresh seeds of the proof; by default what the budget allows.")
    ] = None,
    changes: Annotated[
        str,
        typer.Option(
            "--try",
            help="Changes to try, such as batchnorm,leaky_relu,bias_init=zero; by default what the signs suggest.",
        ),
    ] = "",
    goal: Annotated[str, typer.Option(help="What counts: live, usable, or a bound such as 'r2>0.4'.")] = "usable",
    workers: Annotated[int | None, typer.Option(min=0, help="Worker processes; one per core by default.")] = None,
    on: Annotated[str | None, typer.Option(help="Train on a Ray cluster: `ray`, or `ray://head:10001`.")] = None,
    report: Annotated[str, typer.Option(help="Write the prescription as an HTML page.")] = "",
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store; by default mlruns/mlflow.db, or MLFLOW_TRACKING_URI.")
    ] = None,
    json: Json = False,
) -> None:
    """Find the remedy that works on a case, and prove it on seeds that the search never saw.

    Exit code 0: nothing is wrong; 1: something is wrong, whatever helps; 2: bad request; 130, 143: stopped by a signal,
    after what was seen until then is printed.
    """
    from harness.cli.signals import exit_now, install_handlers
    from harness.errors import HarnessError
    from harness.prescription import PrescriptionInterrupted, publish
    from harness.prescription import prescribe as find

    words = [word.strip() for word in changes.split(",") if word.strip()] or None

    def says(text: str) -> None:
        print(f"{text} ...", file=sys.stderr, flush=True)

    try:
        install_handlers(FAREWELL)
        with stdout_to_stderr(json):
            prescription = find(case, budget, seeds, words, goal, workers, says, on=on)
    except PrescriptionInterrupted as stop:
        _write(stop.prescription, report, json)
        sys.stdout.flush()
        exit_now(getattr(stop.__cause__, "number", signal.SIGINT), FAREWELL)
    except KeyboardInterrupt as stop:  # before the search began
        exit_now(getattr(stop, "number", signal.SIGINT), FAREWELL)
    _write(prescription, report, json)
    sys.stdout.flush()
    try:
        with stdout_to_stderr(True):
            page = publish(prescription, tracking_uri=tracking_uri)
        print(f"page: {page}; the proof is in the MLflow store (harness ui)", file=sys.stderr)
    except HarnessError as error:
        print(f"not logged: {error}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        exit_now(getattr(stop, "number", signal.SIGINT), FAREWELL)
    raise typer.Exit(1 if prescription.wrong else 0)


def _write(prescription: Any, report: str, json: bool) -> None:
    if report:
        prescription.report(report)
    if json:
        print_json(prescription.to_dict())
    else:
        print(prescription)
