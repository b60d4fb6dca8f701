"""MLflow as a projection of the results: the only file that imports it.

Everything is found by tag and logged with stored timestamps, so that logging the same results again adds nothing.
"""

import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from harness.errors import HarnessError
from harness.results import MemberRecord, slug
from harness.results.faults import reached
from harness.results.spacing import SHOWN_SNAPSHOTS, log_spaced
from harness.views import KIND_TAG, VIEW_TAG, views

if TYPE_CHECKING:
    from mlflow.entities import Metric

ROWS_PER_MEMBER = 200  # each costs a quarter of a millisecond; a run costs thirty
SHOWN_UNITS = 8
KEY_TAG = "harness.key"
LOG_SCALED = ("rho", "beta", "learning_rate")
SETTINGS = {  # seconds: a server that is not there must not hold anything up for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output may be one JSON document
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def store_uri(tracking_uri: str | None, root: Path) -> str:
    """Where the store is: what was asked, what the environment says, or `mlruns/mlflow.db` under `root`."""
    named = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return named or f"sqlite:///{(root / 'mlruns' / 'mlflow.db').resolve()}"


def create_store(uri: str) -> None:
    """Create the store if it is a local one that is not there: whole or not at all, by one process.

    Creating takes seconds of migrations, and a store that was interrupted in them can never be opened again.
    """
    path = _local_file(uri)
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
        self.uri, self.root = uri, root
        self._runs: dict[str, dict[str, Known]] = {}  # experiment id -> key -> what is there

    def project(
        self,
        name: str,
        records: Sequence[MemberRecord],
        note: str,
        artifacts: Sequence[Path] = (),
        parameters: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
        on_member: Callable[[], None] = lambda: None,
    ) -> str:
        """Bring the store's experiment level with the results, and return its id.

        Args:
            name: of the experiment.
            records: its members; each is one run, found by its key.
            note: Markdown, shown as the parent's description.
            artifacts: files of the parent run.
            parameters: of the parent run.
            seconds: wall time, a metric under `time/`.
            on_member: told after each member.

        Raises:
            HarnessError: when the store cannot be reached or written.
        """
        with _reaching(self.uri), self._lock():
            experiment = self._experiment(name)
            if _local_file(self.uri) is None:
                self._runs.pop(experiment, None)  # a server may have done more than it said
            known = self._known(experiment)
            parent = self._parent(experiment, name, known.get(f"parent:{name}"), records)
            self._log_parent(parent, note, artifacts, parameters or {}, seconds, records)
            for view, state in views(records).items():
                self.client.set_experiment_tag(experiment, f"{VIEW_TAG}.{view}", state)
            for record in records:
                self._log_member(experiment, parent, record)
                on_member()
            reached("members logged")
            self.client.set_terminated(parent, "FINISHED")
            if _local_file(self.uri) is None:
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
            for record in records:
                self._log_member(experiment, parent, record)

    def stopped(self, name: str) -> None:
        """Mark the experiment's parent run KILLED: it was interrupted, and can be resumed."""
        with _reaching(self.uri), self._lock():
            experiment = self._experiment(name)
            known = self._known(experiment).get(f"parent:{name}")
            if known is not None:
                self.client.set_terminated(known.run, "KILLED")

    def _lock(self) -> Any:
        path = _local_file(self.uri)
        return FileLock(path.with_name(".mlflow.lock"), timeout=600) if path is not None else _unlocked()

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        local = _local_file(self.uri)
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
        self.client.set_tag(run, "mlflow.note.content", note[:5000])
        for name, value in parameters.items():
            self.client.set_tag(run, name, str(value)[:5000])
        if seconds:
            stamp = max((record.logged_at for record in records), default=0)
            self.client.log_metric(run, "time/seconds", seconds, timestamp=stamp)
        for path in artifacts:
            self.client.log_artifact(run, str(path))

    def _log_member(self, experiment: str, parent: str, record: MemberRecord) -> None:
        from mlflow.entities import Param

        known = self._known(experiment).get(record.key)
        if known is not None and known.start != record.logged_at:
            # of an earlier attempt: a failed one that was tried again, or one before `--fresh`
            self._remove(known.run)
            known = None
        if known is not None and known.status in ("FINISHED", "FAILED"):
            return
        if known is None:
            tags = {**member_tags(record), "mlflow.parentRunId": parent}
            name = f"{record.variant} s{record.seed}"
            made = self.client.create_run(experiment, start_time=record.logged_at, tags=tags, run_name=name)
            known = self._runs[experiment][record.key] = Known(str(made.info.run_id), "RUNNING", record.logged_at)
        run = known.run
        reached("member begun")
        parameters = [Param(name, str(value)) for name, value in member_parameters(record).items()]
        metrics = [_metric(*row) for row in member_metrics(record)]
        self.client.log_batch(run, metrics=metrics[:1000], params=parameters[:100])
        reached("member logged")
        self.client.set_terminated(run, "FAILED" if record.status == "failed" else "FINISHED", record.logged_at + 1)
        self._runs[experiment][record.key] = Known(run, "FINISHED", record.logged_at)


def member_tags(record: MemberRecord) -> dict[str, str]:
    """What runs are grouped and filtered by."""
    factors = {name: str(level) for name, level in record.levels.items()}
    infinite = [name for name, value in record.losses.items() if not math.isfinite(value)]
    return {
        **factors,
        KEY_TAG: record.key,
        KIND_TAG: "member",
        "variant": record.variant,
        "seed": str(record.seed),
        "verdict": record.verdict or record.status,
        "status": record.status,
        "flags": " ".join(record.flags),
        **({"not_finite": " ".join(infinite)} if infinite else {}),
        **({"error": record.error[:5000]} if record.error else {}),
        **({"diverged_step": str(record.diverged_step)} if record.diverged_step is not None else {}),
    }


def member_parameters(record: MemberRecord) -> dict[str, Any]:
    """The levels and the seed, and the logarithm of what is spaced by it."""
    logs = {
        f"log10_{name}": round(math.log10(value), 6)
        for name, value in record.levels.items()
        if name in LOG_SCALED and isinstance(value, int | float) and value > 0
    }
    return {**record.levels, **logs, "seed": record.seed}


def member_metrics(record: MemberRecord) -> list[tuple[str, float, int, int]]:
    """(key, value, timestamp, step): curves at a few log-spaced snapshots, each reference's own at the last."""
    series = dict(_series(record))
    steps = [int(step) for step in record.history.get("step", ())]
    final = [("time/seconds", record.seconds, record.logged_at, steps[-1] if steps else 0)]
    final += [
        (f"loss_held_out/{name}", value, record.logged_at, steps[-1]) for name, value in record.losses.items() if steps
    ]
    room = max(
        2, min(SHOWN_SNAPSHOTS, (ROWS_PER_MEMBER - len(final)) // max(1, sum(name.count("/") == 1 for name in series)))
    )
    shown = sorted(log_spaced(range(len(steps)), room))
    rows = [
        (name, float(values[index]), record.logged_at + index, steps[index])
        for name, values in series.items()
        for index in (shown if name.count("/") == 1 else shown[-1:])
        if name.startswith("loss/") or not math.isnan(values[index])
    ]
    return rows + final


def _series(record: MemberRecord) -> Iterator[tuple[str, list[float]]]:
    for name, values in record.history.items():
        if name.startswith("loss/"):
            yield name, values
    for name, key in HISTORY_KEYS.items():
        if name in record.history:
            yield key, record.history[name]
    units = min(SHOWN_UNITS, record.units)
    for measure, snapshots in record.unit_history.items():
        if measure.partition("/")[0] in UNIT_MEASURES:
            for unit in range(units):
                yield f"{measure}/u{unit}", [row[unit] for row in snapshots]


def _metric(key: str, value: float, timestamp: int, step: int) -> "Metric":
    from mlflow.entities import Metric

    # an infinity is stored as 1.8e308 and wrecks the axes
    return Metric(_key(key), value if math.isfinite(value) else math.nan, timestamp, step)


def _key(name: str) -> str:
    return "".join(each if each.isalnum() or each in "_-. /:" else "-" for each in name)[:250]


def local_store(uri: str) -> Path | None:
    """The file of a sqlite store, None for a server or another database."""
    return _local_file(uri)


def experiment_id(uri: str, name: str) -> str | None:
    """The id of an experiment in a local store, read without loading MLflow."""
    path = _local_file(uri)
    if path is None or not path.exists():
        return None
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        row = connection.execute("SELECT experiment_id FROM experiments WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def stored_views(uri: str, experiment: str) -> list[str]:
    """The views of an experiment that a local store keeps, read without loading MLflow; an older store has none."""
    path = _local_file(uri)
    if path is None or not path.exists():
        return []
    query = "SELECT key FROM experiment_tags WHERE experiment_id = ? AND key LIKE ? ORDER BY key DESC"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [str(key).rpartition(".")[2] for (key,) in connection.execute(query, (experiment, f"{VIEW_TAG}.%"))]


def experiment_names(uri: str) -> list[str]:
    """The experiments of a local store, the newest first, read without loading MLflow."""
    path = _local_file(uri)
    if path is None or not path.exists():
        return []
    query = (
        "SELECT name FROM experiments WHERE lifecycle_stage = 'active' AND name != 'Default'"
        " ORDER BY creation_time DESC"
    )
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [str(row[0]) for row in connection.execute(query)]


def move_paths(uri: str) -> int:
    """Rewrite the artifact paths of a store whose folder was moved; how many rows were changed.

    Raises:
        HarnessError: when the store is no local file.
    """
    path = _local_file(uri)
    if path is None or not path.exists():
        raise HarnessError(f"{uri}: only a local store that is there can be repaired")
    place, changed = (path.parent / "artifacts").as_uri(), 0
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, column, key in PATH_COLUMNS:
            rows = connection.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
            for row, value in rows:
                _head, found, tail = value.partition("/artifacts")
                moved = f"{place}{tail}" if found else value
                if moved != value:
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (moved, row))
                    changed += 1
    return changed


def _local_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


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
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise HarnessError(
            f"MLflow store {uri}: {reason}; the results are safe under mlruns/results, `harness sync` logs them later"
        ) from error


@contextmanager
def _unlocked() -> Iterator[None]:
    yield


HISTORY_KEYS = {"live_units": "collapse/live_units", "effective_rank": "collapse/effective_rank", "r2": "health/r2"}
UNIT_MEASURES = ("activation_frequency", "mutual_information", "entropy_bits")
PATH_COLUMNS = (
    ("experiments", "artifact_location", "experiment_id"),
    ("runs", "artifact_uri", "run_uuid"),
)
