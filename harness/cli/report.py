"""`harness report EXPERIMENT`: write the report from stored results, or compare two experiments."""

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.output import Json, print_json, stdout_to_stderr
from harness.errors import HarnessError


def report(
    experiments: Annotated[list[str], typer.Argument(help="One experiment that was run, or two: YAML files or names.")],
    tracking_uri: Annotated[str | None, typer.Option(help="Also log the report to this MLflow store.")] = None,
    json: Json = False,
) -> None:
    """Write the report of an experiment from its stored results, or compare two; nothing is trained."""
    if len(experiments) > 2:
        raise HarnessError(f"report: expected one experiment, or two to compare, got {len(experiments)}")
    from harness.experiment import report as write_report

    with stdout_to_stderr(json):
        logs = tracking_uri is not None and len(experiments) == 1
        level = _is_logged(experiments[0], tracking_uri) if logs else True
        path = write_report(experiments[0], experiments[1] if len(experiments) == 2 else None)
    if json:
        print_json({"experiments": experiments, "report": str(path)})
    else:
        typer.echo(str(path))
    raise typer.Exit(0 if level else 3)


def _is_logged(experiment: str, tracking_uri: str | None) -> bool:
    """Log everything into a store again, and print problems."""
    from harness.effects import stored_experiment
    from harness.experiment import stored_results, synchronize

    source = (
        Path(experiment) if experiment.endswith((".yaml", ".yml")) else stored_experiment(stored_results(experiment))
    )
    publication = synchronize(source, tracking_uri)
    for note in publication.notes:
        typer.echo(f"Note: {note}", err=True)
    for problem in publication.problems:
        typer.echo(f"Error: {problem}", err=True)
    return not publication.problems
