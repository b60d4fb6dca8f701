"""Results made visible: effects, the report, and the MLflow store. Training never waits for any of them to work."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.execution.gc_control import gc_paused
from harness.experiment.state import ResumeState, report_folder, store_digest, store_name
from harness.grid import Experiment
from harness.results import COLLAPSED, MemberRecord, Results, write_atomic, write_json, write_manifest
from harness.results.faults import crash_point
from harness.results.origin import origin_of
from harness.user_code import guarded

PATIENCE = 3.0  # seconds that an interrupted run gives the store
LAST_QUESTION = 10.0  # seconds that a store gets which failed, to say what it has


@dataclass(frozen=True)
class Publication:
    """What became visible of an experiment.

    Args:
        report: where the report is; None where it could not be written.
        logged: how many of the members the store showed when it was asked.
        problems: what could not be done.
        notes: what the user should know beside.
    """

    report: Path | None
    logged: int
    problems: list[str]
    notes: list[str]


class Publisher:
    """Projects one experiment's results.

    Args:
        experiment: whose results they are.
        root: the folder that holds `mlruns/`.
        tracking_uri: of the MLflow store, or None for the local one.

    Raises:
        HarnessError: when the folder cannot be written.
    """

    def __init__(self, experiment: Experiment, root: Path, tracking_uri: str | None) -> None:
        self.experiment, self.root, self.tracking_uri = experiment, root, tracking_uri
        self._origin = origin_of(root)
        self._tracker: Any = None
        self._failure: HarnessError | None = None
        self._thread: threading.Thread | None = None
        self._audits: dict[str, list[dict[str, Any]]] = {}
        self._prepared = threading.Event()
        self._done: queue.Queue[Sequence[MemberRecord] | None] = queue.Queue()
        self._stopping = False
        self._logging = threading.Lock()

    def prepare(self, audit: bool = False) -> None:
        """Open the store beside the training, and load what draws: seconds each.

        Args:
            audit: audit the penalties too; only where nothing trains in this process, whose random state an audit uses.
        """
        if not audit:
            self._prepared.set()
        self._thread = threading.Thread(target=self._open, args=(audit,), daemon=True)
        self._thread.start()

    def log(self, records: Sequence[MemberRecord]) -> None:
        """Log members beside the training of the next; what fails here is logged at the end, or by a later sync."""
        self._done.put(list(records))

    def interrupted(self) -> None:
        """Mark the experiment as stopped, if the store is open; a store that does not answer is not waited for."""
        self._stopping = True
        if self._failure is None:
            closing = threading.Thread(target=self._stop, daemon=True)
            closing.start()
            closing.join(PATIENCE)

    def publish(self, work: ResumeState, seconds: float) -> Publication:
        """Write the report, then the store."""
        manifest = {**work.manifest, "audit": self._audited(work)}
        results = Results(manifest, work.records())
        with suppress(HarnessError):  # kept at once: a run that is killed now need not audit again
            write_manifest(work.folder, manifest)
        report, problems = self._reported(results)
        crash_point("report written")
        logged, failures = self._log(results, report, seconds)
        problems += failures
        everything = not problems and len(results.records) == len(work.keys)
        state = {"logged": store_digest(work.keys.values(), store_name(self.tracking_uri))} if everything else {}
        try:
            write_manifest(work.folder, {**manifest, **state})
        except HarnessError as error:
            problems.append(str(error))
        return Publication(report, logged, problems, [self._origin.note] if self._origin.note else [])

    def _audited(self, work: ResumeState) -> dict[str, Any]:
        """What the audit finds: stored, found beside the training, or found now."""
        if self._thread is not None:
            self._prepared.wait()
        return work.manifest.get("audit") or self._audits or audits(work.experiment)

    def _reported(self, results: Results) -> tuple[Path | None, list[str]]:
        """Where the report is, or why there is none: a full disk takes no result back."""
        folder = report_folder(self.experiment.name, self.root)
        try:
            with gc_paused():
                return _report(results, _effects(results.records, self.experiment), folder), []
        except (HarnessError, OSError) as error:
            return None, [f"no report: {error}; free the disk, and `harness run` writes it"]

    def _stop(self) -> None:
        self._done.put(None)
        # the next run finds its runs by key, whatever they are marked as; an audit, which may be long, is not waited for
        with self._logging, suppress(HarnessError):
            if self._tracker is not None:
                self._tracker.stopped(self.experiment.name)

    def _open(self, audit: bool = False) -> None:
        from harness.report.svg import load_libraries
        from harness.tracking import Tracker, store_uri

        try:
            with gc_paused():
                tracker = Tracker(store_uri(self.tracking_uri, self.root), self.root)
                with self._logging:  # an interrupt comes before, and nothing is begun, or after, and is marked
                    if self._stopping:
                        return
                    self._tracker = tracker
                    tracker.begin(self.experiment.name)
                load_libraries()
            if audit:
                with _one_thread():  # the other cores train
                    self._audits = audits(self.experiment)
                self._prepared.set()
            while (records := self._done.get()) is not None:
                for start in range(0, len(records), tracker.at_once):
                    with self._logging:
                        if not self._stopping:
                            tracker.log(self.experiment.name, records[start : start + tracker.at_once])
        except HarnessError as error:
            self._failure = error
        finally:
            self._prepared.set()

    def _working_tracker(self) -> Any:
        """The tracker, or a new one where the store failed in between: what it holds is asked again."""
        from harness.tracking import Tracker, store_uri

        if self._tracker is not None and self._failure is None:
            return self._tracker
        return Tracker(store_uri(self.tracking_uri, self.root), self.root)

    def _log(self, results: Results, report: Path | None, seconds: float) -> tuple[int, list[str]]:
        """How many members the store shows, and what went wrong."""
        if self._thread is None:
            self.prepare()
        assert self._thread is not None
        self._done.put(None)
        self._thread.join()
        files = [] if report is None else _files(report.parent)
        tracker = None
        try:
            tracker = self._working_tracker()
            tracker.project(
                self.experiment.name,
                results.records,
                note="" if report is None else _note(report.parent),
                artifacts=files,
                parameters=_facts(results),
                seconds=seconds,
            )
            return len(results.records), []  # it looked
        except HarnessError as error:
            return self._confirmed(tracker, results.records), [str(error)]

    def _confirmed(self, tracker: Any, records: Sequence[MemberRecord]) -> int:
        """What a store that failed shows all the same; one that does not answer soon shows nothing."""
        counts: list[int] = []

        def ask() -> None:
            with suppress(HarnessError):
                counts.append(tracker.confirmed(self.experiment.name, records))

        if tracker is not None:
            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            asking.join(LAST_QUESTION)
        return counts[0] if counts else 0


def _files(report: Path) -> list[Path]:
    """The files of a report, without what is being written beside them."""
    return sorted(path for path in report.iterdir() if path.is_file() and not path.name.startswith("."))


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def audits(experiment: Experiment) -> dict[str, list[dict[str, Any]]]:
    """What the audit finds in each penalty level of the experiment, as plain findings."""
    from harness.auditing import audit_levels
    from harness.case import load_case
    from harness.data import split_of
    from harness.diagnosis import Finding, Severity

    levels = experiment.levels("penalty") if "penalty" in experiment.factors else ("as_posted",)
    try:
        with guarded():
            case = load_case(experiment.case_reference)
            found = audit_levels(case, map(str, levels), split_of(case, experiment.data_reference))
    except Exception as error:  # the author's code may raise anything, and the members' results stand all the same
        kind = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
        failure = Finding("audit", Severity.UNDECIDED, f"the audit failed: {kind}{error}")
        return {"undecided": [failure.to_dict()]}
    return {level: [finding.to_dict() for finding in audit.findings] for level, audit in found.items()}


def _effects(records: Sequence[MemberRecord], experiment: Experiment) -> Any:
    from harness.effects import analyse

    return analyse(records, experiment)


def _report(results: Results, effects: Any, folder: Path) -> Path:
    from harness.report import write_report

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "experiment.yaml", str(results.manifest.get("text", "")).encode())
    write_json(folder / "manifest.json", {k: v for k, v in results.manifest.items() if k != "text"})
    return write_report(results, effects, folder)


def _note(folder: Path) -> str:
    """The report without its title: MLflow's page shows the first lines, the headline, and the rest on request."""
    markdown = folder / "report.md"
    text = markdown.read_text(encoding="utf-8") if markdown.is_file() else ""
    return text[text.find("\n") + 1 :].lstrip()


def _facts(results: Results) -> dict[str, Any]:
    records, versions = results.records, results.manifest["versions"]
    return {
        "verdict": f"{sum(record.verdict in COLLAPSED for record in records)} of {len(records)} members collapsed",
        "members": len(records),
        "git_commit": results.manifest["commit"],
        **{f"version.{name}": value for name, value in versions.items()},
    }
