"""`harness run FILE.yaml`: train an experiment's members, and count which variants collapse."""

import json as json_module
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.output import Json, console, print_json, stdout_to_stderr
from harness.cli.shards import shard_of
from harness.credentials import masked
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.experiment import RunSummary


def run(
    file: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Train all models again, also those with a result.")] = False,
    retry: Annotated[str, typer.Option(help="`failed`: train again the models that ended with an error.")] = "",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes; 0 trains in this process. Default: one per core.")
    ] = None,
    shard: Annotated[
        str,
        typer.Option(
            help="`2/8`: train only the second of eight parts. `auto`: the part of this SLURM or Kubernetes job."
        ),
    ] = "1/1",
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds that models trained together may take; no limit by default.")
    ] = None,
    on: Annotated[str | None, typer.Option(help="Train on a Ray cluster: `ray`, or `ray://head:10001`.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store; default mlruns/mlflow.db.")] = None,
    json: Json = False,
) -> None:
    """Train every model of an experiment that has no result yet, diagnose it, log it to MLflow, and write the report."""
    if retry not in ("", "failed"):
        raise HarnessError(f"--retry: expected 'failed', got {retry!r}")
    part = shard_of(shard)
    from harness.cli.progress import Display
    from harness.cli.signals import Interrupted, exit_now, install_handlers
    from harness.experiment import run_experiment

    farewell = f"Stopped. Finished stacks are kept; `harness run {file}` goes on from there."
    try:
        install_handlers(farewell)
        with stdout_to_stderr(json), Display(quiet=json) as display:
            outcome = run_experiment(
                file,
                fresh,
                workers,
                tracking_uri,
                retry == "failed",
                part,
                display.progress(),
                timeout=timeout,
                on=on,
                brief=True,
            )
    except Interrupted as stop:
        exit_now(stop.number, farewell)
    if json:
        print_json(outcome.to_dict())
    else:
        _show(outcome, file, tracking_uri)
    failed = outcome.to_dict()["failed"]
    raise typer.Exit(3 if failed or outcome.missing else 0)


def _headline(outcome: "RunSummary") -> str:
    """The report's headline; computed where there is no report, which takes seconds for thousands of members."""
    try:
        path = None if outcome.report is None else outcome.report.with_name("report.json")
        document = {} if path is None else json_module.loads(path.read_text(encoding="utf-8"))
        return str(document["answer"]["headline"])
    except (OSError, ValueError, KeyError):
        from harness.effects import analyse
        from harness.report.answer import headline

        return headline(analyse(outcome.records, outcome.experiment))


def _show(outcome: "RunSummary", file: Path, tracking_uri: str | None) -> None:
    from harness.cli.tables import verdict_table

    terminal = console()
    terminal.print(verdict_table(outcome.records, outcome.experiment.baseline))
    for note in outcome.notes:
        terminal.print(f"Note: {note}", style="yellow", markup=False)
    trained = f"{outcome.trained} trained now" if outcome.trained else "all of them done before"
    seeds = len(outcome.experiment.seeds)
    splits = f" x {outcome.experiment.splits} splits of the rows" if outcome.experiment.splits > 1 else ""
    counts = f"{len(outcome.experiment.variants())} variants x {seeds} seed{'s' * (seeds > 1)}{splits}"
    terminal.print(f"{len(outcome.records)} models ({counts}), {trained}, {outcome.seconds:.0f} s")
    if outcome.records:
        terminal.print(_headline(outcome), markup=False)
    if outcome.report is not None:
        option = f" --tracking-uri {shlex.quote(masked(tracking_uri))}" if tracking_uri else ""
        print(f"Report:    {outcome.report}")
        program = "harness" if shutil.which("harness") else f"{sys.executable} -m harness"
        print(f"MLflow UI: {program} ui {_reference(outcome, file)}{option}")


def _reference(outcome: "RunSummary", file: Path) -> "Path | str":
    """Return the experiment as a command takes it: its file, or the name of a shipped one."""
    from harness.grid.shipped import shipped_folder

    path = outcome.experiment.path
    return outcome.experiment.name if path is None or path.parent == shipped_folder() else file
