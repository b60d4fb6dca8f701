"""Write members into a local store, many in one transaction; MLflow's client takes several transactions per run.

The tables are MLflow's own. They are written here only if they have exactly the expected columns; a store of another
version, and every server, is written by the client. Through MLflow's own SQLAlchemy tables, 240 instead of 350
members per second were written, for nearly twice the processor time.
"""

import math
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from harness.results import MemberRecord
from harness.tracking.context import DATASET_CONTEXT, LoggedDataset, RunContext
from harness.tracking.inventory import StoredRun
from harness.tracking.member_rows import (
    DIGEST_TAG,
    KEY_TAG,
    ORIGIN_TAG,
    Metric,
    ending,
    run_name,
    starting,
    stored_metrics,
    stored_parameters,
    stored_tags,
)
from harness.tracking.variant_summary import (
    VariantSummary,
    stored_summary_tags,
    summary_metrics,
    summary_parameters,
)
from harness.tracking.views import KIND_TAG

PATIENCE = 60.0  # seconds to wait for another writer
RUN = {  # the client's defaults for a run
    "source_type": "UNKNOWN",
    "source_name": "",
    "entry_point_name": "",
    "user_id": "unknown",  # replaced by the tag `mlflow.user`
    "source_version": "",
    "lifecycle_stage": "active",
    "deleted_time": None,
}
COLUMNS = {
    "runs": ("run_uuid", "name", "status", "start_time", "end_time", "artifact_uri", "experiment_id", *RUN),
    "tags": ("key", "value", "run_uuid"),
    "params": ("key", "value", "run_uuid"),
    "metrics": ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
    "latest_metrics": ("key", "value", "timestamp", "step", "is_nan", "run_uuid"),
    "datasets": (
        *("dataset_uuid", "experiment_id", "name", "digest", "dataset_source_type", "dataset_source"),
        *("dataset_schema", "dataset_profile"),
    ),
    "inputs": ("input_uuid", "source_type", "source_id", "destination_type", "destination_id", "step"),
    "input_tags": ("input_uuid", "name", "value"),
}
KEYED_RUNS = f"""
SELECT runs.run_uuid, keys.value, coalesce(origins.value, ''), runs.status, runs.start_time,
    EXISTS (SELECT 1 FROM params WHERE params.run_uuid = runs.run_uuid)
    AND EXISTS (SELECT 1 FROM latest_metrics WHERE latest_metrics.run_uuid = runs.run_uuid),
    coalesce(digests.value, ''), coalesce(kinds.value, '')
FROM tags keys JOIN runs ON runs.run_uuid = keys.run_uuid
LEFT JOIN tags origins ON origins.run_uuid = runs.run_uuid AND origins.key = '{ORIGIN_TAG}'
LEFT JOIN tags kinds ON kinds.run_uuid = runs.run_uuid AND kinds.key = '{KIND_TAG}'
LEFT JOIN tags digests ON digests.run_uuid = runs.run_uuid AND digests.key = '{DIGEST_TAG}'
WHERE keys.key = '{KEY_TAG}' AND runs.experiment_id = ? AND runs.lifecycle_stage = 'active'
"""
Row = tuple[object, ...]


