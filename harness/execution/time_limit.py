"""Time limit of a stack: a loss that never returns can be ended only together with its process."""

import threading
from types import TracebackType
from typing import Protocol


class Killable(Protocol):
    """A worker process, or a task of a cluster."""

    def kill(self) -> None:
        """End it at once."""


class TimeLimit:
    """Kill a worker that has not answered within some seconds after `start`.

    Args:
        process: the worker.
        seconds: None for no limit.
    """

    def __init__(self, process: Killable, seconds: float | None) -> None:
        self.process, self.seconds, self.reached, self._stopped = process, seconds, False, False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> "TimeLimit":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def reason(self) -> str:
        """Reason of the members that took too long."""
        return f"took longer than --timeout {self.seconds:g} s" if self.seconds is not None else ""

    def start(self) -> None:
        """Start the clock; later calls do nothing, nor does one after `stop`."""
        if self.seconds is not None and self._timer is None and not self._stopped:
            self._timer = threading.Timer(self.seconds, self._end)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """Stop the clock."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self.reached = True
        self.process.kill()
