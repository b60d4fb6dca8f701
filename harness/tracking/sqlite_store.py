"""The local store, one sqlite file: where it is, and what can be read or mended without loading MLflow."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from harness.credentials import masked
from harness.errors import HarnessError
from harness.tracking.views import VIEW_TAG


def store_uri(tracking_uri: str | None, root: Path) -> str:
    """Where the store is: what was asked, what the environment says, or `mlruns/mlflow.db` under `root`."""
    named = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    return named or f"sqlite:///{(root / 'mlruns' / 'mlflow.db').resolve()}"


def local_store(uri: str) -> Path | None:
    """The file of a sqlite store, None for a server or another database."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def experiment_id(uri: str, name: str) -> str | None:
    """The id of an experiment in a local store, read without loading MLflow."""
    found = _column(uri, "SELECT experiment_id FROM experiments WHERE name = ?", name)
    return found[0] if found else None


def stored_views(uri: str, experiment: str) -> list[str]:
    """The views of an experiment that a local store keeps, read without loading MLflow; an older store has none."""
    query = "SELECT key FROM experiment_tags WHERE experiment_id = ? AND key LIKE ? ORDER BY key DESC"
    return [key.rpartition(".")[2] for key in _column(uri, query, experiment, f"{VIEW_TAG}.%")]


def experiment_names(uri: str) -> list[str]:
    """The experiments of a local store, the newest first, read without loading MLflow."""
    query = (
        "SELECT name FROM experiments WHERE lifecycle_stage = 'active' AND name != 'Default'"
        " ORDER BY creation_time DESC"
    )
    return _column(uri, query)


def _column(uri: str, query: str, *values: str) -> list[str]:
    """The first column of what a local store answers; nothing where there is no such store."""
    path = local_store(uri)
    if path is None or not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [str(first) for first, *_ in connection.execute(query, values)]


def move_paths(uri: str) -> int:
    """Rewrite the artifact paths of a store whose folder was moved; how many rows were changed.

    Raises:
        HarnessError: when the store is no local file.
    """
    path = local_store(uri)
    if path is None or not path.exists():
        raise HarnessError(f"{masked(uri)}: only a local store that is there can be repaired")
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


PATH_COLUMNS = (
    ("experiments", "artifact_location", "experiment_id"),
    ("runs", "artifact_uri", "run_uuid"),
)