def takes_bulk(path: Path) -> bool:
    """Return True if the store's tables have the expected columns."""
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
        return all(
            {column for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")} == set(columns)
            for table, columns in COLUMNS.items()
        )


def stored_runs(path: Path, experiment: str, keys: Sequence[str] | None = None) -> list[StoredRun]:
    """Return the runs of an experiment that have a key, oldest first.

    Args:
        path: of the store's file.
        experiment: its id.
        keys: only runs with these keys; None means all.
    """
    chosen = "" if keys is None else f" AND keys.value IN ({', '.join('?' * len(keys))})"
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection:
        rows = connection.execute(f"{KEYED_RUNS}{chosen} ORDER BY start_time", (experiment, *(keys or ())))
        return [
            StoredRun(run, key, origin, status, start, bool(filled), digest, run_kind)
            for run, key, origin, status, start, filled, digest, run_kind in rows
        ]


def write_members(
    path: Path,
    experiment: str,
    parent: str,
    origin: str,
    records: Sequence[MemberRecord],
    context: RunContext,
) -> dict[str, str]:
    """Write a finished run for each member, all of them or none; return key -> run id.

    Args:
        path: of the store's file.
        experiment: its id.
        parent: id of the parent run.
        origin: of the runs.
        records: members that the store does not contain.
        context: facts that hold for every run.
    """
    runs = dict(zip((record.key for record in records), _ids(len(records)), strict=True))
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection, connection:
        location = _location(connection, experiment)
        rows = [_run(record, runs[record.key], int(experiment), location, context) for record in records]
        _insert(connection, "runs", rows)
        for record in records:
            _describe(connection, record, runs[record.key], parent, origin, context)
        _use_dataset(connection, experiment, context.dataset, list(runs.values()))
    return runs


def write_summaries(
    path: Path,
    experiment: str,
    parent: str,
    origin: str,
    summaries: Sequence[VariantSummary],
    context: RunContext,
) -> None:
    """Write a finished run for each summary, all of them or none.

    Args:
        path: of the store's file.
        experiment: its id.
        parent: id of the parent run.
        origin: of the runs.
        summaries: of variants without a summary run.
        context: facts that hold for every run.
    """
    runs = _ids(len(summaries))
    with closing(sqlite3.connect(path, timeout=PATIENCE)) as connection, connection:
        location = _location(connection, experiment)
        for run, summary in zip(runs, summaries, strict=True):
            artifacts = f"{location}/{run}/artifacts"
            dates = (summary.start, summary.end)
            row = (run, summary.variant, "FINISHED", *dates, artifacts, int(experiment), *_facts(context))
            tags = {**context.tags, **stored_summary_tags(summary, parent, origin)}
            tags |= {DIGEST_TAG: summary.digest, "mlflow.runName": summary.variant}
            metrics = summary_metrics(summary, summary.end)
            _insert(connection, "runs", [row])
            _insert(connection, "tags", [(name, value, run) for name, value in tags.items()])
            _insert(connection, "params", [(name, value, run) for name, value in summary_parameters(summary)])
            for table in ("metrics", "latest_metrics"):
                _insert(connection, table, list(_rows(metrics, run)))
        _use_dataset(connection, experiment, context.dataset, runs)


def _use_dataset(
    connection: sqlite3.Connection, experiment: str, dataset: LoggedDataset | None, runs: Sequence[str]
) -> None:
    """Enter a data set as the input of runs, as `log_inputs` does: one row per data set, one edge per run."""
    if dataset is None:
        return
    query = "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?"
    stored = connection.execute(query, (int(experiment), dataset.name, dataset.digest)).fetchone()
    source = stored[0] if stored else uuid.uuid4().hex
    if not stored:
        origin = (dataset.name, dataset.digest, dataset.source_type, dataset.source)
        _insert(connection, "datasets", [(source, int(experiment), *origin, dataset.schema, dataset.profile)])
    edges = dict(zip(runs, _ids(len(runs)), strict=True))
    _insert(connection, "inputs", [(edge, "DATASET", source, "RUN", run, 0) for run, edge in edges.items()])
    tags = [(edge, name, value) for edge in edges.values() for name, value in DATASET_CONTEXT.items()]
    _insert(connection, "input_tags", tags)


def _facts(context: RunContext) -> tuple[object, ...]:
    """Return the last columns of a run's row; MLflow's client copies the user from the tag."""
    return tuple({**RUN, "user_id": context.tags.get("mlflow.user", RUN["user_id"])}.values())


def _ids(count: int) -> list[str]:
    """Return ids that sort by the time of their creation, as those of RFC 9562, version 7, do.

    The indices of the tables end in the run's id: with random ids every row would touch another page of every index.
    """
    return [f"{time.time_ns():016x}{number:04x}{uuid.uuid4().hex[:12]}" for number in range(count)]


def _location(connection: sqlite3.Connection, experiment: str) -> str:
    query = "SELECT artifact_location FROM experiments WHERE experiment_id = ?"
    (location,) = connection.execute(query, (experiment,)).fetchone()
    return str(location).rstrip("/")


def _insert(connection: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    columns = COLUMNS[table]
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)


def _run(record: MemberRecord, run: str, experiment: int, location: str, context: RunContext) -> Row:
    status, end = ending(record)
    artifacts = f"{location}/{run}/artifacts"
    return (run, run_name(record), status, starting(record), end, artifacts, experiment, *_facts(context))


def _describe(
    connection: sqlite3.Connection,
    record: MemberRecord,
    run: str,
    parent: str,
    origin: str,
    context: RunContext,
) -> None:
    tags = {**context.tags, **stored_tags(record, parent, origin), "mlflow.runName": run_name(record)}
    metrics = stored_metrics(record)
    _insert(connection, "tags", [(name, value, run) for name, value in tags.items()])
    _insert(connection, "params", [(name, value, run) for name, value in stored_parameters(record, context.parameters)])
    _insert(connection, "metrics", list(dict.fromkeys(_rows(metrics, run))))
    _insert(connection, "latest_metrics", list(_rows(_latest(metrics), run)))


def _rows(metrics: Sequence[Metric], run: str) -> Iterator[Row]:
    """Convert metrics to rows; MLflow stores NaN as 0 with a mark."""
    for key, value, timestamp, step in metrics:
        missing = math.isnan(value)
        yield key, 0.0 if missing else value, timestamp, step, missing, run


def _latest(metrics: Sequence[Metric]) -> list[Metric]:
    """Return the latest metric of each key: by step, then by time, then by value."""
    latest: dict[str, Metric] = {}
    for metric in sorted(
        metrics, key=lambda metric: (metric[3], metric[2], 0.0 if math.isnan(metric[1]) else metric[1])
    ):
        latest[metric[0]] = metric
    return list(latest.values())
