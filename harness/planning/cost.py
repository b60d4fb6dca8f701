"""Estimated cost of an experiment (steps, rows, megabytes, minutes), and the smallest effect that it can detect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.grid.stack_plan import StackPlan
from harness.grid.student import student_quantile
from harness.minibatches import steps_per_epoch

# seconds on one core for a step of the source network at batch 64, snapshots included, measured at stacks of 8 and 40
# and alone on a shared machine: right within a factor of two or so, for networks of this size
PER_STEP, PER_MEMBER_STEP, ALONE_STEP = 1.0e-3, 0.16e-3, 2.2e-3
STARTING = 10.0  # seconds of a run before the first step and after the last: libraries, store, report
PER_MEMBER = 0.2  # seconds: the verdict with its references, and the tracker's rows
CORES = 2
# the tracker gets rows of so many units (mutual information) at so many snapshots (R2 and gradients)
SHOWN_UNITS, SHOWN_SNAPSHOTS = 8, 6
ROW_BYTES, MEMBER_BYTES = 220, 24_000  # of the store per metric row; of the results per member
STATED_DEVIATIONS = (0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Detectable:
    """Smallest effect that four of five repetitions of the experiment detect at the 5 % level.

    Args:
        deviation: standard deviation, over seeds, of the per-seed mean difference.
        effect: in the units of the outcome; None for a single seed, which can show no effect.
        source: of the deviation: stated, or earlier results.
    """

    deviation: float
    effect: float | None
    source: str


@dataclass(frozen=True)
class Training:
    """Training numbers and rows, which decide how long a member trains.

    Args:
        numbers: training numbers of the case, overridden by the experiment's.
        rows: training rows.
    """

    numbers: Mapping[str, Any]
    rows: int

    def steps_per_epoch(self, levels: Mapping[str, Any]) -> int:
        """Optimizer steps of one epoch with these levels.

        >>> Training({"batch_size": 64}, 130).steps_per_epoch({"batch_size": 50})
        3
        """
        return steps_per_epoch(self.rows, int(levels.get("batch_size", self.numbers["batch_size"])))

    def steps(self, levels: Mapping[str, Any]) -> int:
        """Optimizer steps of a member with these levels."""
        return self.steps_per_epoch(levels) * int(levels.get("epochs", self.numbers["epochs"]))

    def snapshots(self, levels: Mapping[str, Any]) -> int:
        """Number of snapshots of a member, including the one at initialization."""
        return 1 + -(
            -int(levels.get("epochs", self.numbers["epochs"])) // max(1, round(self.numbers["snapshot_every"]))
        )


def member_steps(training: Training, plans: Sequence[StackPlan]) -> list[int]:
    """Return the optimizer steps of each stack, summed over its members."""
    return [sum(training.steps(member.variant.levels) for member in plan.members) for plan in plans]


def minutes(steps: Sequence[int], sizes: Sequence[int], alone: Sequence[bool], rate: float | None = None) -> float:
    """Estimate the duration of a run on two cores.

    Args:
        steps: member-steps of each stack.
        sizes: members of each stack.
        alone: whether the members of each stack train one by one.
        rate: member-steps per second and core, from earlier results.
    """
    seconds = sum(
        stack_steps / rate if rate else _seconds(stack_steps, size, single)
        for stack_steps, size, single in zip(steps, sizes, alone, strict=True)
    )
    return (STARTING + (seconds + PER_MEMBER * sum(sizes)) / CORES) / 60


def _seconds(steps: int, size: int, alone: bool) -> float:
    # a batched step costs as much as a single one, plus a little for each member
    return steps * (ALONE_STEP if alone else PER_STEP / size + PER_MEMBER_STEP)


def metric_rows(training: Training, plans: Sequence[StackPlan], units: int, terms: int) -> int:
    """Estimate the rows of the tracker: curves of up to 8 units and of every loss term at up to 6 snapshots."""
    curves = (
        3 * min(units, SHOWN_UNITS) + terms + 1 + 3
    )  # three measures per unit; terms and total; R2, live units, rank
    counts = (training.snapshots(member.variant.levels) for plan in plans for member in plan.members)
    return sum(curves * min(snapshots, SHOWN_SNAPSHOTS) for snapshots in counts)


def megabytes(rows: int, members: int) -> float:
    """Estimate the size of the store and the results."""
    return (rows * ROW_BYTES + members * MEMBER_BYTES) / 1e6


def detectable(seeds: int, earlier: Mapping[str, float] | None = None) -> list[Detectable]:
    """Smallest detectable effects: (t_0.975 + t_0.80) sd / sqrt(S), with S - 1 degrees of freedom.

    Args:
        seeds: S.
        earlier: standard deviation of each factor's per-seed differences in earlier results; without it 0.1, 0.2, 0.3.

    >>> [round(effect.effect, 3) for effect in detectable(10)]
    [0.099, 0.199, 0.298]
    """
    stated = {f"stated: {deviation}": deviation for deviation in STATED_DEVIATIONS}
    measured = {f"earlier results: {factor}": deviation for factor, deviation in (earlier or {}).items()}
    return [
        Detectable(deviation, _effect(deviation, seeds), source) for source, deviation in (measured or stated).items()
    ]


def _effect(deviation: float, seeds: int) -> float | None:
    if seeds < 2:
        return None
    return (student_quantile(0.975, seeds - 1) + student_quantile(0.8, seeds - 1)) * deviation / seeds**0.5
