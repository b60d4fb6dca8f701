"""Named moments at which a process ends, as in a power cut: functions of the package, wrapped in the process of a test."""

import os
import signal
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

BEFORE, AFTER = "before", "after"
DRIVER, PUBLISHER = "harness.experiment.driver", "harness.experiment.publisher"
TRACKER, WRITER = "harness.tracking.tracker", "harness.tracking.sqlite_writer"
# moment -> (module, function, whether the process ends before it or after it), one for each way that leads there
MOMENTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "store migrated": (("os", "replace", BEFORE),),
    "store created": ((TRACKER, "create_store", AFTER),),
    "parent begun": ((TRACKER, "Tracker.begin", AFTER),),
    "manifest written": ((DRIVER, "write_manifest", AFTER),),
    "stack trained": ((DRIVER, "write_stack", BEFORE),),
    "stack written": ((DRIVER, "write_stack", AFTER),),
    "report written": ((PUBLISHER, "Publisher._reported", AFTER),),
    "member begun": ((TRACKER, "stored_metrics", BEFORE), (WRITER, "stored_metrics", BEFORE)),
    "member logged": ((TRACKER, "ending", BEFORE), (WRITER, "_use_dataset", AFTER)),
    "members logged": ((TRACKER, "variant_summaries", BEFORE),),
}


def install(moment: str) -> None:
    """End this process when it first gets to the moment."""
    for module, name, when in MOMENTS[moment]:
        *owners, attribute = name.split(".")
        owner = import_module(module)
        for inner in owners:
            owner = getattr(owner, inner)
        setattr(owner, attribute, _deadly(getattr(owner, attribute), when))


def before_main(moment: str) -> str:
    """Python that a new process runs to end at the moment."""
    folder = str(Path(__file__).parent)
    return f"import sys; sys.path.append({folder!r}); import crash_points; crash_points.install({moment!r})"


def _deadly(function: Callable[..., Any], when: str) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        if function is os_replace and Path(arguments[1]).name != "mlflow.db":
            return function(*arguments, **options)
        result = None if when == BEFORE else function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


os_replace = os.replace
