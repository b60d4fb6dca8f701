"""Access to a store: short timeouts, one writer at a time, and errors as one sentence."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from filelock import FileLock

from harness.credentials import masked, without_secrets
from harness.errors import HarnessError
from harness.tracking.sqlite_store import local_store

LONGEST_WAIT = 600  # seconds that another process may hold a local store
LONGEST_REASON = 500  # characters of MLflow's message, in which the cause comes last
NO_DATABASE = "file is not a database"  # SQLite's words
LATER = "`harness sync` logs them later"
SETTINGS = {  # seconds: an unreachable server must not delay a run for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output may be one JSON document
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def quiet() -> None:
    """Set defaults for MLflow's environment variables, and silence its loggers."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)


def store_lock(uri: str) -> AbstractContextManager[Any]:
    """Lock a local store; a server needs no lock."""
    path = local_store(uri)
    return FileLock(path.with_name(".mlflow.lock"), timeout=LONGEST_WAIT) if path is not None else nullcontext()


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Turn errors of the store into one clear sentence."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        message = without_secrets(str(error), uri)
        reason = message.strip().splitlines()[0][:LONGEST_REASON] if message.strip() else type(error).__name__
        advice = "move it away, then `harness sync` logs them" if NO_DATABASE in reason else LATER
        raise HarnessError(
            f"MLflow store {masked(uri)}: {reason}; the results are safe under mlruns/results, {advice}"
        ) from (error if message == str(error) else None)  # a traceback would show the unmasked cause
