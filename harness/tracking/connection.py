"""The way to a store: short timeouts, one writer at a time, and errors as one sentence."""

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
LONGEST_REASON = 500  # characters of what MLflow says, whose cause comes last
SETTINGS = {  # seconds: a server that is not there must not hold anything up for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output may be one JSON document
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def quiet() -> None:
    """Settings of MLflow that the user did not set, and no log lines of its own."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for logger in ("mlflow", "alembic"):
        logging.getLogger(logger).setLevel(logging.ERROR)


def store_lock(uri: str) -> AbstractContextManager[Any]:
    """Hold a local store alone; a server looks after itself."""
    path = local_store(uri)
    return FileLock(path.with_name(".mlflow.lock"), timeout=LONGEST_WAIT) if path is not None else nullcontext()


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Errors of the store as one clear sentence."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        shown = without_secrets(str(error), uri)
        reason = shown.strip().splitlines()[0][:LONGEST_REASON] if shown.strip() else type(error).__name__
        raise HarnessError(
            f"MLflow store {masked(uri)}: {reason}; the results are safe under mlruns/results, "
            "`harness sync` logs them later"
        ) from (error if shown == str(error) else None)  # a traceback would show the cause as it is
