"""`harness sync`: update the MLflow store and the report from the results."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def sync(
    experiment: Annotated[str, typer.Argument(help="The experiment's YAML file; optional with --repair.")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Repair the paths of a store that was moved.")] = False,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store; default mlruns/mlflow.db.")] = None,
) -> None:
    """Log stored results to MLflow again (idempotent), and write the report.

    Exit code 0: MLflow and report are up to date; 2: wrong request; 3: they could not be updated.
    """
    from harness.errors import HarnessError

    if repair:
        from harness.tracking import move_paths, store_uri

        changed = move_paths(store_uri(tracking_uri, Path.cwd()))
        print(f"{changed} paths of the store now point to this folder")
    elif not experiment:
        raise HarnessError("sync: expected the experiment's YAML file or --repair, got neither")
    if experiment:
        from harness.experiment import synchronize

        publication = synchronize(experiment, tracking_uri)
        for note in publication.notes:
            print(f"Note: {note}")
        if publication.problems:
            for problem in publication.problems:
                print(f"Error: {problem}", file=sys.stderr)
            raise typer.Exit(3)
        print(f"{experiment}: MLflow and report are up to date")
