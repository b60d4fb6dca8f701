"""The manifest of an experiment: the inputs that its results depend on, and recorded facts."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import harness
from harness.factors import FACTORS
from harness.grid import Experiment
from harness.grid.case_facts import DEFAULT_TRAINING, case_facts, case_file
from harness.results import RESULTS_FORMAT

PACKAGES = ("torch", "mlflow", "pandas", "numpy", "scipy", "seaborn", "scikit-learn", "pyarrow")


def manifest_of(experiment: Experiment, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest of an experiment: its text, factors, inputs and versions."""
    text = experiment.path.read_text(encoding="utf-8") if experiment.path is not None else ""
    return {
        "format": RESULTS_FORMAT,
        "name": experiment.name,
        "experiment": experiment.resolved(),
        "text": text,
        "inputs": dict(inputs),
        "factors": {name: list(levels) for name, levels in experiment.factors.items()},
        "baseline": dict(experiment.baseline),
        "defaults": {name: factor.default for name, factor in FACTORS.items()},
        "versions": versions(),
        "commit": git_commit(),
        "command": f"harness run {experiment.path.name if experiment.path else experiment.name}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def versions() -> dict[str, str]:
    """Return versions of the installed packages that a result can depend on."""
    runtime = {"harness": harness.__version__, "python": sys.version.split()[0]}
    return {**runtime, **{name: version(name) for name in PACKAGES if _installed(name)}}


def git_commit() -> str | None:
    """Return the commit of the working directory, marked if there are changes; None outside a repository."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else "") if commit.returncode == 0 else None


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def training_of(experiment: Experiment) -> dict[str, Any]:
    """Return the training numbers of an experiment, completed by its case and the defaults."""
    facts = case_facts(case_file(experiment.case, experiment.folder))
    return {**DEFAULT_TRAINING, **facts.train, **experiment.train}
