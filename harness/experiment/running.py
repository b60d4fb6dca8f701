"""An experiment from its file to its report: what is missing is trained, everything is kept, logged and explained."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.execution.questions import no_questions
from harness.experiment.work import (
    Work,
    certain_stacks,
    check_device,
    member_steps,
    missing,
    prepare,
    report_folder,
    results_folder,
    steps_per_epoch,
    store_name,
    tidy,
)
from harness.grid import Experiment, load_experiment
from harness.results import MemberRecord, read_records, write_manifest, write_stack
from harness.results.faults import reached

if TYPE_CHECKING:
    from pandas import DataFrame

WHOLE = (1, 1)  # the only shard


@dataclass(frozen=True)
class Outcome:
    """What a run of an experiment came to.

    Args:
        experiment: what was asked.
        records: its members, in their order.
        trained: how many of them were trained now.
        seconds: wall time.
        report: where the report is; None when nothing could be reported.
        steps_per_epoch: optimiser steps of one epoch.
        notes: what the user should know: a changed file, a damaged result, a store that was not reached.
    """

    experiment: Experiment
    records: list[MemberRecord]
    trained: int
    seconds: float
    report: Path | None
    steps_per_epoch: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The document that `harness run --json` prints."""
        failed = sum(record.status == "failed" for record in self.records)
        return {
            "experiment": self.experiment.name,
            "members": len(self.records),
            "done": len(self.records) - failed,
            "failed": failed,
            "steps_per_epoch": self.steps_per_epoch,
            "seconds": round(self.seconds, 3),
            "report": None if self.report is None else str(self.report),
            "trained": self.trained,
            "diverged": sum(record.status == "diverged" for record in self.records),
            "verdicts": _counts(record.verdict or record.status for record in self.records),
            "notes": list(self.notes),
        }


@dataclass
class Progress:
    """Told of what happens; the command line shows it, a script need not care."""

    started: Callable[[int, int, int], None] = lambda members, done, steps: None
    stepped: Callable[[int], None] = lambda steps: None
    finished: Callable[[Sequence[MemberRecord]], None] = lambda records: None
    says: Callable[[str], None] = lambda text: None


def run(
    experiment: "str | Path | Experiment",
    fresh: bool = False,
    workers: int | None = None,
    tracking_uri: str | None = None,
) -> "DataFrame":
    """Run an experiment, or continue it, and return one row a member.

    Args:
        experiment: the path of a YAML file, or an `Experiment`.
        fresh: start over instead of continuing.
        workers: processes; None means one a core, 0 everything in this process.
        tracking_uri: of the MLflow store; None means `mlruns/mlflow.db`, or MLFLOW_TRACKING_URI.

    Returns:
        A frame with the factors, `seed`, `status`, `verdict`, `flags`, `live_units`, `r2` and the losses.

    Raises:
        HarnessError: when the request is wrong. What training does is a verdict, never an exception.
    """
    from harness.frames import members_frame

    return members_frame(conduct(experiment, fresh, workers, tracking_uri).records)


def conduct(
    experiment: "str | Path | Experiment",
    fresh: bool = False,
    workers: int | None = None,
    tracking_uri: str | None = None,
    retry_failed: bool = False,
    shard: tuple[int, int] = WHOLE,
    progress: Progress | None = None,
    root: Path | None = None,
) -> Outcome:
    """`run`, with all that the command line offers; returns the outcome instead of a frame.

    Raises:
        HarnessError: when the request is wrong.
    """
    started, progress, root = time.perf_counter(), progress or Progress(), root or Path.cwd()
    experiment = experiment if isinstance(experiment, Experiment) else load_experiment(experiment)
    folder = results_folder(experiment.name, root)
    workers = cores() if workers is None else workers
    here = not workers or not isinstance(experiment.case_reference, str)
    with (
        nullcontext() if here else no_questions(),
        _alone(folder, shard),
        _waiting(min(workers, certain_stacks(experiment, folder, fresh, shard))) as waiting,
    ):
        work = prepare(experiment, folder, fresh, retry_failed, store_name(tracking_uri))
        if work.complete and (report_folder(experiment.name, root) / "report.html").is_file():
            return _finished(work, root, time.perf_counter() - started)
        check_device(experiment)
        tidy(folder, fresh, report_folder(experiment.name, root) if shard == WHOLE else None)
        outcome = _carry_out(work, workers, waiting, tracking_uri, shard, progress, root, started)
    if shard != WHOLE and outcome.report is None and _all_there(work):
        return conduct(experiment, False, workers, tracking_uri, False, WHOLE, progress, root)
    return outcome


