"""The cut of an experiment into stacks: members that run the same program are trained as one.

What differs as a number stacks; what differs in structure splits. The cut depends on the experiment alone, never on
what has been done already: with BatchNorm, a member's last bits depend on the size of its stack.
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

LARGEST = 64  # members: beyond it the optimiser's state leaves the processor's cache
MULTIPLE = 8  # stacks with BatchNorm agree bit for bit at sizes that are multiples of it
WORTH_A_START = 100_000  # member-steps: several times what a worker takes to load its libraries and try a structure


@dataclass(frozen=True, slots=True)
class StackPlan:
    """Members that are trained as one batched program, and why they are these."""

    members: tuple[Member, ...]
    why: str


def stacks(experiment: "Experiment", case: object = None) -> list[StackPlan]:
    """The experiment's members, grouped by structure and cut into stacks of at most 64.

    Args:
        experiment: what is cut.
        case: not looked at: the cut must not depend on what a file happens to hold today.
    """
    structural = [name for name in experiment.factors if not is_number(name)]
    groups: dict[tuple[Level, ...], list[Member]] = {}
    for member in experiment.members():
        groups.setdefault(tuple(member.variant.levels[name] for name in structural), []).append(member)
    plans: list[StackPlan] = []
    for structure, members in groups.items():
        plans.extend(_cut(members, _why(structural, structure)))
    return plans


def chunk_sizes(members: int, most: int = LARGEST) -> list[int]:
    """Sizes of nearly equal stacks of at most `most` members, multiples of 8 but for the last.

    >>> chunk_sizes(160), chunk_sizes(10)
    ([56, 56, 48], [10])
    """
    pieces = -(-members // most)
    length = _multiple(-(-members // pieces))
    return [min(length, members - start) for start in range(0, members, length)]


def dealt(sizes: Sequence[int], workers: int, steps: int) -> list[list[int]]:
    """Each stack's pieces: the last rounds are cut so that every worker has its share, instead of one a whole stack.

    Args:
        sizes: members of the stacks that are left, the largest first.
        workers: how many take stacks, one at a time.
        steps: of a member; a piece with few of them is trained sooner than another worker has started.

    >>> dealt([48], 2, 10_000), dealt([64, 64, 64], 2, 10_000), dealt([48], 2, 100)
    ([[24, 24]], [[32, 32], [32, 32], [32, 32]], [[48]])
    """
    whole = workers * max(0, len(sizes) // workers - 1)
    members = sum(sizes[whole:])
    rounds = -(-members // (workers * LARGEST))
    share = min(LARGEST, _multiple(max(-(-members // (workers * max(1, rounds))), WORTH_A_START // max(1, steps))))
    found = [
        chunk_sizes(size, share) if place >= whole and size * steps >= 2 * WORTH_A_START else [size]
        for place, size in enumerate(sizes)
    ]
    shorter = _longest([size for pieces in found for size in pieces], workers) < _longest(sizes, workers)
    return found if shorter else [[size] for size in sizes]


def _longest(sizes: Sequence[int], workers: int) -> int:
    """Members of the worker that gets most, where each takes the largest stack that is left when it is free."""
    loads = [0] * workers
    for size in sorted(sizes, reverse=True):
        heapreplace(loads, loads[0] + size)
    return max(loads)


def _multiple(members: int) -> int:
    return -(-members // MULTIPLE) * MULTIPLE


def _cut(members: Sequence[Member], why: str) -> list[StackPlan]:
    sizes, left = chunk_sizes(len(members)), iter(members)
    parts = [f"; part {part} of {len(sizes)}" if len(sizes) > 1 else "" for part in range(1, len(sizes) + 1)]
    return [StackPlan(tuple(islice(left, size)), why + part) for size, part in zip(sizes, parts, strict=True)]


def _why(names: Sequence[str], structure: Sequence[Level]) -> str:
    if not names:
        return "one structure: members differ in numbers and seeds only"
    return ", ".join(f"{name}={level}" for name, level in zip(names, structure, strict=True))
