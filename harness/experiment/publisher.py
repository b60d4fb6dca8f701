"""Publish results: effects, the report, and the MLflow store. Training never depends on them."""

import queue
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.execution.audits import CODE
from harness.execution.gc_control import gc_paused
from harness.experiment.inspection import Audit, audit_here
from harness.experiment.manifest import training_of
from harness.experiment.published import report_checksums, report_files
from harness.experiment.state import ResumeState, store_digest, store_name
from harness.grid import Experiment
from harness.grid.case_facts import case_facts, case_file
from harness.results import (
    MemberRecord,
    StoredResults,
    names_digest,
    report_folder,
    results_folder,
    write_atomic,
    write_json,
    write_manifest,
)
from harness.results.origin import origin_of
from harness.results.weights import kept_weights

PATIENCE = 3.0  # seconds that an interrupted run gives the store
LAST_QUESTION = 10.0  # seconds for a failed store to answer what it contains


@dataclass(frozen=True)
class Publication:
    """Outcome of publishing an experiment.

    Args:
        report: path of the report; None if it could not be written.
        logged: number of members that the store showed when it was queried.
        problems: one sentence for each failure.
        notes: other messages for the user.
    """

    report: Path | None
    logged: int
    problems: list[str]
    notes: list[str]


class Publisher:
    """Writes the report and the MLflow runs of an experiment.

    Args:
        experiment: whose results are published.
        root: the folder that contains `mlruns/`.
        tracking_uri: of the MLflow store, or None for the local one.
        audit: audits the experiment's penalties.
        manifest: of the experiment: its data set, command and commit are logged.

    Raises:
        HarnessError: if the folder cannot be written.
    """

    def __init__(
        self,
        experiment: Experiment,
        root: Path,
        tracking_uri: str | None,
        audit: Audit = audit_here,
        manifest: Mapping[str, Any] | None = None,
    ) -> None:
        self.experiment, self.root, self.tracking_uri = experiment, root, tracking_uri
        self._audit, self._manifest = audit, manifest or {}
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
        """Open the store and load the drawing libraries while members train; each takes seconds.

        Args:
            audit: also audit the penalties; only in another process than the one that trains, whose random state an audit
                uses.
        """
        if not audit:
            self._prepared.set()
        self._thread = threading.Thread(target=self._open, args=(audit,), daemon=True)
        self._thread.start()

    def log(self, records: Sequence[MemberRecord]) -> None:
        """Log members while the next ones train; members that fail here are logged at the end, or by a later sync."""
        self._done.put(list(records))

    def interrupted(self) -> None:
        """Mark the experiment as stopped, if the store is open; do not wait for a store that does not answer."""
        self._stopping = True
        if self._failure is None:
            closing = threading.Thread(target=self._stop, daemon=True)
            closing.start()
            closing.join(PATIENCE)

    def publish(self, work: ResumeState, seconds: float) -> Publication:
        """Write the report, then the store."""
        audit = self._audited(work)
        code = {entry["remedy"]: entry["lines"] for entry in audit.get(CODE, [])} or work.manifest.get(CODE, {})
        findings = {level: entries for level, entries in audit.items() if level != CODE}
        manifest = {**work.manifest, "audit": findings, CODE: code}
        results = StoredResults(manifest, work.records())
        with suppress(HarnessError):  # written now, so that a run that is killed from here on need not audit again
            write_manifest(work.folder, manifest)
        report, problems = self._reported(results)
        logged, failures = self._log(results, report, seconds)
        problems += failures
        everything = not problems and len(results.records) == len(work.keys)
        state = {"logged": store_digest(work.keys.values(), store_name(self.tracking_uri))} if everything else {}
        files = {"files": report_checksums(report.parent)} if report is not None else {}
        sound = {} if work.damaged else {"sound": names_digest(work.folder)}
        try:
            write_manifest(work.folder, {**manifest, **state, **files, **sound})
        except HarnessError as error:
            problems.append(str(error))
        return Publication(report, logged, problems, [self._origin.note] if self._origin.note else [])

    def _audited(self, work: ResumeState) -> dict[str, Any]:
        """Return the audit's findings: stored, computed during training, or computed now."""
        if self._thread is not None:
            self._prepared.wait()
        return work.manifest.get("audit") or self._audits or self._audit(work.experiment)

    def _reported(self, results: StoredResults) -> tuple[Path | None, list[str]]:
        """Write the report; return its path, or the reason why there is none (results are kept if the disk is full)."""
        folder = report_folder(self.experiment.name, self.root)
        try:
            with gc_paused():
                return _report(results, _effects(results.records, self.experiment), folder), []
        except (HarnessError, OSError) as error:
            return None, [f"no report: {error}; free the disk, and `harness run` writes it"]

    def _stop(self) -> None:
        self._done.put(None)
        # the next run finds its MLflow runs by key, whatever their status; a running audit, which may be long, is not awaited
        with self._logging, suppress(HarnessError):
            if self._tracker is not None:
                self._tracker.stopped(self.experiment.name)

    def _open(self, audit: bool = False) -> None:
        from harness.report.svg import load_libraries

        try:
            with gc_paused():
                tracker = self._new_tracker()
                with (
                    self._logging
                ):  # an interrupt comes before this block (nothing is begun) or after it (the run is marked)
                    if self._stopping:
                        return
                    self._tracker = tracker
                    tracker.begin(self.experiment.name)
                load_libraries()
            if audit:
                self._audits = self._audit(self.experiment)
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
        """Return the tracker, or a new one if the store failed since: its content is queried again."""
        return self._tracker if self._tracker is not None and self._failure is None else self._new_tracker()

    def _new_tracker(self) -> Any:
        from harness.tracking import Tracker, run_context, store_uri

        context = run_context(self._manifest, _used(self.experiment))
        return Tracker(store_uri(self.tracking_uri, self.root), self.root, context)

    def _log(self, results: StoredResults, report: Path | None, seconds: float) -> tuple[int, list[str]]:
        """Log everything; return the number of members that the store shows, and the problems."""
        if self._thread is None:
            self.prepare()
        assert self._thread is not None
        self._done.put(None)
        self._thread.join()
        files = [] if report is None else report_files(report.parent)
        tracker = None
        try:
            tracker = self._working_tracker()
            tracker.project(
                self.experiment.name,
                results.records,
                note="" if report is None else _note(report.parent),
                artifacts=[*files, *kept_weights(results_folder(self.experiment.name, self.root))],
                parameters=_facts(results),
                seconds=seconds,
                baseline=self.experiment.baseline,
            )
            return len(results.records), []  # `project` has verified it
        except HarnessError as error:
            return self._confirmed(tracker, results.records), [str(error)]

    def _confirmed(self, tracker: Any, records: Sequence[MemberRecord]) -> int:
        """Count the members that a failed store shows; 0 if it does not answer soon."""
        counts: list[int] = []

        def ask() -> None:
            with suppress(HarnessError):
                counts.append(tracker.confirmed(self.experiment.name, records))

        if tracker is not None:
            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            asking.join(LAST_QUESTION)
        return counts[0] if counts else 0


def _effects(records: Sequence[MemberRecord], experiment: Experiment) -> Any:
    from harness.effects import analyse

    return analyse(records, experiment)


def _report(results: StoredResults, effects: Any, folder: Path) -> Path:
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


def _used(experiment: Experiment) -> dict[str, Any]:
    """Return what every member uses whose levels do not change it: case, data, numbers and training numbers."""
    facts = case_facts(case_file(experiment.case, experiment.folder))
    names = {"case": experiment.case, "data": experiment.data or "of the case", "optimizer": facts.optimizer}
    return {**names, **facts.numbers, **training_of(experiment)}


def _facts(results: StoredResults) -> dict[str, Any]:
    records, versions = results.records, results.manifest["versions"]
    failed, collapsed = (sum(bool(getattr(record, name)) for record in records) for name in ("failed", "collapsed"))
    return {
        "verdict": f"{failed} of {len(records)} members failed, {collapsed} collapsed",
        "members": len(records),
        "git_commit": results.manifest["commit"],
        **{f"version.{name}": value for name, value in versions.items()},
    }
