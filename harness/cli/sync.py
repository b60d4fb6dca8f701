"""`harness sync`: bring the MLflow store and the report level with the results."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def sync(
    experiment: Annotated[str, typer.Argument(help="The experiment's YAML file; nothing with --repair.")] = "",
    repair: Annotated[bool, typer.Option("--repair", help="Mend the paths of a store that was moved.")] = False,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store; default mlruns/mlflow.db.")] = None,
) -> None:
    """Log again what the results hold; what is logged already is not logged twice.

    Exit code 0: store and report are level with the results; 2: bad request; 3: they are not.
    """
    from harness.errors import HarnessError

    if repair:
        from harness.tracking import move_paths, store_uri

        changed = move_paths(store_uri(tracking_uri, Path.cwd()))
        print(f"{changed} paths of the store now point to this folder")
    elif not experiment:
        raise HarnessError("harness sync: the experiment's YAML file is wanted, or --repair")
    if experiment:
        from harness.experiment import synchronize

        publication = synchronize(experiment, tracking_uri)
        for note in publication.notes:
            print(f"Note: {note}")
        if publication.problems:
            for problem in publication.problems:
                print(f"Error: {problem}", file=sys.stderr)
            raise typer.Exit(3)
        print(f"{experiment}: store and report are level with the results")
