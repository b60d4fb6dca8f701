"""Members trained under changes and seeds: in worker processes for a case in a file, in this process for any other.

Results of a case in a file are stored as those of an experiment are, under the same keys, and used again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.case import Case
from harness.execution.executor import Executor
from harness.execution.pool import run_stacks
from harness.execution.spec import StackMember, StackSpec
from harness.experiment.cluster import connect
from harness.experiment.driver import cores
from harness.factors import Level, is_number
from harness.grid.case_facts import DEFAULT_TRAINING
from harness.planning.cost import ALONE_STEP, PER_MEMBER, PER_MEMBER_STEP, PER_STEP, Training
from harness.results import MemberRecord, member_key, read_records, write_stack

Cell = Mapping[str, Level]
LARGEST = 64  # members of a stack
PER_PROGRAM = 0.5  # seconds, for testing and recording a program
UNTREATED: Cell = {}


@dataclass
class Trial:
    """Train cells of changes on seeds, and remember what was trained.

    Args:
        case: the case as its author wrote it.
        reference: a shipped name or the path of the case's file; None for a case made in this process.
        workers: worker processes; 0 trains in this process. On an executor: stacks at a time.
        folder: of the stored results; None keeps nothing.
        inputs: fingerprints of the data and of the case, for the keys.
        rows: training rows, for the estimate of the time.
        executor: where members are trained; None means processes on this machine.
        seconds: wall time of training so far.
        planned: the time that the plan's rates give for the same members.
        used: members whose results were stored before.
    """

    case: Case
    reference: str | None
    workers: int
    folder: Path | None = None
    inputs: tuple[str, str] = ("", "")
    rows: int = 1000
    executor: Executor | None = None
    seconds: float = 0.0
    planned: float = 0.0
    used: int = 0
    records: dict[tuple[str, int], MemberRecord] = field(default_factory=dict)
    stored: dict[str, MemberRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder is not None and self.folder.is_dir():
            records = (record for record in read_records(self.folder)[0] if record.status != "failed")
            self.stored = {record.key: record for record in records}

    @contextmanager
    def training_on(self, on: str | None, says: Callable[[str], None]) -> Iterator[None]:
        """Train on a cluster within the block; with None on this machine, as outside of it.

        Raises:
            HarnessError: if the cluster cannot be reached.
        """
        if on is None:
            yield
            return
        executor = connect(
            on, self.reference or self.case, None, str(self.case.training()["device"]), says, lasting=True
        )
        self.executor, self.workers = executor, executor.slots
        try:
            yield
        finally:
            self.executor = None
            executor.close()

    def train(self, cells: Iterable[Cell], seeds: Sequence[int]) -> None:
        """Train every cell on every seed that has no result yet; results are stored as each stack is done."""
        missing = [pair for cell in cells for seed in seeds if not self._has(pair := (cell, seed))]
        if not missing:
            return
        started, planned = time.perf_counter(), self._planned(missing)
        try:
            workers = self.workers if self.reference or self.executor else 0
            for stack in run_stacks(self._specifications(missing, seeds), workers, executor=self.executor):
                self.records |= {(record.variant, record.seed): record for record in stack}
                if self.folder is not None:
                    write_stack(self.folder, stack)
        finally:
            self.seconds += time.perf_counter() - started
            self.planned += planned

    def expected(self, cells: Iterable[Cell], seeds: Sequence[int]) -> float:
        """Wall seconds of training these cells, by the plan's rates and the speed of everything trained so far.

        Members of one structure are one program, which costs little more than one member; stored results are free.
        """
        missing = [pair for cell in cells for seed in seeds if not self._has(pair := (cell, seed))]
        return self._planned(missing) * (self.seconds / self.planned if self.planned else 1.0)

    def results(self, cell: Cell, seeds: Sequence[int]) -> list[MemberRecord]:
        """Return the records of a cell, in the order of the seeds; a member without a result is left out."""
        name = name_of(cell)
        return [self.records[name, seed] for seed in seeds if (name, seed) in self.records]

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

    def _planned(self, missing: Sequence[tuple[Cell, int]]) -> float:
        """Seconds by the plan's rates, spread over the workers."""
        training = Training(self.case.training(), self.rows)
        groups: dict[str, list[int]] = {}
        for cell, _ in missing:
            groups.setdefault(_structure(cell), []).append(training.steps(cell))
        seconds = 0.0
        for steps in groups.values():
            alone = self.case.fit is not None
            programs = len(steps) if alone else -(-len(steps) // LARGEST)
            seconds += PER_PROGRAM * programs + PER_MEMBER * len(steps)
            seconds += ALONE_STEP * sum(steps) if alone else PER_STEP * max(steps) * programs
            seconds += 0.0 if alone else PER_MEMBER_STEP * sum(steps)
        return seconds / max(1, min(self.workers, len(groups)))

    def _specifications(self, missing: Sequence[tuple[Cell, int]], seeds: Sequence[int]) -> list[StackSpec]:
        """Stacks of members of one structure; numbers and seeds may differ within a stack."""
        groups: dict[str, list[StackMember]] = {}
        for cell, seed in missing:
            member = StackMember(self._key(cell, seed), name_of(cell), dict(cell), seed)
            groups.setdefault(_structure(cell), []).append(member)
        return [
            StackSpec(self.reference or self.case, None, tuple(members[start : start + LARGEST]), {}, seeds[0])
            for members in groups.values()
            for start in range(0, len(members), LARGEST)
        ]


def _structure(cell: Cell) -> str:
    """The levels of a cell that need a program of their own."""
    return json.dumps({name: level for name, level in sorted(cell.items()) if not is_number(name)})


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
