"""Statistics of one watched layer: a record of all units, a history of steps, and a window of the latest rows."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.measures.units import fires, has_off_state
from harness.watching.layers import unit_axis_of, unit_rows
from harness.watching.unit_record import Clock, StepChanges, UnitRecord

LEAST_ROWS = 1000  # of a window: 0 of 1,000 rows puts a frequency below 0.0037 (Clopper-Pearson)
MOST_ROWS = 8192  # of a window; of a longer epoch, an even share of every step
MOST_UNITS = 2**15  # in a window; of a wider layer, units evenly spaced. The record has all units
MOST_VALUES = 2**25  # of a window, 128 MiB of float32
MOST_STEPS = 4096  # of a history; at more, steps at twice the distance
MOST_RECORDS = 2**22  # steps x units of a history, about 100 MiB
DOUBLE_VALUES = 2**18  # up to which float64 costs little


@dataclass(frozen=True)
class Reading:
    """Code of a layer in one step.

    Args:
        codes: one tensor per call of the layer.
        activation: the activation in use.
        labels: `[sample]`, or None.
        mask: `[sample, position]`, True where there is no padding, or None.
        gradients: term -> `[unit]`, norm of the term's gradient at the layer; may be filled later.
    """

    codes: list[Tensor]
    activation: str
    labels: Tensor | None = None
    mask: Tensor | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)

    @property
    def values(self) -> int:
        """Number of values."""
        return sum(code.numel() for code in self.codes)

    def alike(self, other: "Reading") -> bool:
        """Return True if both can be measured at once."""
        single = len(self.codes) == len(other.codes) == 1 and self.mask is None and other.mask is None
        first, second = self.codes[0], other.codes[0]
        same = first.shape == second.shape and first.dtype == second.dtype and first.device == second.device
        return single and same and self.activation == other.activation


@dataclass(frozen=True)
class WindowRows:
    """Rows of one step in the window; `sample` counts from the first sample of the training."""

    values: Tensor
    sample: Tensor
    labels: Tensor | None


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
        self.calls, self.masked = 1, False
        self.record: UnitRecord | None = None
        self.sampled: Tensor | None = None  # the units in the window, if not all
        self.history: list[dict[str, Any]] = []
        self._stride, self._steps = 1, 0  # of the history
        self._chunks: deque[WindowRows] = deque()
        self._chunk_rows = self._samples = 0

    @torch.no_grad()
    def add(self, readings: Sequence[Reading], clocks: Sequence[Clock]) -> tuple[list[bool], StepChanges]:
        """Record readings of equal shape; return which are finite, and what changed in each.

        The windows of the clocks count samples; `clocks` and `readings` have one entry per step.
        """
        first = readings[0]
        self.activation, self.calls, self.masked = first.activation, len(first.codes), first.mask is not None
        self.shape, self.axis = tuple(first.codes[0].shape), unit_axis_of(self.module, first.codes[0], self.declared)
        values = self._rows(readings)
        rows, units = values.shape[1:]
        samples = len(first.codes[0])
        positions = max(1, rows // max(samples, 1))
        clocks = [clock._replace(window=max(LEAST_ROWS, clock.window * positions)) for clock in clocks]
        self._keep(readings, clocks, values)
        if self.record is None or self.record.units != units:
            self.record, self.history = UnitRecord(units), []
        return self._measure(readings, clocks, values)

    def window(self) -> dict[str, Tensor]:
        """Return the rows of the window: `values`, `sample`, and `labels` where every step brought them."""
        if not self._chunks:
            return {}
        rows = {
            "values": torch.cat([chunk.values for chunk in self._chunks]),
            "sample": torch.cat([chunk.sample for chunk in self._chunks]),
        }
        labels = [chunk.labels for chunk in self._chunks if chunk.labels is not None]
        return {**rows, "labels": torch.cat(labels)} if len(labels) == len(self._chunks) else rows

    def state(self) -> dict[str, Any]:
        """Return what another process needs to add its rows to these."""
        facts = {"activation": self.activation, "axis": self.axis, "shape": self.shape}
        return {**facts, "record": self.record, "history": self.history, "chunks": list(self._chunks)}

    def replace_rows(self, chunks: deque[WindowRows]) -> None:
        """Replace the rows of the window."""
        self._chunks, self._chunk_rows = chunks, sum(len(chunk.values) for chunk in chunks)

    def _rows(self, readings: Sequence[Reading]) -> Tensor:
        """Return the values as `[step, row, unit]`."""
        if len(readings) > 1:
            stacked = torch.stack([reading.codes[0] for reading in readings])
            return stacked if stacked.dim() == 3 else stacked.movedim(self.axis + 1, -1).flatten(1, -2)
        reading = readings[0]
        if reading.mask is None:
            return torch.cat([unit_rows(code, self.axis) for code in reading.codes])[None]
        parts = [code.movedim(self.axis, -1).flatten(1, -2)[reading.mask] for code in reading.codes]
        return torch.cat(parts)[None]

    def _measure(
        self, readings: Sequence[Reading], clocks: Sequence[Clock], values: Tensor
    ) -> tuple[list[bool], StepChanges]:
        assert self.record is not None
        wide = values.double() if values.numel() <= DOUBLE_VALUES or values.dtype == torch.float64 else values.float()
        rows = values.shape[1]
        variance, mean = torch.var_mean(wide, 1, correction=0)
        if has_off_state(self.activation):
            fired = fires(wide, self.activation).sum(1)
            active, frequency = fired > 0, fired / rows
        else:
            low, high = torch.aminmax(wide, dim=1)
            active = high > low
            fired, frequency = active.long(), torch.full_like(mean, torch.nan)
        active, fired, mean, variance, frequency = (
            tensor.cpu() for tensor in (active, fired, mean, variance, frequency)
        )
        finite = mean.isfinite().all(-1).tolist()
        if all(finite):
            self.record.add_moments(fired, mean, variance, rows)
        changes = self.record.add_activity(active, rows, clocks)
        measures = {
            "activation_frequency": frequency.to(mean.dtype),
            "mean": mean,
            "sd": variance.sqrt(),
            "dead": changes.dead,
        }
        for index, (reading, clock) in enumerate(zip(readings, clocks, strict=True)):
            entry = {name: measure[index] for name, measure in measures.items()}
            self._remember({"step": clock.step, "rows": rows, "gradients": reading.gradients, **entry})
        return finite, changes

    def _remember(self, entry: dict[str, Any]) -> None:
        """Add a step to the history; if it is full, keep every second one, evenly spaced over the whole training."""
        self._steps += 1
        if (self._steps - 1) % self._stride:
            return
        self.history.append(entry)
        most = min(MOST_STEPS, max(8, MOST_RECORDS // max(1, len(entry["mean"]))))
        if len(self.history) > most:
            self._stride *= 2
            # a step's numbers are views of those of several steps
            self.history = [
                {name: value.clone() if isinstance(value, Tensor) else value for name, value in step.items()}
                for step in self.history[::2]
            ]

    def _keep(self, readings: Sequence[Reading], clocks: Sequence[Clock], values: Tensor) -> None:
        """Add rows to the window, and drop the oldest."""
        rows, units = values.shape[1:]
        if units > MOST_UNITS:
            self.sampled = torch.linspace(0, units - 1, MOST_UNITS).long()
            values = values[..., self.sampled.to(values.device)]
        most_rows = max(LEAST_ROWS, min(MOST_ROWS, MOST_VALUES // min(units, MOST_UNITS)))
        own, samples = values.cpu(), len(readings[0].codes[0])
        for index, (reading, clock) in enumerate(zip(readings, clocks, strict=True)):
            most = min(clock.window, most_rows)
            share = min(rows, max(1, -(-rows * most // clock.window)), most_rows)
            sample = self._samples + self._sample_of(reading, rows)
            labels = reading.labels if reading.labels is not None and len(reading.labels) == samples else None
            labels = None if labels is None else labels.detach().cpu()[sample - self._samples]
            chunk = WindowRows(own[index], sample, labels)
            if share < rows:
                chosen = torch.linspace(0, rows - 1, share).long()
                chunk = WindowRows(own[index][chosen], sample[chosen], None if labels is None else labels[chosen])
            self._samples += samples
            self._chunks.append(chunk)
            self._chunk_rows += len(chunk.values)
            while len(self._chunks) > 1 and self._chunk_rows - len(self._chunks[0].values) >= most:
                self._chunk_rows -= len(self._chunks.popleft().values)

    def _sample_of(self, reading: Reading, rows: int) -> Tensor:
        """Return the sample of each row, from 0."""
        samples, calls = len(reading.codes[0]), len(reading.codes)
        if reading.mask is not None:
            return reading.mask.cpu().nonzero()[:, 0].repeat(calls)
        if rows == samples:
            return torch.arange(samples)
        counts = [len(code) for code in reading.codes]
        positions = [code.numel() // max(1, len(code) * code.shape[self.axis]) for code in reading.codes]
        return torch.cat(
            [torch.arange(count).repeat_interleave(many) for count, many in zip(counts, positions, strict=True)]
        )
