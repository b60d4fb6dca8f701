"""Waiting for what can be observed, and processor time in place of wall time: a busy machine decides no test."""

import subprocess
import time
from collections.abc import Callable

LONGEST = 600.0  # seconds that any process or event of a test may take: a guard against hangs, and never a measurement


def until(happened: Callable[[], object], process: "subprocess.Popen | None" = None) -> None:
    """Return as soon as `happened()` is true.

    Args:
        happened: asked again and again.
        process: what makes it happen; one that ends before is a failure at once.
    """
    deadline = time.monotonic() + LONGEST
    while not happened():
        assert process is None or process.poll() is None, f"ended with {process.returncode} before it happened"
        assert time.monotonic() < deadline, f"not seen within {LONGEST:.0f} s"
        time.sleep(0.02)


def processor_seconds(action: Callable[[], object], enough: float = 0.0, tries: int = 5) -> float:
    """Processor seconds of this thread for `action`: the least of some tries, of which the first below `enough` is the last.

    What else runs on the machine is not counted; it only takes caches away, which the least of several tries feels little.
    """
    least = float("inf")
    for _ in range(tries):
        begun = time.thread_time()
        action()
        least = min(least, time.thread_time() - begun)
        if least < enough:
            break
    return least
