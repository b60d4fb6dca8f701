"""Partition of an experiment into stacks: members that run the same program are trained as one batched program.

Members that differ in numbers share a stack; members that differ in structure do not. The partition depends on the
experiment alone, never on earlier results: with BatchNorm, a member's last bits depend on the size of its stack.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapreplace
from itertools import islice
from typing import TYPE_CHECKING

from harness.factors import Level, is_number
from harness.grid.factorial import Member

if TYPE_CHECKING:
    from harness.grid.experiment import Experiment

LARGEST = 64  # members: beyond this the optimizer's state no longer fits the processor's cache
MULTIPLE = 8  # stacks with BatchNorm agree bit for bit at sizes that are multiples of it
WORTH_A_START = 100_000  # member-steps: several times what a worker takes to load its libraries and try a structure


@dataclass(frozen=True, slots=True)
class StackPlan:
    """Members that are trained as one batched program, and what they share."""

    members: tuple[Member, ...]
    why: str


def stacks(experiment: "Experiment", case: object = None) -> list[StackPlan]:
    """Group the experiment's members by structure, and divide each group into stacks of at most 64.

    Args:
        experiment: whose members are grouped.
        case: ignored: the partition must not depend on the current content of a file.
    """
    structural = [name for name in experiment.factors if not is_number(name)]
    groups: dict[tuple[tuple[Level, ...], int], list[Member]] = {}
    for member in experiment.members():
        structure = tuple(member.variant.levels[name] for name in structural)
        groups.setdefault((structure, member.split), []).append(member)
    plans: list[StackPlan] = []
    for (structure, split), members in groups.items():
        where = f"; split {split} of the rows" if experiment.splits > 1 else ""
        plans.extend(_cut(members, _why(structural, structure) + where))
    return plans


def chunk_sizes(members: int, most: int = LARGEST) -> list[int]:
    """Sizes of nearly equal stacks of at most `most` members; all but the last are multiples of 8.

    >>> chunk_sizes(160), chunk_sizes(10)
    ([56, 56, 48], [10])
    """
    stacks_needed = -(-members // most)
    length = _multiple(-(-members // stacks_needed))
    return [min(length, members - start) for start in range(0, members, length)]


def dealt(sizes: Sequence[int], workers: int, steps: int) -> list[list[int]]:
    """Split the stacks of the last rounds, so that every worker has a share of them.

    Args:
        sizes: members of each remaining stack, the largest first.
        workers: number of worker processes; each trains one stack at a time.
        steps: training steps of a member; a small chunk is trained faster than another worker starts.

    >>> dealt([48], 2, 10_000), dealt([64, 64, 64], 2, 10_000), dealt([48], 2, 100)
    ([[24, 24]], [[32, 32], [32, 32], [32, 32]], [[48]])
    """
    uncut = workers * max(0, len(sizes) // workers - 1)
    members = sum(sizes[uncut:])
    rounds = -(-members // (workers * LARGEST))
    share = min(LARGEST, _multiple(max(-(-members // (workers * max(1, rounds))), WORTH_A_START // max(1, steps))))
    chunks = [
        chunk_sizes(size, share) if index >= uncut and size * steps >= 2 * WORTH_A_START else [size]
        for index, size in enumerate(sizes)
    ]
    shorter = _longest([size for stack_chunks in chunks for size in stack_chunks], workers) < _longest(sizes, workers)
    return chunks if shorter else [[size] for size in sizes]


def _longest(sizes: Sequence[int], workers: int) -> int:
    """Members of the busiest worker, if each free worker takes the largest remaining stack."""
    loads = [0] * workers
    for size in sorted(sizes, reverse=True):
        heapreplace(loads, loads[0] + size)
    return max(loads)


def _multiple(members: int) -> int:
    return -(-members // MULTIPLE) * MULTIPLE


def _cut(members: Sequence[Member], why: str) -> list[StackPlan]:
    sizes, remaining = chunk_sizes(len(members)), iter(members)
    parts = [f"; part {part} of {len(sizes)}" if len(sizes) > 1 else "" for part in range(1, len(sizes) + 1)]
    return [StackPlan(tuple(islice(remaining, size)), why + part) for size, part in zip(sizes, parts, strict=True)]


def _why(names: Sequence[str], structure: Sequence[Level]) -> str:
    if not names:
        return "one structure: members differ in numbers and seeds only"
    return ", ".join(f"{name}={level}" for name, level in zip(names, structure, strict=True))
