"""`harness report EXPERIMENT`: write the report from stored results, or compare two experiments."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.output import Json, stdout_to_stderr
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.results import StoredResults


def report(
    experiments: Annotated[list[str], typer.Argument(help="One experiment that was run, or two: YAML files or names.")],
    tracking_uri: Annotated[str | None, typer.Option(help="Also log the report to this MLflow store.")] = None,
    json: Json = False,
) -> None:
    """Write the report of an experiment from its stored results, or compare two; nothing is trained."""
    if len(experiments) > 2:
        raise HarnessError(f"report: expected one experiment, or two to compare, got {len(experiments)}")
    with stdout_to_stderr(json):
        logs = tracking_uri is not None and len(experiments) == 1
        level = _is_logged(experiments[0], tracking_uri) if logs else True
        path = _compare(*experiments) if len(experiments) == 2 else _write(experiments[0])
    typer.echo(json_format.dumps({"experiments": experiments, "report": str(path)}) if json else str(path))
    raise typer.Exit(0 if level else 3)


def _write(experiment: str) -> Path:
    from harness.effects import analyse, stored_experiment
    from harness.experiment.state import report_folder
    from harness.report import write_report

    results = stored(experiment)
    declared = stored_experiment(results)
    return write_report(results, analyse(results.records, declared), report_folder(declared.name, Path.cwd()))


def _compare(first: str, second: str) -> Path:
    from harness.effects import compare
    from harness.experiment.state import report_folder
    from harness.report import write_comparison

    sides = (stored(first), stored(second))
    comparison = compare(*sides)
    folder = report_folder(f"{comparison.first} and {comparison.second}", Path.cwd())
    return write_comparison(*sides, comparison, folder)


def stored(experiment: str) -> "StoredResults":
    """Read the stored results of an experiment: the members that it asks for, the latest record of each.

    Raises:
        HarnessError: if there are none.
    """
    from harness.effects import stored_members
    from harness.experiment.state import results_folder
    from harness.results import StoredResults, read_results

    name = _name(experiment)
    folder = results_folder(name, Path.cwd())
    results = read_results(folder)
    if not results.records:
        raise HarnessError(
            f"{folder}: no results of {name!r}; `harness run FILE.yaml` creates them{_known(folder.parent)}"
        )
    return StoredResults(results.manifest, stored_members(results), results.damaged)


def _name(experiment: str) -> str:
    if not experiment.endswith((".yaml", ".yml")):
        return experiment
    from harness.grid import load_experiment

    return load_experiment(Path(experiment)).name


def _known(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return f". Known: {', '.join(names)}" if names else ""


def _is_logged(experiment: str, tracking_uri: str | None) -> bool:
    """Log everything into a store again, and print problems."""
    from harness.effects import stored_experiment
    from harness.experiment import synchronize

    source = Path(experiment) if experiment.endswith((".yaml", ".yml")) else stored_experiment(stored(experiment))
    publication = synchronize(source, tracking_uri)
    for note in publication.notes:
        typer.echo(f"Note: {note}", err=True)
    for problem in publication.problems:
        typer.echo(f"Error: {problem}", err=True)
    return not publication.problems
