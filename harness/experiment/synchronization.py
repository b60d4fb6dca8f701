"""Write the report and the MLflow store again from the results."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.experiment.inspection import WorkerInspection, audit_here, look_here
from harness.experiment.locks import publishing, running
from harness.experiment.state import load_state, loaded, store_name
from harness.grid import Experiment
from harness.results import results_folder

if TYPE_CHECKING:
    from harness.experiment.publisher import Publication


def sync(experiment: "str | Path | Experiment", tracking_uri: str | None = None, root: Path | None = None) -> list[str]:
    """Write the report and the MLflow store again from the results, and return the problems.

    Raises:
        HarnessError: if there are no results.
    """
    return synchronize(experiment, tracking_uri, root).problems


def synchronize(
    experiment: "str | Path | Experiment", tracking_uri: str | None = None, root: Path | None = None
) -> "Publication":
    """Write the report and the MLflow store again from the results.

    Raises:
        HarnessError: if there are no results, or the experiment is running.
    """
    from harness.experiment.publisher import Publisher

    root = root or Path.cwd()
    experiment = loaded(experiment)
    folder = results_folder(experiment.name, root)
    if not folder.is_dir():
        raise HarnessError(f"{folder}: no results of this experiment; `harness run` makes them")
    with running(folder), publishing(folder):
        in_worker = isinstance(experiment.case_reference, str)
        look, audit = (WorkerInspection().look, WorkerInspection().audit) if in_worker else (look_here, audit_here)
        work = load_state(experiment, folder, store=store_name(tracking_uri), look=look)
        if not work.done:
            raise HarnessError(f"{folder}: no results of this experiment; `harness run` makes them")
        return Publisher(experiment, root, tracking_uri, audit, work.manifest).publish(work, 0.0)
