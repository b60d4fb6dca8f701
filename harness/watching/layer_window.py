"""Statistics of one watched layer: a record of all units, a history of steps, and a window of the latest rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.capture.packing import Packing
from harness.measures.units import fires, has_off_state
from harness.watching.gradient_balance import GradientBalance
from harness.watching.layer_names import places_of_rows, unit_axis_of, unit_rows
from harness.watching.row_window import LEAST_ROWS, Block, RowWindow
from harness.watching.step_history import StepHistory, Steps
from harness.watching.unit_record import Clocks, StepChanges, UnitRecord
from harness.watching.value_history import ValueHistory

DOUBLE_VALUES = 2**14  # of a step, up to which float64 costs little
CACHED_VALUES = 2**17  # measured at once: temporaries that leave the cache take five times as long


@dataclass(slots=True)
class Reading:
    """Code of a layer in one step.

    Args:
        codes: one tensor per call of the layer.
        activation: the activation in use.
        labels: `[sample]`, or None.
        mask: `[sample, position]`, True where there is no padding, or None.
        gradients: term -> `[unit]`, norm of the term's gradient at the layer; may be filled later.
        packings: one per call; None for a call that returned no packed sequence.
    """

    codes: list[Tensor]
    activation: str
    labels: Tensor | None = None
    mask: Tensor | None = None
    gradients: dict[str, Tensor] = field(default_factory=dict)
    packings: Sequence[Packing | None] = ()

    @property
    def is_packed(self) -> bool:
        """True if the rows are the tokens of packed sequences."""
        return any(packing is not None for packing in self.packings)

    @property
    def samples(self) -> int:
        """Number of samples."""
        counts = [packing.samples for packing in self.packings if packing is not None]
        return max(counts) if counts else len(self.codes[0])

    def kind(self) -> Any:
        """Return what readings that are measured at once have in common; unequal to all others if there are none."""
        if len(self.codes) > 1 or self.mask is not None or self.is_packed:
            return object()
        code = self.codes[0]
        return code.shape, code.dtype, code.device, self.activation


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
        self.calls, self.masked, self.packed = 1, False, False
        self.noise = False  # True if the model draws Gaussian noise of the code's shape behind the layer
        self.record: UnitRecord | None = None
        self.history, self.window, self.balance = StepHistory(), RowWindow(), GradientBalance()
        self.values = ValueHistory()
        self._samples = 0

    @torch.no_grad()
    def add(self, readings: Sequence[Reading], clocks: Clocks) -> tuple[list[bool], StepChanges]:
        """Record readings of equal shape; return which are finite, and what changed in each.

        The windows of the clocks count samples; `clocks` and `readings` have one entry per step.
        """
        first = readings[0]
        code, self.activation = first.codes[0], first.activation
        self.calls, self.masked = len(first.codes), self.masked or first.mask is not None
        self.packed |= first.is_packed
        self.shape, self.axis = tuple(code.shape), unit_axis_of(self.module, code, self.declared)
        values = self._rows(readings)
        rows, units, samples = values.shape[1], values.shape[2], first.samples
        positions = max(1, rows // max(samples, 1))
        clocks = clocks._replace(window=np.maximum(LEAST_ROWS, clocks.window * positions))
        labels = [reading.labels for reading in readings]
        block = Block(values, self._samples, samples, *self._places(first, rows), labels)
        self._samples += samples * len(readings)
        self.window.add(block, int(clocks.window[-1]))
        if self.record is None or self.record.units != units:
            self.record, self.history, self.values = UnitRecord(units), StepHistory(), ValueHistory()
        self.values.add(clocks.step.tolist(), values, self.window.sampled)
        return self._measure(readings, clocks, values)

    def state(self) -> dict[str, Any]:
        """Return what another process needs to add its rows to these."""
        facts = {"activation": self.activation, "axis": self.axis, "shape": self.shape}
        return {**facts, "record": self.record, "history": self.history.steps(), "blocks": list(self.window.blocks)}

    def _rows(self, readings: Sequence[Reading]) -> Tensor:
        """Return the values as `[step, row, unit]`."""
        if len(readings) > 1:
            stacked = torch.stack([reading.codes[0] for reading in readings])
            return stacked if stacked.dim() == 3 else stacked.movedim(self.axis + 1, -1).flatten(1, -2)
        reading = readings[0]
        if reading.mask is None:
            return torch.cat([unit_rows(code, self.axis) for code in reading.codes])[None]
        mask = reading.mask.to(reading.codes[0].device)
        return torch.cat([code.movedim(self.axis, -1)[mask] for code in reading.codes])[None]

    def _measure(self, readings: Sequence[Reading], clocks: Clocks, values: Tensor) -> tuple[list[bool], StepChanges]:
        assert self.record is not None
        rows, off_state = values.shape[1], has_off_state(self.activation)
        steps = max(1, CACHED_VALUES // max(1, values[0].numel()))
        parts = [_moments(part, self.activation) for part in values.split(steps)]
        flags, counts, means, variances = (torch.cat(tensors).cpu().numpy() for tensors in zip(*parts, strict=True))
        finite = np.isfinite(means).all(-1)
        if finite.all():
            self.record.add_moments(counts, means, variances, rows)
        changes = self.record.add_activity(flags, rows, clocks)
        self.history.add(
            Steps(
                step=clocks.step,
                rows=np.full(len(readings), rows),
                activation_frequency=counts / rows if off_state else np.full_like(means, np.nan),
                mean=means,
                sd=np.sqrt(variances),
                dead=changes.dead,
                gradients=[reading.gradients for reading in readings],
            )
        )
        return finite.tolist(), changes

    def _places(self, reading: Reading, rows: int) -> tuple[Tensor | None, Tensor | None]:
        """Return the sample and the position of each row, from 0; None if each row is a sample.

        Another call of the layer is another position: a cell that is called once per token, for example.
        """
        calls = len(reading.codes)
        if rows == reading.samples and calls == 1 and reading.mask is None and not reading.is_packed:
            return None, None
        packings = reading.packings or [None] * calls
        pairs = [
            places_of_rows(code, self.axis, reading.mask, packing)
            for code, packing in zip(reading.codes, packings, strict=True)
        ]
        sizes = [1 + int(position.max()) for _, position in pairs]
        starts = [sum(sizes[:call]) for call in range(calls)]
        positions = [position + start for (_, position), start in zip(pairs, starts, strict=True)]
        return torch.cat([sample for sample, _ in pairs]), torch.cat(positions)


def _moments(values: Tensor, activation: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return `[step, unit]` of values `[step, row, unit]`: is the unit active, on how many rows it fires, mean, variance."""
    narrow = values[0].numel() <= DOUBLE_VALUES or values.dtype == torch.float64
    wide = values.double() if narrow else values.float()
    mean = wide.mean(1)
    variance = (wide - mean[:, None]).square_().mean(1)  # torch.var_mean takes ten times as long on this axis
    if has_off_state(activation):
        fired = fires(wide, activation).sum(1)
        return fired > 0, fired, mean, variance
    low, high = torch.aminmax(wide, dim=1)
    active = high > low
    return active, active.long(), mean, variance
