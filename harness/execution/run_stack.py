"""One stack, trained and judged: what its members left behind. Pure: it writes nothing and asks nobody."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

from harness.execution.history import History
from harness.execution.member_record import failed, member_records
from harness.execution.program_batches import CaseCache, ProgramBatch, fallback_batches, group_programs
from harness.execution.spec import StackSpec
from harness.results.records import MemberRecord
from harness.training import Snapshot, gpu_name, train
from harness.user_code import CaseExit, end_if_forked, guarded


def run_stack(
    spec: StackSpec, progress: Callable[[int], None] | None = None, known: CaseCache | None = None
) -> list[MemberRecord]:
    """Train the members of a stack and judge each.

    Args:
        spec: who they are.
        progress: told how many member-steps were done since it was last told.
        known: what earlier stacks of the same experiment found out.

    Returns:
        One record a member, in the order of `spec.members`. A remedy that finds no place, or a loss that raises, is
        a failed record with the reason, never an exception.
    """
    records: dict[str, MemberRecord] = {}
    known, process = known or CaseCache(), os.getpid()

    def tell(steps: int) -> None:
        end_if_forked(process)  # before anybody hears of it
        if progress is not None:
            progress(steps)

    try:
        with guarded():
            batches = group_programs(spec, records, known)
    except CaseExit as error:
        return [failed(member, error) for member in spec.members]
    for batch in batches:
        records |= {record.key: record for record in _carried_out(batch, spec, known, tell)}
    return [records[member.key] for member in spec.members]


def _carried_out(
    batch: ProgramBatch, spec: StackSpec, known: CaseCache, progress: Callable[[int], None]
) -> list[MemberRecord]:
    """The records of a program, and of its parts where it fails as a whole."""
    told: list[int] = []

    def tell(steps: int) -> None:
        told.append(steps)
        progress(steps)

    try:
        with guarded():
            found = _trained(batch, tell)
    except Exception as error:  # the author's code may raise anything, and the other programs go on
        smaller = _smaller(batch, spec, known, error)
        if smaller:
            progress(-sum(told))
            return [record for part in smaller for record in _carried_out(part, spec, known, progress)]
        return [failed(each, error) for each in batch.members]
    return [replace(record, alone=batch.alone, gpu=gpu_name(batch.device)) for record in found]


def _smaller(batch: ProgramBatch, spec: StackSpec, known: CaseCache, error: Exception) -> list[ProgramBatch]:
    """The parts of a program that failed; none where the case ends as they are built."""
    try:
        with guarded():
            return fallback_batches(batch, spec, known, error)
    except CaseExit:
        return []


def _trained(batch: ProgramBatch, progress: Callable[[int], None]) -> list[MemberRecord]:
    started, done = time.perf_counter(), 0
    members, cases = batch.members, batch.cases
    padding = _padding(batch)
    seeds = [member.seed for member in members]
    numbers = cases[0].training()
    history = History(len(members), batch.split, numbers, batch.device)
    cases, seeds = [*cases, *[cases[-1]] * padding], [*seeds, *[seeds[-1]] * padding]
    snapshot: Snapshot | None = None
    for snapshot in train(cases, seeds, batch.split, batch.stacking, batch.device):
        history.add(snapshot)
        progress((snapshot.step - done) * len(members))
        done = snapshot.step
    assert snapshot is not None
    return member_records(batch, snapshot, history, (time.perf_counter() - started) / len(members))


def _padding(batch: ProgramBatch) -> int:
    """How many copies of the last member fill the stack to a size at which nobody's roundings depend on it."""
    count = len(batch.members)
    return 0 if batch.stacking.rule is None else batch.stacking.filled(count) - count
