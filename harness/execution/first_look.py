"""First look at an experiment's inputs: fingerprints of its data and case, and a check that a member can be run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.errors import HarnessError
from harness.grid import Experiment
from harness.grid.case_facts import case_file
from harness.results import RESULTS_FORMAT, case_fingerprint
from harness.user_code import guarded

if TYPE_CHECKING:
    from harness.case import Case
    from harness.data.rows import Split

SHIPPED_SOURCES = ("cases", "data")


def fingerprints(experiment: Experiment, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fingerprint the data's bytes and the case's source, with a few facts; reads the data.

    Args:
        experiment: whose inputs are read.
        before: fingerprints of an earlier run. If they are equal, the case's optimizer is not built again, for which
            torch takes a second or more to load.

    Raises:
        HarnessError: if the data cannot be used, or no member of a case that is not shipped can be run.
    """
    from harness.case import load_case
    from harness.data import split_of
    from harness.data.split import check_splits

    case = load_case(experiment.case_reference)
    check_splits(case, experiment.splits)
    split = split_of(case, experiment.data_reference)
    identity = {
        "data": split.fingerprint,
        "case": case_fingerprint(case_file(experiment.case, experiment.folder)),
    }
    if source_digest(experiment) is None:  # shipped cases are known to run, and start sooner without the check
        _check_that_it_runs(experiment, case, split, made_before=identity.items() <= (before or {}).items())
    return {
        **identity,
        "train_rows": len(split.train),
        "evaluation_rows": len(split.evaluation),
        "features": list(split.train.inputs.shape[1:]),
        "dtype": str(split.train.inputs.dtype).removeprefix("torch."),
        "labels": split.evaluation.labels is not None,
        "factors": list(split.evaluation.factors),
        "blocks": split.evaluation.blocks is not None,
        "bottleneck": case.bottleneck,
    }


def _check_that_it_runs(experiment: Experiment, case: "Case", split: "Split", made_before: bool) -> None:
    """Refuse a case of which no member can be run.

    Build a model, evaluate its loss on a few rows and, unless `made_before`, build its optimizer, as a plan does.
    """
    from harness.case import build_optimizer
    from harness.models import build_model
    from harness.remedies import RemedyNotApplicable, apply_remedies

    widths = experiment.levels("units") if "units" in experiment.factors else (None,)
    problem: HarnessError | None = None
    for width in widths:
        try:
            with guarded():
                treated = apply_remedies(case, {} if width is None else {"units": width}, split)
                if not made_before:
                    build_optimizer(treated, build_model(treated, 0, split.train.inputs[:4]))
        except Exception as error:
            if isinstance(error, RemedyNotApplicable) or not isinstance(error, HarnessError):  # reported by its members
                return
            problem = error
        else:
            return
    if problem is not None:
        raise problem


def source_digest(experiment: Experiment) -> str | None:
    """Hash the sources that the fingerprints depend on without running them; None if they must be run."""
    if experiment.case.endswith(".py") or not _is_shipped(experiment.data):
        return None
    digest = hashlib.sha256(json.dumps([experiment.case, experiment.data, RESULTS_FORMAT]).encode())
    for folder in SHIPPED_SOURCES:
        for path in sorted((Path(harness.__file__).parent / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_shipped(data: str | None) -> bool:
    from harness.data import DATASETS

    return data is None or data in DATASETS
