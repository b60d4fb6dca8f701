"""Streaming record of the units of a layer: firing counts, moments, and times of death and revival."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.measures.units import has_off_state

SILENT_EPOCHS = 3  # epochs without activity after which a unit is reported
SILENT_ROWS = 10_000  # the same for rows that never return: a frequency below 0.0004 (Clopper-Pearson)


class Clock(NamedTuple):
    """Position of a step in the training.

    Args:
        step: its number, from 1.
        epoch: number of complete epochs.
        window: rows of a window.
        returning: True if epochs are known.
    """

    step: int
    epoch: int
    window: int
    returning: bool


class StepChanges(NamedTuple):
    """Units `[step, unit]` that are dead (not active on a whole window), silent (for 3 epochs), and active again."""

    dead: Tensor
    silent: Tensor
    revived: Tensor


class UnitRecord:
    """Record of each unit over a whole training, in a fixed amount of memory.

    A unit is active in a step if it fires on some row of it; a unit without an off state, if it varies. It is dead after a
    whole window without activity; its death is the last step with activity (0 without any), its revival the first active
    step afterwards.

    Args:
        units: number of units.
    """

    def __init__(self, units: int) -> None:
        self.units, self.rows = units, 0
        self.active_step, self.active_rows, self.active_epoch = (torch.zeros(units).long() for _ in range(3))
        self.fired = torch.zeros(units).long()  # rows
        self.mean, self.squares = torch.zeros(units).double(), torch.zeros(units).double()
        self.dead = torch.zeros(units).bool()
        self.death, self.revival = torch.full((units,), -1), torch.full((units,), -1)
        self.revivals = torch.zeros(units).long()

    def add_moments(self, fired: Tensor, mean: Tensor, variance: Tensor, rows: int) -> None:
        """Add steps of `rows` rows each: counts, means and variances `[step, unit]`."""
        count = rows * len(mean)
        mean, variance = mean.double(), variance.double()
        step_mean = mean.mean(0)
        squares = rows * (variance.sum(0) + (mean - step_mean).square().sum(0))
        total = self.rows + count
        shift = step_mean - self.mean
        self.squares += squares + shift.square() * (self.rows * count / total)
        self.mean += shift * (count / total)
        self.fired += fired.sum(0).long()

    def add_activity(self, active: Tensor, rows: int, clocks: Sequence[Clock]) -> StepChanges:
        """Add the activity `[step, unit]` of steps of `rows` rows each, and return what changed in each step."""
        steps, epochs, windows = (torch.tensor([clock[index] for clock in clocks])[:, None] for index in (0, 1, 2))
        passed = self.rows + rows * torch.arange(1, len(clocks) + 1)[:, None]
        active_rows = _latest(self.active_rows, active, passed)
        active_step = _latest(self.active_step, active, steps)
        active_epoch = _latest(self.active_epoch, active, epochs)
        dead = passed - active_rows >= windows
        earlier = torch.cat([self.dead[None], dead[:-1]])
        revived, died = earlier & active, dead & ~earlier
        if bool(died.any()):
            self.death = torch.where(died.any(0), (died * active_step).amax(0), self.death)
        if bool(revived.any()):
            self.revival = torch.where(revived.any(0), (revived * steps).amax(0), self.revival)
            self.revivals += revived.sum(0)
        returning = torch.tensor([clock.returning for clock in clocks])[:, None]
        silent = torch.where(returning, epochs - active_epoch >= SILENT_EPOCHS, passed - active_rows >= SILENT_ROWS)
        self.active_rows, self.active_step, self.active_epoch = active_rows[-1], active_step[-1], active_epoch[-1]
        self.dead, self.rows = dead[-1], int(passed[-1])
        return StepChanges(dead, silent, revived)

    def frequency(self, activation: str) -> Tensor:
        """Return the share of all rows on which each unit fired; NaN for an activation without an off state."""
        frequency = self.fired.double() / max(self.rows, 1)
        return frequency if has_off_state(activation) else torch.full_like(frequency, torch.nan)

    @classmethod
    def merged(cls, records: "Sequence[UnitRecord]") -> "UnitRecord":
        """Return the record of several processes that trained one model in the same steps."""
        total = cls(records[0].units)
        for record in records:
            variance = (record.squares / max(record.rows, 1))[None]
            total.add_moments(record.fired[None], record.mean[None], variance, record.rows)
            total.rows += record.rows
        for name in ("active_rows", "active_step", "active_epoch", "revival"):
            setattr(total, name, torch.stack([getattr(record, name) for record in records]).amax(0))
        total.active_rows *= len(records)
        total.dead = torch.stack([record.dead for record in records]).all(0)
        # silent in all processes: dead since the latest of their deaths
        silent = torch.stack([record.death >= 0 for record in records]).all(0)
        total.death = torch.where(silent, torch.stack([record.death for record in records]).amax(0), -1)
        total.revival = torch.where(silent, total.revival, -1)
        total.revivals = torch.stack([record.revivals for record in records]).amin(0)
        return total

    @property
    def standard_deviation(self) -> Tensor:
        """Standard deviation of each unit over all rows."""
        return (self.squares / max(self.rows, 1)).clamp(min=0).sqrt()


def _latest(before: Tensor, active: Tensor, positions: Tensor) -> Tensor:
    """Return the latest position of activity `[step, unit]` up to each step.

    >>> _latest(torch.tensor([3]), torch.tensor([[False], [True], [False]]), torch.tensor([[5], [6], [7]])).tolist()
    [[3], [6], [6]]
    """
    latest = torch.where(active, positions, before)
    return latest.cummax(0).values
