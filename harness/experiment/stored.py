"""Stored results of an experiment, by its name or file: effects, report, comparison. Nothing is trained."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.experiment.state import load_state
from harness.grid import Experiment, load_experiment
from harness.grid.loader import refuse_case_file
from harness.results import StoredResults, read_results, report_folder, results_folder

if TYPE_CHECKING:
    from harness.effects import Comparison, Effects

YAML = (".yaml", ".yml")


def effects(experiment: "str | Path | Experiment", root: Path | None = None) -> "Effects":
    """Analyze the stored results of an experiment.

    Args:
        experiment: the name of an experiment that was run, the path of its YAML file, or an `Experiment`.
        root: folder that contains `mlruns/`; None means the current one.

    Raises:
        HarnessError: if there are no results.
    """
    from harness.effects import analyse, stored_experiment, stored_members

    root = root or Path.cwd()
    if _is_name(experiment):
        results = stored_results(experiment, root)
        return analyse(stored_members(results), stored_experiment(results))
    declared = declared_experiment(experiment, root)
    folder = results_folder(declared.name, root)
    records = load_state(declared, folder).records() if folder.is_dir() else []
    if not records:
        raise HarnessError(f"{folder}: no results of this experiment; `harness run {_shown(experiment)}` makes them")
    return analyse(records, declared)


def declared_experiment(experiment: "str | Path | Experiment", root: Path) -> Experiment:
    """Return the experiment of a YAML file, or the stored one of this name.

    Raises:
        HarnessError: if the file is invalid, or there are no results of this name.
    """
    if isinstance(experiment, Experiment):
        return experiment
    if not _is_name(experiment):
        return load_experiment(experiment)
    from harness.effects import stored_experiment

    return stored_experiment(stored_results(experiment, root))


def stored_results(experiment: "str | Path | Experiment", root: Path | None = None) -> StoredResults:
    """Read the stored results of an experiment: the members that it asks for, the latest record of each.

    Raises:
        HarnessError: if there are none.
    """
    from harness.effects import stored_members

    name = _name(experiment)
    folder = results_folder(name, root or Path.cwd())
    results = read_results(folder)
    if not results.records:
        raise HarnessError(
            f"{folder}: no results of {name!r}; `harness run FILE.yaml` makes them{_others(folder.parent)}"
        )
    return StoredResults(results.manifest, stored_members(results), results.damaged)


def report(
    experiment: "str | Path | Experiment", other: "str | Path | Experiment | None" = None, root: Path | None = None
) -> Path:
    """Write the report of an experiment from its stored results, or a comparison with another experiment.

    Args:
        experiment: the name of an experiment that was run, the path of its YAML file, or an `Experiment`.
        other: a second experiment, for a page with both side by side.
        root: folder that contains `mlruns/`; None means the current one.

    Returns:
        The path of the HTML page.

    Raises:
        HarnessError: if there are no results.
    """
    from harness.effects import analyse, stored_experiment
    from harness.effects import compare as compare_results
    from harness.report import write_comparison, write_report

    root = root or Path.cwd()
    results = stored_results(experiment, root)
    if other is None:
        declared = stored_experiment(results)
        return write_report(results, analyse(results.records, declared), report_folder(declared.name, root))
    second = stored_results(other, root)
    comparison = compare_results(results, second)
    folder = report_folder(f"{comparison.first} and {comparison.second}", root)
    return write_comparison(results, second, comparison, folder)


def compare(
    first: "str | Path | Experiment", second: "str | Path | Experiment", root: Path | None = None
) -> "Comparison":
    """Compare the stored results of two experiments, second less first.

    Args:
        first, second: names of experiments that were run, paths of their YAML files, or `Experiment`s.
        root: folder that contains `mlruns/`; None means the current one.

    Raises:
        HarnessError: if there are no results.
    """
    from harness.effects import compare as compare_results

    return compare_results(stored_results(first, root), stored_results(second, root))


def _is_name(experiment: "str | Path | Experiment") -> bool:
    return isinstance(experiment, str) and not experiment.endswith(YAML)


def _name(experiment: "str | Path | Experiment") -> str:
    if isinstance(experiment, Experiment):
        return experiment.name
    refuse_case_file(experiment)
    return str(experiment) if _is_name(experiment) else load_experiment(experiment).name


def _shown(experiment: "str | Path | Experiment") -> str:
    return experiment.name if isinstance(experiment, Experiment) else str(experiment)


def _others(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return f". There are: {', '.join(names)}" if names else ""
