"""The plan of an experiment file, with estimates from earlier results."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.grid import Experiment, load_experiment

if TYPE_CHECKING:
    from harness.planning.plan import Plan


def plan(experiment: "str | Path | Experiment", root: Path | None = None) -> "Plan":
    """Plan an experiment: members, stacks, cost, and the smallest detectable effect.

    Args:
        experiment: the path of a YAML file, or an `Experiment`.
        root: folder that contains `mlruns/`, whose earlier results refine the estimates; None means the current one.

    Raises:
        HarnessError: if the file is invalid, or its case or data cannot be used.
    """
    from harness.experiment.earlier_results import deviations, earlier_records, rate
    from harness.planning.plan import plan as plan_experiment

    experiment = experiment if isinstance(experiment, Experiment) else load_experiment(experiment)
    records = earlier_records(experiment, (root or Path()) / "mlruns")
    return plan_experiment(experiment, deviations(experiment, records), rate(records))
