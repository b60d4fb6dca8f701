"""Streaming record of the units of a layer: firing counts, moments, and times of death and revival."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.measures.units import has_off_state

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]
Values = NDArray[np.float64]

SILENT_EPOCHS = 3  # epochs without activity after which a unit is reported
SILENT_ROWS = 10_000  # the same for rows that never return: a frequency below 0.0004 (Clopper-Pearson)


class Clocks(NamedTuple):
    """Position of some steps in the training, `[step]`.

    Args:
        step: their numbers, from 1.
        epoch: number of complete epochs.
        window: rows of a window.
        returning: True if epochs are known.
    """

    step: Counts
    epoch: Counts
    window: Counts
    returning: Flags

    def at(self, index: Sequence[int] | slice) -> "Clocks":
        """Return the clocks of some of the steps."""
        return Clocks(self.step[index], self.epoch[index], self.window[index], self.returning[index])


class StepChanges(NamedTuple):
    """Units `[step, unit]`: dead (not active on a whole window), silent for 3 epochs since this step, active again."""

    dead: Flags
    silenced: Flags
    revived: Flags


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
        self.active_step, self.active_rows, self.active_epoch = (np.zeros(units, np.int64) for _ in range(3))
        self.fired = np.zeros(units, np.int64)  # rows
        self.mean, self.squares = np.zeros(units), np.zeros(units)
        self.dead, self.silent = np.zeros(units, bool), np.zeros(units, bool)
        self.death, self.revival = np.full(units, -1), np.full(units, -1)
        self.revivals = np.zeros(units, np.int64)

    def add_moments(self, fired: Counts, mean: Values, variance: Values, rows: int) -> None:
        """Add steps of `rows` rows each: counts, means and variances `[step, unit]`."""
        count = rows * len(mean)
        step_mean = mean.mean(0, dtype=np.float64)
        squares = rows * (variance.sum(0, dtype=np.float64) + np.square(mean - step_mean).sum(0))
        total = self.rows + count
        shift = step_mean - self.mean
        self.squares += squares + np.square(shift) * (self.rows * count / total)
        self.mean += shift * (count / total)
        self.fired += fired.sum(0)

    def add_activity(self, active: Flags, rows: int, clocks: Clocks) -> StepChanges:
        """Add the activity `[step, unit]` of steps of `rows` rows each, and return what changed in each step."""
        steps, epochs, windows = clocks.step[:, None], clocks.epoch[:, None], clocks.window[:, None]
        returning = clocks.returning[:, None]
        passed = self.rows + rows * np.arange(1, len(steps) + 1)[:, None]
        active_rows = _latest(self.active_rows, active, passed)
        active_step = _latest(self.active_step, active, steps)
        active_epoch = _latest(self.active_epoch, active, epochs)
        dead = passed - active_rows >= windows
        earlier = np.concatenate([self.dead[None], dead[:-1]])
        revived, died = earlier & active, dead & ~earlier
        if died.any():
            self.death = np.where(died.any(0), (died * active_step).max(0), self.death)
        if revived.any():
            self.revival = np.where(revived.any(0), (revived * steps).max(0), self.revival)
            self.revivals = self.revivals + revived.sum(0)
        silent = np.where(returning, epochs - active_epoch >= SILENT_EPOCHS, passed - active_rows >= SILENT_ROWS)
        self.active_rows, self.active_step, self.active_epoch = active_rows[-1], active_step[-1], active_epoch[-1]
        self.dead, self.rows = dead[-1], int(passed[-1, 0])
        silenced = silent & ~np.concatenate([self.silent[None], silent[:-1]])
        self.silent = silent[-1]
        return StepChanges(dead, silenced, revived)

    def frequency(self, activation: str) -> Values:
        """Return the share of all rows on which each unit fired; NaN for an activation without an off state."""
        return self.fired / max(self.rows, 1) if has_off_state(activation) else np.full(self.units, np.nan)

    @property
    def standard_deviation(self) -> Values:
        """Standard deviation of each unit over all rows."""
        return np.sqrt(np.maximum(self.squares / max(self.rows, 1), 0))

    @classmethod
    def merged(cls, records: "Sequence[UnitRecord]") -> "UnitRecord":
        """Return the record of several processes that trained one model in the same steps."""
        total = cls(records[0].units)
        for record in records:
            variance = (record.squares / max(record.rows, 1))[None]
            total.add_moments(record.fired[None], record.mean[None], variance, record.rows)
            total.rows += record.rows
        for name in ("active_rows", "active_step", "active_epoch", "revival"):
            setattr(total, name, np.max([getattr(record, name) for record in records], 0))
        total.active_rows *= len(records)
        total.dead = np.all([record.dead for record in records], 0)
        # silent in all processes: dead since the latest of their deaths
        silent = np.all([record.death >= 0 for record in records], 0)
        total.death = np.where(silent, np.max([record.death for record in records], 0), -1)
        total.revival = np.where(silent, total.revival, -1)
        total.revivals = np.min([record.revivals for record in records], 0)
        return total


def _latest(before: Counts, active: Flags, positions: Counts) -> Counts:
    """Return the latest position of activity `[step, unit]` up to each step.

    >>> _latest(np.array([3]), np.array([[False], [True], [False]]), np.array([[5], [6], [7]])).tolist()
    [[3], [6], [6]]
    """
    latest: Counts = np.maximum.accumulate(np.where(active, positions, before), 0)
    return latest
