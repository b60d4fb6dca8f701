"""Experiments: from a YAML file to results, MLflow runs and a report."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.experiment.running import RunCallbacks, RunSummary, run, run_experiment, sync, synchronize

__all__ = ["RunCallbacks", "RunSummary", "run", "run_experiment", "sync", "synchronize"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'harness.experiment' has no attribute {name!r}")
    return getattr(import_module("harness.experiment.running"), name)
