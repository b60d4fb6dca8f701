"""MLflow as a projection of the results: the only file that imports it.

Everything is found by tag and logged with stored timestamps, so that logging the same results again adds nothing.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.credentials import masked, without_secrets
from harness.errors import HarnessError
from harness.results import MemberRecord, slug
from harness.results.faults import reached
from harness.tracking.bulk import takes_bulk, write_members
from harness.tracking.local import local_store
from harness.tracking.rows import KEY_TAG, LONGEST, ending, run_name, stored_metrics, stored_parameters, stored_tags
from harness.views import KIND_TAG, VIEW_TAG, views

MEMBERS_AT_ONCE = 64  # in one transaction, some tens of milliseconds
SETTINGS = {  # seconds: a server that is not there must not hold anything up for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output may be one JSON document
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def create_store(uri: str) -> None:
    """Create the store if it is a local one that is not there: whole or not at all, by one process.

    Creating takes seconds of migrations, and a store that was interrupted in them can never be opened again.
    """
    path = local_store(uri)
    if path is None or path.exists():
        return
    _quiet()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".mlflow.lock")):
        if path.exists():
            return
        beside = path.with_name(f".{path.name}.new")
        for left in path.parent.glob(f"{beside.name}*"):
            left.unlink()
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        store = SqlAlchemyStore(f"sqlite:///{beside}", (path.parent / "artifacts").as_uri())
        store.engine.dispose()
        reached("store migrated")
        os.replace(beside, path)
        reached("store created")


@dataclass(frozen=True)
class Known:
    """A run that the store has: its id, its status, and the stored time it began with."""

    run: str
    status: str
    start: int


class Tracker:
    """Writes experiments into one store. Only the driver process has one.

    Args:
        uri: of the store.
        root: the folder that holds `mlruns/`.

    Raises:
        HarnessError: when the store cannot be reached.
    """

    def __init__(self, uri: str, root: Path) -> None:
        _quiet()
        with _reaching(uri):
            create_store(uri)
            from mlflow import MlflowClient

            self.client: MlflowClient = MlflowClient(tracking_uri=uri)
            path = local_store(uri)
            self._file = path if path is not None and takes_bulk(path) else None
        self.uri, self.root = uri, root
        self._runs: dict[str, dict[str, Known]] = {}  # experiment id -> key -> what is there

    @property
    def at_once(self) -> int:
        """How many members are logged in one go: many where they share a transaction, else one."""
        return 1 if self._file is None else MEMBERS_AT_ONCE

    def project(
        self,
        name: str,
        records: Sequence[MemberRecord],
        note: str,
        artifacts: Sequence[Path] = (),
        parameters: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
    ) -> str:
        """Bring the store's experiment level with the results, and return its id.

        Args:
            name: of the experiment.
            records: its members; each is one run, found by its key.
            note: Markdown, shown as the parent's description.
            artifacts: files of the parent run.
            parameters: of the parent run.
            seconds: wall time, a metric under `time/`.

        Raises:
            HarnessError: when the store cannot be reached or written.
        """
        with _reaching(self.uri), self._lock():
            experiment = self._experiment(name)
            if local_store(self.uri) is None:
                self._runs.pop(experiment, None)  # a server may have done more than it said
            known = self._known(experiment)
            parent = self._parent(experiment, name, known.get(f"parent:{name}"), records)
            self._log_parent(parent, note, artifacts, parameters or {}, seconds, records)
            for view, state in views(records).items():
                self.client.set_experiment_tag(experiment, f"{VIEW_TAG}.{view}", state)
            for start in range(0, len(records), self.at_once):
                self._log_members(experiment, parent, records[start : start + self.at_once])
            reached("members logged")
            self.client.set_terminated(parent, "FINISHED")
            if local_store(self.uri) is None:
                self._runs.pop(experiment)
                self._known(experiment)  # without what a server has doubled since
        return experiment

    def begin(self, name: str) -> str:
        """The experiment's id, with its parent run RUNNING."""
        with _reaching(self.uri), self._lock():
            experiment = self._experiment(name)
            self._parent(experiment, name, self._known(experiment).get(f"parent:{name}"), ())
            reached("parent begun")
        return experiment

    def log(self, name: str, records: Sequence[MemberRecord]) -> None:
        """Log members of a begun experiment; those that are there already are left alone."""
        with _reaching(self.uri), self._lock():
            experiment = self._experiment(name)
            parent = self._known(experiment)[f"parent:{name}"].run
            self._log_members(experiment, parent, records)

    def stopped(self, name: str) -> None:
        """Mark the experiment's parent run KILLED: it was interrupted, and can be resumed."""
        with _reaching(self.uri), self._lock():
            experiment = self._experiment(name)
            known = self._known(experiment).get(f"parent:{name}")
            if known is not None:
                self.client.set_terminated(known.run, "KILLED")

    def _lock(self) -> Any:
        path = local_store(self.uri)
        return FileLock(path.with_name(".mlflow.lock"), timeout=600) if path is not None else _unlocked()

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        local = local_store(self.uri)
        place = (local.parent / "artifacts" / slug(name)).as_uri() if local is not None else None
        return str(self.client.create_experiment(name, artifact_location=place))

    def _known(self, experiment: str) -> "dict[str, Known]":
        """key -> every run that is there already; asked of the store once."""
        if experiment in self._runs:
            return self._runs[experiment]
        known = self._runs[experiment] = {}
        token: str | None = None
        while True:
            page = self.client.search_runs([experiment], max_results=1000, page_token=token)
            for run in page:
                if KEY_TAG in run.data.tags:
                    found = Known(run.info.run_id, run.info.status, run.info.start_time)
                    known[run.data.tags[KEY_TAG]] = self._single(known.get(run.data.tags[KEY_TAG]), found)
            token = page.token
            if not token:
                return known

    def _single(self, one: "Known | None", other: "Known") -> "Known":
        """The one of two runs with the same key that stays: a server can do what it was asked and say that it did not."""
        if one is None:
            return other
        kept, doubled = (other, one) if other.status == "FINISHED" else (one, other)
        self._remove(doubled.run)
        return kept

    def _remove(self, run: str) -> None:
        self.client.set_terminated(run, "KILLED")
        self.client.delete_run(run)

    def _parent(self, experiment: str, name: str, known: "Known | None", records: Sequence[MemberRecord]) -> str:
        if known is not None:
            self.client.update_run(known.run, status="RUNNING")
            return known.run
        tags = {KEY_TAG: f"parent:{name}", KIND_TAG: "experiment", "variant": "(experiment)"}
        start = min((record.logged_at for record in records), default=int(time.time() * 1000))
        run = str(self.client.create_run(experiment, start_time=start, tags=tags, run_name=name).info.run_id)
        self._runs[experiment][f"parent:{name}"] = Known(run, "RUNNING", start)
        return run

    def _log_parent(
        self,
        run: str,
        note: str,
        artifacts: Sequence[Path],
        parameters: Mapping[str, Any],
        seconds: float,
        records: Sequence[MemberRecord],
    ) -> None:
        self.client.set_tag(run, "mlflow.note.content", note[:LONGEST])
        for name, value in parameters.items():
            self.client.set_tag(run, name, str(value)[:LONGEST])
        if seconds:
            stamp = max((record.logged_at for record in records), default=0)
            self.client.log_metric(run, "time/seconds", seconds, timestamp=stamp)
        for path in artifacts:
            self.client.log_artifact(run, str(path))

    def _log_members(self, experiment: str, parent: str, records: Sequence[MemberRecord]) -> None:
        known = self._known(experiment)
        for record in records:
            # of an earlier attempt: a failed one that was tried again, or one before `--fresh`
            if record.key in known and known[record.key].start != record.logged_at:
                self._remove(known.pop(record.key).run)
        new = list({record.key: record for record in records if record.key not in known}.values())
        if self._file is not None and new:
            runs = write_members(self._file, experiment, parent, new)
            known.update({each.key: Known(runs[each.key], "FINISHED", each.logged_at) for each in new})
        for record in records:
            if record.key not in known or known[record.key].status not in ("FINISHED", "FAILED"):
                self._log_member(experiment, parent, record)

    def _log_member(self, experiment: str, parent: str, record: MemberRecord) -> None:
        """By the client, step by step: into a server, or where an earlier process left a run half logged."""
        from mlflow.entities import Metric, Param

        known = self._runs[experiment].get(record.key)
        if known is None:
            tags, name, start = stored_tags(record, parent), run_name(record), record.logged_at
            made = self.client.create_run(experiment, start_time=start, tags=tags, run_name=name)
            known = self._runs[experiment][record.key] = Known(str(made.info.run_id), "RUNNING", record.logged_at)
        run = known.run
        reached("member begun")
        parameters = [Param(*each) for each in stored_parameters(record)]
        metrics = [Metric(*each) for each in stored_metrics(record)]
        self.client.log_batch(run, metrics=metrics, params=parameters)
        reached("member logged")
        self.client.set_terminated(run, *ending(record))
        self._runs[experiment][record.key] = Known(run, "FINISHED", record.logged_at)


def _quiet() -> None:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import logging

    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    """Errors of the store as one clear sentence."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        shown = without_secrets(str(error), uri)
        reason = shown.strip().splitlines()[0][:200] if shown.strip() else type(error).__name__
        raise HarnessError(
            f"MLflow store {masked(uri)}: {reason}; the results are safe under mlruns/results, "
            "`harness sync` logs them later"
        ) from (error if shown == str(error) else None)  # a traceback would show the cause as it is


@contextmanager
def _unlocked() -> Iterator[None]:
    yield
