"""Addresses of stores as MLflow reads them: awkward paths of files, and the driver of PostgreSQL."""

import atexit
import os
import re
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from harness.errors import HarnessError
from harness.tracking.sqlite_store import local_store

DATABASES = ("postgresql", "mysql", "mssql", "sqlite")
PLAIN = re.compile(
    r"[^%?#\ud800-\udfff]*"
)  # SQLAlchemy takes the rest for escapes and options; surrogates are no UTF-8
CONNECT_TIMEOUT = 10  # seconds


def is_server(uri: str) -> bool:
    """Return True for the address of an MLflow server."""
    return uri.startswith(("http://", "https://"))


def is_database(uri: str) -> bool:
    """Return True for the address of a database, a SQLite file included."""
    return uri.partition("://")[0].partition("+")[0] in DATABASES


def mlflow_address(uri: str) -> str:
    """Return the address by which MLflow opens the store.

    A SQLite file in a folder with `%`, `?`, `#` or bytes that are no UTF-8 in its path is reached by a symbolic link;
    PostgreSQL by psycopg 3, unless psycopg2 is installed or a driver is named.

    >>> mlflow_address("http://localhost:5000")
    'http://localhost:5000'
    >>> mlflow_address("sqlite:////runs/mlflow.db")
    'sqlite:////runs/mlflow.db'
    """
    path = local_store(uri)
    if path is not None:
        return f"sqlite:///{plain_path(path)}"
    if uri.startswith("postgresql://") and find_spec("psycopg2") is None:
        if find_spec("psycopg") is None:
            raise HarnessError("expected a driver of PostgreSQL; `pip install 'collapse-harness[postgresql]'`")
        return uri.replace("postgresql://", "postgresql+psycopg://", 1)
    return uri


def plain_path(path: Path) -> Path:
    """Return a path to this file without characters that have a meaning in an address.

    >>> plain_path(Path("/runs/mlflow.db")).as_posix()
    '/runs/mlflow.db'
    """
    return path if PLAIN.fullmatch(str(path)) else _link(path.parent.absolute()) / path.name


@cache
def _link(folder: Path) -> Path:
    """Return a symbolic link to a folder, which lasts as long as this process."""
    link = Path(tempfile.mkdtemp(prefix="harness-")) / "store"
    link.symlink_to(folder, target_is_directory=True)
    atexit.register(_unlink, link, os.getpid())
    return link


def _unlink(link: Path, process: int) -> None:
    if os.getpid() == process:  # not in a forked child
        link.unlink(missing_ok=True)
        link.parent.rmdir()


def check_store(uri: str) -> None:
    """Connect once to a database: MLflow tries for minutes whatever the reason.

    Raises:
        HarnessError: if the store is a folder.
        Exception: of SQLAlchemy, if the database does not answer.
    """
    path = local_store(uri)
    if path is not None and path.is_dir():
        raise HarnessError(f"{path}: expected MLflow's SQLite file, got a folder; move it away")
    if path is not None and path.exists():
        _connect(f"sqlite:///{plain_path(path)}")
    elif path is None and is_database(uri):
        os.environ.setdefault("PGCONNECT_TIMEOUT", str(CONNECT_TIMEOUT))
        _connect(mlflow_address(uri))


def _connect(address: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(address)
    try:
        sqlalchemy.inspect(engine)
    finally:
        engine.dispose()


def artifact_folder(location: str) -> Path | None:
    """Return the folder of an artifact location; None if it is not on this machine.

    MLflow decodes the location as UTF-8; here every byte stays.

    >>> artifact_folder("file:///runs/a%20b").as_posix(), artifact_folder("mlflow-artifacts:/1/2")
    ('/runs/a b', None)
    """
    address = urlsplit(location)
    return Path(os.fsdecode(unquote_to_bytes(address.path))) if address.scheme == "file" else None
