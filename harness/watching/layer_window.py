"""Statistics of one watched layer: a history of steps and a bounded window of the latest rows."""

from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

from harness.measures import activation_frequency, has_off_state
from harness.watching.layers import unit_axis_of, unit_rows

LEAST_ROWS = 1000  # of a window: 0 of 1,000 rows puts a frequency below 0.0037 (Clopper-Pearson)
MOST_ROWS = 8192  # of a window; of a longer epoch, an even share of every step
MOST_STEPS = 4096  # of a history; at more, every second step is dropped


class LayerWindow:
    """Statistics of one layer while a model trains.

    Args:
        name: dotted name of the layer.
        module: the layer.
        unit_axis: declared axis of the units, or None.
    """

    def __init__(self, name: str, module: nn.Module, unit_axis: int | None) -> None:
        self.name, self.module, self.declared = name, module, unit_axis
        self.activation, self.axis, self.shape = "none", 1, tuple[int, ...]()
        self.finite = True
        self.active_rows: Tensor | None = None  # number of rows seen when a unit was last active
        self.active_epochs: Tensor | None = None  # number of complete epochs at that time
        self.rows = 0
        self.history: list[dict[str, Any]] = []
        self._chunks: deque[dict[str, Tensor]] = deque()
        self._samples = 0

    def add(self, step: int, epoch: int, code: Tensor, activation: str, labels: Tensor | None, window: int) -> None:
        """Record the activations of one step."""
        self.activation, self.shape = activation, tuple(code.shape)
        self.axis = unit_axis_of(self.module, code, self.declared)
        samples = len(code)
        values = unit_rows(code.detach(), self.axis)
        positions = len(values) // max(samples, 1)
        sample = torch.arange(self._samples, self._samples + samples).repeat_interleave(positions)
        self._samples += samples
        self._measure(step, epoch, values.double().cpu(), window)
        chunk = {"values": values.cpu().clone(), "sample": sample}
        if labels is not None and len(labels) == samples:
            chunk["labels"] = labels.detach().cpu().repeat_interleave(positions)
        self._keep(chunk, window)

    def window(self) -> dict[str, Tensor]:
        """Return the rows of the window: `values`, `sample`, and `labels` where every step brought them."""
        names = set.intersection(*(set(chunk) for chunk in self._chunks)) if self._chunks else set()
        return {name: torch.cat([chunk[name] for chunk in self._chunks]) for name in names}

    def silent(self, rows: int) -> Tensor:
        """Return True for every unit without activity on at least the latest `rows` rows."""
        assert self.active_rows is not None
        return self.rows - self.active_rows >= rows

    def _measure(self, step: int, epoch: int, values: Tensor, window: int) -> None:
        units = values.shape[1]
        frequency = activation_frequency(values, self.activation)
        active = frequency > 0 if has_off_state(self.activation) else values.amax(0) > values.amin(0)
        self.finite = bool(values.isfinite().all())
        self.rows += len(values)
        if self.active_rows is None or self.active_epochs is None or len(self.active_rows) != units:
            self.active_rows, self.active_epochs = torch.zeros(units).long(), torch.zeros(units).long()
        self.active_rows = torch.where(active, self.rows, self.active_rows)
        self.active_epochs = torch.where(active, epoch, self.active_epochs)
        self.history.append(
            {
                "step": step,
                "activation_frequency": frequency,
                "mean": values.mean(0),
                "sd": values.std(0, correction=0),
                "dead": self.silent(window),
            }
        )
        if len(self.history) > MOST_STEPS:
            self.history = self.history[::2]

    def _keep(self, chunk: dict[str, Tensor], window: int) -> None:
        count = len(chunk["values"])
        share = min(count, max(1, -(-count * MOST_ROWS // max(window, 1)))) if window > MOST_ROWS else count
        index = (
            torch.linspace(0, count - 1, min(share, MOST_ROWS)).long() if share < count or count > MOST_ROWS else None
        )
        self._chunks.append(chunk if index is None else {name: values[index] for name, values in chunk.items()})
        most = min(max(window, LEAST_ROWS), MOST_ROWS)
        total = sum(len(chunk["values"]) for chunk in self._chunks)
        while len(self._chunks) > 1 and total - len(self._chunks[0]["values"]) >= most:
            total -= len(self._chunks.popleft()["values"])
