"""Time limit of a stack: a loss that never returns can be ended only together with its process."""

import threading
from types import TracebackType

from harness.execution.worker_client import Worker


class TimeLimit:
    """Kill a worker that has not answered within some seconds after `start`.

    Args:
        process: the worker.
        seconds: None for no limit.
    """

    def __init__(self, process: Worker, seconds: float | None) -> None:
        self.process, self.seconds, self.reached = process, seconds, False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "TimeLimit":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def reason(self) -> str:
        """Reason of the members that took too long."""
        return f"took longer than --timeout {self.seconds:g} s" if self.seconds is not None else ""

    def start(self) -> None:
        """Start the clock; later calls do nothing."""
        if self.seconds is not None and self._timer is None:
            self._timer = threading.Timer(self.seconds, self._end)
            self._timer.daemon = True
            self._timer.start()

    def _end(self) -> None:
        self.reached = True
        self.process.kill()
