"""Members trained under changes and seeds: in worker processes for a case in a file, in this process for any other."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.case import Case
from harness.execution.pool import run_stacks
from harness.execution.spec import StackMember, StackSpec
from harness.experiment.driver import cores
from harness.factors import Level, is_number
from harness.results import MemberRecord

Cell = Mapping[str, Level]
LARGEST = 64  # members of a stack
UNTREATED: Cell = {}


@dataclass
class Trial:
    """Train cells of changes on seeds, and remember what was trained.

    Args:
        case: the case as its author wrote it.
        reference: a shipped name or the path of the case's file; None for a case made in this process.
        workers: worker processes; 0 trains in this process.
        seconds: training time so far, of all processes together.
        members: members trained so far.
    """

    case: Case
    reference: str | None
    workers: int
    seconds: float = 0.0
    members: int = 0
    records: dict[tuple[str, int], MemberRecord] = field(default_factory=dict)

    def train(self, cells: Iterable[Cell], seeds: Sequence[int]) -> None:
        """Train every cell on every seed that it was not trained on before."""
        missing = [(cell, seed) for cell in cells for seed in seeds if (name_of(cell), seed) not in self.records]
        if not missing:
            return
        started = time.perf_counter()
        specifications = self._specifications(missing, seeds)
        for stack in run_stacks(specifications, self.workers if self.reference else 0):
            self.records |= {(record.variant, record.seed): record for record in stack}
        self.seconds += time.perf_counter() - started
        self.members += len(missing)

    def results(self, cell: Cell, seeds: Sequence[int]) -> list[MemberRecord]:
        """Return the records of a cell, in the order of the seeds; a member without a result is left out."""
        name = name_of(cell)
        return [self.records[name, seed] for seed in seeds if (name, seed) in self.records]

    @property
    def seconds_per_member(self) -> float:
        """Wall seconds a member, over everything trained so far; 0 before anything was."""
        return self.seconds / self.members if self.members else 0.0

    def _specifications(self, missing: Sequence[tuple[Cell, int]], seeds: Sequence[int]) -> list[StackSpec]:
        """Stacks of members of one structure; numbers and seeds may differ within a stack."""
        groups: dict[str, list[StackMember]] = {}
        for cell, seed in missing:
            structure = json.dumps({name: level for name, level in sorted(cell.items()) if not is_number(name)})
            name = name_of(cell)
            key = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()[:16]
            groups.setdefault(structure, []).append(StackMember(key, name, dict(cell), seed))
        return [
            StackSpec(self.reference or self.case, None, tuple(members[start : start + LARGEST]), {}, seeds[0])
            for members in groups.values()
            for start in range(0, len(members), LARGEST)
        ]


def name_of(cell: Cell) -> str:
    """Return the name of a change.

    >>> name_of({}), name_of({"batchnorm": "on", "beta": 0.1})
    ('as it is', 'batchnorm=on beta=0.1')
    """
    return (
        " ".join(
            f"{name}={level:g}" if isinstance(level, float) else f"{name}={level}"
            for name, level in sorted(cell.items())
        )
        or "as it is"
    )


def cores_for(reference: str | None) -> int:
    """Return the number of worker processes for a case: one per core, none for a case made in this process."""
    return cores() if reference else 0
