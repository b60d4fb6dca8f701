"""Run an experiment: train the missing members, store and log the results, and write the report."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.execution.stdin import forbid_stdin
from harness.experiment.cluster import check_on, executor_of
from harness.experiment.inspection import WorkerInspection, audit_here, look_here
from harness.experiment.locks import WHOLE, publishing, running
from harness.experiment.run_summary import RunSummary, trained_alone, without_results
from harness.experiment.state import (
    ResumeState,
    check_device,
    clean_results,
    completed,
    first_workers,
    is_described,
    load_state,
    loaded,
    member_steps,
    missing_members,
    refreshed,
    start_over,
    steps_per_epoch,
    store_name,
    without_result,
)
from harness.grid import Experiment
from harness.results import (
    MemberRecord,
    read_manifest,
    report_folder,
    results_folder,
    set_aside,
    write_manifest,
    write_stack,
)
from harness.results.weights import keep_weights

if TYPE_CHECKING:
    from harness.experiment.publisher import Publication, Publisher
    from harness.experiment.run_results import Results


@dataclass
class RunCallbacks:
    """Callbacks on the progress of a run; by default they do nothing."""

    started: Callable[[int, int, int], None] = lambda members, done, steps: None
    stepped: Callable[[int], None] = lambda steps: None
    finished: Callable[[Sequence[MemberRecord]], None] = lambda records: None
    says: Callable[[str], None] = lambda text: None


def run(
    experiment: "str | Path | Experiment",
    fresh: bool = False,
    workers: int | None = None,
    tracking_uri: str | None = None,
    on: str | None = None,
) -> "Results":
    """Run an experiment, or continue it.

    Args:
        experiment: the path of a YAML file, or an `Experiment`.
        fresh: start over instead of continuing.
        workers: worker processes; None means one per core, 0 runs everything in this process.
        tracking_uri: of the MLflow store; None means `mlruns/mlflow.db`, or MLFLOW_TRACKING_URI.
        on: cluster that trains the members, `ray` or `ray://head:10001`; None for processes on this machine.

    Returns:
        Results: `.members`, `.effects` and `.cells` are DataFrames, `.report` is the path of the report. Indexing and
        iterating refer to the table of members.

    Raises:
        HarnessError: if the request is wrong. The outcome of training is a verdict, never an exception.
    """
    from harness.experiment.run_results import Results

    return Results(run_experiment(experiment, fresh, workers, tracking_uri, on=on))


def run_experiment(
    experiment: "str | Path | Experiment",
    fresh: bool = False,
    workers: int | None = None,
    tracking_uri: str | None = None,
    retry_failed: bool = False,
    shard: tuple[int, int] = WHOLE,
    progress: RunCallbacks | None = None,
    root: Path | None = None,
    timeout: float | None = None,
    on: str | None = None,
    brief: bool = False,
) -> RunSummary:
    """Run an experiment with all options of the command line, and return its summary.

    Args:
        experiment, fresh, workers, tracking_uri: as in `run`.
        retry_failed: train members again that could not be run.
        shard: part of the stacks that this process trains, and the number of parts.
        progress: callbacks.
        root: folder that contains `mlruns/`; None means the current one.
        timeout: seconds that a worker may take for a stack; None for no limit.
        on: cluster that trains the stacks, `ray` or `ray://head:10001`; None for processes on this machine.
        brief: of a finished experiment, return the records without their large fields, in a tenth of the time.

    Raises:
        HarnessError: if the request is wrong.
    """
    started, progress, root = time.perf_counter(), progress or RunCallbacks(), root or Path.cwd()
    experiment = loaded(experiment)
    folder = results_folder(experiment.name, root)
    workers = cores() if workers is None else workers
    call = RunOptions(workers, tracking_uri, shard, fresh or retry_failed, progress, root, started, timeout, on)
    here = not workers or not isinstance(experiment.case_reference, str)
    if here and timeout is not None:
        raise HarnessError("--timeout: expected worker processes, which can be ended; leave out --workers 0")
    check_on(on, not workers)
    with (
        nullcontext() if here else forbid_stdin(),
        running(folder, shard),
        _waiting(0 if here else min(1 if on else workers, first_workers(experiment, folder, fresh, shard))) as waiting,
    ):
        look = look_here if here else WorkerInspection(waiting, timeout).look
        work = load_state(experiment, folder, fresh, retry_failed, store_name(tracking_uri), look, brief=True)
        if _is_published(work, call):
            return _finished(work if brief else completed(work), call)
        work = completed(work)
        if on is None:  # a cluster may have GPUs that this machine has not
            check_device(experiment)
        clean_results((folder, report_folder(experiment.name, root)))
        set_aside(folder, work.damaged)
        if fresh:
            start_over(work, shard)
        return _carry_out(work, call, waiting)


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Args:
        workers, tracking_uri, shard, progress, root, timeout, on: as in `run_experiment`.
        again: whether existing members are trained again.
        started: value of `time.perf_counter` at the start.
    """

    workers: int
    tracking_uri: str | None
    shard: tuple[int, int]
    again: bool
    progress: RunCallbacks
    root: Path
    started: float
    timeout: float | None = None
    on: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started


