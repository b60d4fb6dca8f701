"""Training and judgment of one stack. Writes no files and reads no input."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

from harness.execution.history import History
from harness.execution.member_record import member_records
from harness.execution.member_weights import with_weights
from harness.execution.process_state import kept_process_state
from harness.execution.program_batches import CaseCache, ProgramBatch, fallback_batches, group_programs
from harness.execution.spec import StackSpec, failed
from harness.results.records import MemberRecord
from harness.training import Snapshot, gpu_name, train
from harness.training.schedules import training_steps
from harness.user_code import end_if_forked, guarded


def run_stack(
    spec: StackSpec, progress: Callable[[int], None] | None = None, cache: CaseCache | None = None
) -> list[MemberRecord]:
    """Train the members of a stack and judge each.

    Args:
        spec: the members.
        progress: called with the number of member-steps since its last call.
        cache: results of earlier stacks of the same experiment.

    Returns:
        One record per member, in the order of `spec.members`. A remedy that does not apply, or a loss that raises,
        gives a failed record with the reason, never an exception.
    """
    records: dict[str, MemberRecord] = {}
    cache, process = cache or CaseCache(), os.getpid()

    def tell(steps: int) -> None:
        end_if_forked(process)  # before progress is reported
        if progress is not None:
            progress(steps)

    try:
        with guarded():
            batches = group_programs(spec, records, cache)
    except Exception as error:  # reading the data or building a model again may fail
        return [failed(member, error) for member in spec.members]
    for batch in batches:
        records |= {record.key: record for record in _run_batch(batch, spec, cache, tell)}
    return [records[member.key] for member in spec.members]


def _run_batch(
    batch: ProgramBatch, spec: StackSpec, cache: CaseCache, progress: Callable[[int], None]
) -> list[MemberRecord]:
    """Return the records of a program, or of its parts if it fails as a whole."""
    reported: list[int] = []

    def tell(steps: int) -> None:
        reported.append(steps)
        progress(steps)

    try:
        with guarded(), kept_process_state():
            records = _train_batch(batch, tell, spec.keep_weights)
    except Exception as error:  # the author's code may raise anything; the other programs continue
        smaller = _smaller(batch, spec, cache, error)
        if smaller:
            progress(-sum(reported))
            return [record for part in smaller for record in _run_batch(part, spec, cache, progress)]
        return [failed(member, error) for member in batch.members]
    return [replace(record, alone=batch.alone, gpu=gpu_name(batch.device)) for record in records]


def _smaller(batch: ProgramBatch, spec: StackSpec, cache: CaseCache, error: Exception) -> list[ProgramBatch]:
    """Return the parts of a failed program; none if building them fails too."""
    try:
        with guarded():
            return fallback_batches(batch, spec, cache, error)
    except Exception:
        return []


def _train_batch(batch: ProgramBatch, progress: Callable[[int], None], keep_weights: str) -> list[MemberRecord]:
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
    if cases[0].fit is not None:
        progress((training_steps(cases[0], len(batch.split.train)) - done) * len(members))
    records = member_records(batch, snapshot, history, (time.perf_counter() - started) / len(members))
    return with_weights(records, snapshot.engine, keep_weights)


def _padding(batch: ProgramBatch) -> int:
    """Return the number of copies of the last member that pad the stack to a size with stable rounding."""
    count = len(batch.members)
    return 0 if batch.stacking.rule is None else batch.stacking.filled(count) - count
