"""Members trained under changes and seeds: in worker processes for a case in a file, in this process for any other.

Results of a case in a file are stored as those of an experiment are, under the same keys, and used again.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.case import Case
from harness.execution.pool import run_stacks
from harness.execution.spec import StackMember, StackSpec
from harness.experiment.driver import cores
from harness.factors import Level, is_number
from harness.grid.case_facts import DEFAULT_TRAINING
from harness.results import MemberRecord, member_key, read_records, write_stack

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
        folder: of the stored results; None keeps nothing.
        inputs: fingerprints of the data and of the case, for the keys.
        seconds: training time so far, of all processes together.
        members: members trained so far.
        used: members whose results were stored before.
    """

    case: Case
    reference: str | None
    workers: int
    folder: Path | None = None
    inputs: tuple[str, str] = ("", "")
    seconds: float = 0.0
    members: int = 0
    used: int = 0
    records: dict[tuple[str, int], MemberRecord] = field(default_factory=dict)
    stored: dict[str, MemberRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder is not None and self.folder.is_dir():
            records = (record for record in read_records(self.folder)[0] if record.status != "failed")
            self.stored = {record.key: record for record in records}

    def train(self, cells: Iterable[Cell], seeds: Sequence[int]) -> None:
        """Train every cell on every seed that has no result yet; results are stored as each stack is done."""
        missing = [pair for cell in cells for seed in seeds if not self._has(pair := (cell, seed))]
        if not missing:
            return
        started, members = time.perf_counter(), len(self.records)
        try:
            for stack in run_stacks(self._specifications(missing, seeds), self.workers if self.reference else 0):
                self.records |= {(record.variant, record.seed): record for record in stack}
                if self.folder is not None:
                    write_stack(self.folder, stack)
        finally:
            self.seconds += time.perf_counter() - started
            self.members += len(self.records) - members

    def missing(self, cells: Iterable[Cell], seeds: Sequence[int]) -> int:
        """Number of members without a result."""
        return sum(not self._has((cell, seed)) for cell in cells for seed in seeds)

    def results(self, cell: Cell, seeds: Sequence[int]) -> list[MemberRecord]:
        """Return the records of a cell, in the order of the seeds; a member without a result is left out."""
        name = name_of(cell)
        return [self.records[name, seed] for seed in seeds if (name, seed) in self.records]

    @property
    def seconds_per_member(self) -> float:
        """Wall seconds a member, over everything trained so far; 0 before anything was."""
        return self.seconds / self.members if self.members else 0.0

    def _has(self, member: tuple[Cell, int]) -> bool:
        cell, seed = member
        name = name_of(cell)
        if (name, seed) in self.records:
            return True
        record = self.stored.get(self._key(cell, seed)) if self.stored else None
        if record is not None:
            self.used += 1
            self.records[name, seed] = replace(record, variant=name, levels=dict(cell))
        return record is not None

    def _key(self, cell: Cell, seed: int) -> str:
        if self.folder is None:
            return hashlib.sha256(f"{name_of(cell)} {seed}".encode()).hexdigest()[:16]
        train = {**DEFAULT_TRAINING, **self.case.train}
        numbers = {name: float(value) for name, value in self.case.numbers.items()}
        return member_key(cell, seed, numbers, train, *self.inputs)

    def _specifications(self, missing: Sequence[tuple[Cell, int]], seeds: Sequence[int]) -> list[StackSpec]:
        """Stacks of members of one structure; numbers and seeds may differ within a stack."""
        groups: dict[str, list[StackMember]] = {}
        for cell, seed in missing:
            structure = json.dumps({name: level for name, level in sorted(cell.items()) if not is_number(name)})
            member = StackMember(self._key(cell, seed), name_of(cell), dict(cell), seed)
            groups.setdefault(structure, []).append(member)
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