def project(
    experiment: "str | Path | Experiment", tracking_uri: str | None = None, root: Path | None = None
) -> list[str]:
    """Report and store, made again from the results; what went wrong.

    Raises:
        HarnessError: when there are no results.
    """
    from harness.experiment.publishing import Publisher

    root = root or Path.cwd()
    experiment = experiment if isinstance(experiment, Experiment) else load_experiment(experiment)
    folder = results_folder(experiment.name, root)
    work = prepare(experiment, folder, store=store_name(tracking_uri))
    if not work.done:
        raise HarnessError(f"{folder}: no results of this experiment; `harness run` makes them")
    return Publisher(experiment, root, tracking_uri).publish(work, 0.0)[0]


def _carry_out(
    work: Work,
    workers: int,
    waiting: Sequence[Any],
    tracking_uri: str | None,
    shard: tuple[int, int],
    progress: Progress,
    root: Path,
    started: float,
) -> Outcome:
    from harness.execution.processes import run_stacks
    from harness.experiment.publishing import Publisher

    specs = missing(work, shard)
    total = sum(len(spec.members) for spec in specs)
    steps = member_steps(work, specs)
    write_manifest(work.folder, work.manifest)
    reached("manifest written")
    publisher = Publisher(work.experiment, root, tracking_uri)
    if shard == WHOLE:  # one of several leaves the store to the last
        trains_here = workers == 0 or not isinstance(work.experiment.case_reference, str)
        publisher.prepare(audit=not trains_here and "audit" not in work.manifest)
        publisher.log(list(work.done.values()))  # of an earlier run that was killed before it logged them
    progress.started(len(work.keys), len(work.keys) - total, steps)
    try:
        for records in run_stacks(specs, workers, progress.stepped, waiting, steps // max(1, total)):
            reached("stack trained")
            records = work.dated(records)
            write_stack(work.folder, records)
            reached("stack written")
            work.done.update({record.key: record for record in records})
            if shard == WHOLE:
                publisher.log(records)
            progress.finished(records)
        notes: list[str] = []
        report: Path | None = None
        if shard == WHOLE:
            notes, report = publisher.publish(work, time.perf_counter() - started)
    except BaseException:
        publisher.interrupted()
        raise
    seconds = time.perf_counter() - started
    told = (*work.notes, *notes, *_trained_alone(work.records()))
    return Outcome(work.experiment, work.records(), total, seconds, report, steps_per_epoch(work), told)


def _all_there(work: Work) -> bool:
    """Whether the other shards are done as well."""
    return {record.key for record in read_records(work.folder, work.keys.values())[0]} >= set(work.keys.values())


def _finished(work: Work, root: Path, seconds: float) -> Outcome:
    report = report_folder(work.experiment.name, root) / "report.html"
    return Outcome(work.experiment, work.records(), 0, seconds, report, steps_per_epoch(work), tuple(work.notes))


def _waiting(count: int) -> AbstractContextManager[Sequence[Any]]:
    """Workers that load torch while this process does; none where nothing is certain to be run."""
    if not count:
        return nullcontext(())
    from harness.execution.workers import waiting_workers

    return waiting_workers(count)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _trained_alone(records: Iterable[MemberRecord]) -> list[str]:
    """How many members trained alone where the plan says otherwise, and why.

    >>> _trained_alone([MemberRecord("k0", "v", {}, 0, alone="it cannot be batched"), MemberRecord("k1", "v", {}, 1)])
    ['1 member trained one by one: it cannot be batched']
    """
    reasons = _counts(record.alone for record in records if record.alone)
    return [
        f"{members} member{'s' * (members > 1)} trained one by one: {reason}" for reason, members in reasons.items()
    ]


def _counts(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


@contextmanager
def _alone(folder: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Only one process at a time runs an experiment, or one shard of it; of a refused one no lock or folder stays.

    Raises:
        HarnessError: when another process runs it, or the folder cannot be written.
    """
    name = ".lock" if shard == WHOLE else f".lock-{shard[0]}-of-{shard[1]}"
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    with _locked(folder / name):
        try:
            yield
        except HarnessError:
            if made and os.listdir(folder) == [name]:
                _remove(folder / name, made)
            raise


def _locked(file: Path) -> Any:
    from filelock import FileLock, Timeout

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(file, timeout=0).acquire()
    except Timeout as error:
        raise HarnessError(
            f"{file.parent}: another process is running this experiment; wait for it, or stop it"
        ) from error
    except OSError as error:
        raise HarnessError(
            f"{file.parent}: cannot be written ({error.strerror}); run in a folder that can be"
        ) from error


def _remove(lock: Path, folders: Sequence[Path]) -> None:
    """What was made for a run that is refused; a folder that holds anything else by now stays."""
    with suppress(OSError):
        lock.unlink()
        for folder in folders:
            folder.rmdir()