def _carry_out(work: ResumeState, call: RunOptions, waiting: Sequence[Any]) -> RunSummary:
    from harness.execution.pool import run_stacks
    from harness.experiment.publisher import Publisher

    specs = missing_members(work, call.shard)
    pending = {member.key for spec in specs for member in spec.members}
    total = sum(len(spec.members) for spec in specs)
    steps = member_steps(work, specs)
    with publishing(work.folder):
        if call.shard == WHOLE or not is_described(work, read_manifest(work.folder)):
            write_manifest(work.folder, work.manifest)
    trains_here = call.workers == 0 or not isinstance(work.experiment.case_reference, str)
    audit = audit_here if trains_here else WorkerInspection(timeout=call.timeout).audit
    publisher = Publisher(work.experiment, call.root, call.tracking_uri, audit, work.manifest)
    if call.shard == WHOLE:  # of several shards, the last one writes the store
        publisher.prepare(audit=not trains_here and "audit" not in work.manifest)
        publisher.log(list(work.done.values()))  # an earlier run may have been killed before it logged them
    call.progress.started(len(work.keys), len(work.keys) - total, steps)
    try:
        length = steps // max(1, total)
        stepped, says = call.progress.stepped, call.progress.says
        executor = executor_of(call.on, work.experiment, specs, length, stepped, says, call.timeout)
        workers = call.workers if executor is None else executor.slots
        for records in run_stacks(specs, workers, stepped, waiting, length, call.timeout, executor):
            records = work.dated(records)
            work.done.update({record.key: replace(record, weights=b"") for record in records})
            keep_weights(
                work.folder, records, work.done.values(), work.experiment.baseline, work.experiment.keep_weights
            )
            write_stack(work.folder, records)  # after the weights: members with a result are not trained again
            records = [work.done[record.key] for record in records]
            if call.shard == WHOLE:
                publisher.log(records)
            call.progress.finished(records)
        lacking = _lacking(work, set(work.keys.values()) if call.shard == WHOLE else pending)
        return _published(work, call, publisher, total, lacking)
    except BaseException:
        publisher.interrupted()
        raise


def _lacking(work: ResumeState, keys: set[str]) -> list[str]:
    """Return names of the members without a result on disk; results that are still in memory are written again first."""
    lacking = without_result(work, keys)
    if unwritten := [work.done[key] for key in lacking if key in work.done]:
        write_stack(work.folder, unwritten)
        lacking = without_result(work, keys)
    absent = set(lacking)
    return [
        f"{variant} s{seed}{f' split{split}' if split else ''}"
        for (variant, seed, split), key in work.keys.items()
        if key in absent
    ]


def _published(
    work: ResumeState, call: RunOptions, publisher: "Publisher", trained: int, lacking: Sequence[str]
) -> RunSummary:
    """Publish report and store, unless another shard still has members to train, and return the summary."""
    if call.shard == WHOLE:
        with publishing(work.folder):
            publication = publisher.publish(work, call.seconds)
        return _outcome(work, call, trained, lacking, publication)
    with publishing(work.folder):  # the last shard to get here sees the members of all shards
        work = refreshed(work, store_name(call.tracking_uri))
        if not all(key in work.done for key in work.keys.values()):
            return _outcome(work, call, trained, lacking)
        if not call.again and _is_published(work, call):
            return replace(_finished(work, call), trained=trained)
        return _outcome(work, call, trained, lacking, publisher.publish(work, call.seconds))


def _outcome(
    work: ResumeState, call: RunOptions, trained: int, lacking: Sequence[str], publication: "Publication | None" = None
) -> RunSummary:
    messages = [] if publication is None else [*publication.notes, *publication.problems]
    notes = [*work.notes, *messages, *trained_alone(work.records()), *without_results(lacking, len(work.keys))]
    return RunSummary(
        work.experiment,
        work.records(),
        trained,
        call.seconds,
        None if publication is None else publication.report,
        steps_per_epoch(work),
        tuple(notes),
        0 if publication is None else publication.logged,
        tuple(lacking),
        call.root.resolve(),
    )


def _is_published(work: ResumeState, call: RunOptions) -> bool:
    """Return True if every member has a result, and report and store are complete.

    A server that does not answer has confirmed all members before; a note says that it was not asked.
    """
    from harness.experiment.published import is_stored, is_whole

    name = work.experiment.name
    if not (work.complete and is_whole(report_folder(name, call.root), work.files)):
        return False
    stored = is_stored(name, call.tracking_uri, call.root)
    if stored is None:
        work.notes.append(
            f"MLflow store {store_name(call.tracking_uri)}: no answer; it had all members when they were logged"
        )
    return stored is not False


def _finished(work: ResumeState, call: RunOptions) -> RunSummary:
    report = report_folder(work.experiment.name, call.root) / "report.html"
    records = work.records()
    steps, notes, root = steps_per_epoch(work), tuple(work.notes), call.root.resolve()
    return RunSummary(work.experiment, records, 0, call.seconds, report, steps, notes, len(records), root=root)


def _waiting(count: int) -> AbstractContextManager[Sequence[Any]]:
    """Start workers that load torch while this process does; none if it is not certain that anything is run."""
    if not count:
        return nullcontext(())
    from harness.execution.worker_client import waiting_workers

    return waiting_workers(count)


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
