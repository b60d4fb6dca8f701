"""The local store, a SQLite file: its location, and queries and repairs without loading MLflow."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from harness.credentials import masked
from harness.errors import HarnessError
from harness.tracking.views import VIEW_TAG


def store_uri(tracking_uri: str | None, root: Path) -> str:
    """Return the store's URI: the argument, MLFLOW_TRACKING_URI, or `mlruns/mlflow.db` under `root`.

    Raises:
        HarnessError: if that path is a link to itself.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    path = root / "mlruns" / "mlflow.db"
    try:
        return uri or f"sqlite:///{path.resolve()}"
    except (OSError, RuntimeError) as error:  # a link to itself is a RuntimeError before Python 3.13
        raise HarnessError(f"{path}: expected a file, got a link to itself; remove it") from error


def local_store(uri: str) -> Path | None:
    """Return the file of a SQLite store, None for a server or another database.

    >>> local_store("sqlite:////runs/mlflow.db").as_posix(), local_store("http://localhost:5000")
    ('/runs/mlflow.db', None)
    """
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def experiment_id(uri: str, name: str) -> str | None:
    """Read the id of an experiment in a local store, without loading MLflow."""
    ids = _column(uri, "SELECT experiment_id FROM experiments WHERE name = ?", name)
    return ids[0] if ids else None


def stored_views(uri: str, experiment: str) -> list[str]:
    """Read the views of an experiment in a local store, without loading MLflow; an older store has none."""
    query = "SELECT key FROM experiment_tags WHERE experiment_id = ? AND key LIKE ? ORDER BY key DESC"
    return [key.rpartition(".")[2] for key in _column(uri, query, experiment, f"{VIEW_TAG}.%")]


def experiment_names(uri: str) -> list[str]:
    """Read the names of the experiments in a local store, newest first, without loading MLflow."""
    query = (
        "SELECT name FROM experiments WHERE lifecycle_stage = 'active' AND name != 'Default'"
        " ORDER BY creation_time DESC"
    )
    return _column(uri, query)


def local_experiments(uri: str) -> list[tuple[str, str, list[str]]]:
    """Return (name, id, views) of the active experiments of a local store, newest first, without loading MLflow."""
    numbers = ((name, experiment_id(uri, name)) for name in experiment_names(uri))
    return [(name, number, stored_views(uri, number)) for name, number in numbers if number is not None]


def _column(uri: str, query: str, *values: str) -> list[str]:
    """Return the first column of a query; an empty list if the store does not exist."""
    path = local_store(uri)
    if path is None or not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro", uri=True)) as connection:
        return [str(first) for first, *_ in connection.execute(query, values)]


def move_paths(uri: str) -> int:
    """Rewrite the artifact paths of a store whose folder was moved, and return the number of changed rows.

    Raises:
        HarnessError: if the store is not a local file.
    """
    path = local_store(uri)
    if path is None or not path.exists():
        raise HarnessError(f"{masked(uri)}: expected an existing local store; other stores cannot be repaired")
    artifacts, changed = (path.parent / "artifacts").as_uri(), 0
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, column, key in PATH_COLUMNS:
            rows = connection.execute(f"SELECT {key}, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
            for row, value in rows:
                _head, separator, tail = value.partition("/artifacts")
                moved = f"{artifacts}{tail}" if separator else value
                if moved != value:
                    connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (moved, row))
                    changed += 1
    return changed


PATH_COLUMNS = (
    ("experiments", "artifact_location", "experiment_id"),
    ("runs", "artifact_uri", "run_uuid"),
)
