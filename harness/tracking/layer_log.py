"""Log of the layers that are watched while a model trains, as metrics of an MLflow run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.tracking.connection import reaching
from harness.tracking.sqlite_store import store_uri
from harness.tracking.tracker import log_metrics, watched_run

EXPERIMENT = "harness-watch"
MOST_UNITS = 32  # of a layer that have a metric each


class LayerLog:
    """Writes steps of watched layers to the active run, or to a run of its own in the experiment `harness-watch`.

    Args:
        every: distance of the logged steps.

    Raises:
        HarnessError: if the store cannot be reached.
    """

    def __init__(self, every: int = 100) -> None:
        self.every = max(1, every)
        self.uri = store_uri(None, Path.cwd())
        self.client, self.run, self.own = watched_run(self.uri, EXPERIMENT)
        self._next: dict[str, int] = {}

    def add(self, layer: str, history: Any) -> None:
        """Log the steps of a `StepHistory` that are due, with the units that are not dead counted as live."""
        metrics: list[tuple[str, float, int]] = []
        for entry in history.entries(self._next.get(layer, 0)):
            if entry["step"] >= self._next.get(layer, 0):
                metrics += [(f"{layer}/{name}", value, entry["step"]) for name, value in layer_metrics(entry).items()]
                self._next[layer] = entry["step"] + self.every
        self._write(metrics)

    def verdict(self, layer: str, verdict: str) -> None:
        """Tag the run with the verdict on a layer."""
        with reaching(self.uri):
            self.client.set_tag(self.run, f"{layer}/verdict", verdict)

    def close(self) -> None:
        """End a run of its own; the user's run stays open."""
        if self.own:
            with reaching(self.uri):
                self.client.set_terminated(self.run)

    def _write(self, metrics: Sequence[tuple[str, float, int]]) -> None:
        with reaching(self.uri):
            log_metrics(self.client, self.run, [metric for metric in metrics if math.isfinite(metric[1])])


def layer_metrics(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of one step of a layer."""
    frequency, dead = entry["activation_frequency"], entry["dead"]
    metrics = {
        "live_units": float((~dead).sum()),
        "activation_frequency": float(frequency.mean()),
        **{f"gradient/{term}": float(norm.norm()) for term, norm in entry["gradients"].items()},
    }
    if len(frequency) <= MOST_UNITS:
        metrics |= {f"activation_frequency/u{unit}": float(value) for unit, value in enumerate(frequency)}
    return metrics
