"""Named moments at which a test can end the process, to see that nothing is lost there.

`HARNESS_DIE_AT="stack written" harness run ...` ends the process, as a power cut would, when it first gets there.
"""

import os
import signal

VARIABLE = "HARNESS_DIE_AT"


def crash_point(moment: str) -> None:
    """End the process here, if the environment says so."""
    assert moment in MOMENTS, moment
    if os.environ.get(VARIABLE) == moment:
        os.kill(os.getpid(), signal.SIGKILL)


MOMENTS = (
    "store migrated",
    "store created",
    "parent begun",
    "manifest written",
    "stack trained",
    "stack written",
    "report written",
    "member begun",
    "member logged",
    "members logged",
)
