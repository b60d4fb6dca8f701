"""Progress of a run: a bar on a terminal, otherwise a plain line every ten seconds."""

import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from harness.experiment import RunCallbacks
from harness.results import MemberRecord

EVERY = 10.0  # seconds between plain lines


class Display:
    """Progress on standard error. With `quiet`, only problems are shown."""

    def __init__(self, quiet: bool = False) -> None:
        self.console, self.quiet = Console(stderr=True), quiet
        self.total, self.members, self.done, self.steps = 0, 0, 0, 0
        self.began = self.said = time.monotonic()
        self._bar: Bar | None = None
        self._task: Any = None

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def progress(self) -> RunCallbacks:
        """Return the callbacks for a run."""
        return RunCallbacks(self._started, self._stepped, self._finished, self._says)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _started(self, members: int, done: int, steps: int) -> None:
        self.members, self.done, self.total = members, done, max(1, steps)
        self.began = self.said = time.monotonic()
        if done < members and not self.quiet and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
            self._bar = Bar(*columns, TextColumn("{task.fields[rate]}"), TimeRemainingColumn(), console=self.console)
            self._bar.start()
            self._task = self._bar.add_task(self._counted(), total=self.total, rate="")

    def _stepped(self, steps: int) -> None:
        self.steps += steps
        rate = f"{self.steps / max(1e-9, time.monotonic() - self.began):,.0f} member-steps/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=self.steps, rate=rate, description=self._counted())
        elif not self.quiet and time.monotonic() - self.said > EVERY:
            self.said = time.monotonic()
            print(f"{self._counted()}, {rate}{self._left()}", file=sys.stderr, flush=True)

    def _finished(self, records: Sequence[MemberRecord]) -> None:
        self.done += len(records)
        if self._bar is not None:
            self._bar.update(self._task, description=self._counted())

    def _left(self) -> str:
        """Format the remaining time, once one percent is done."""
        if self.steps * 100 < self.total:
            return ""
        seconds = (self.total - self.steps) * (time.monotonic() - self.began) / self.steps
        return f", {seconds:.0f} s left"

    def _counted(self) -> str:
        return f"{min(self.done, self.members)} of {self.members} members"

    def _says(self, text: str) -> None:
        print(text, file=sys.stderr)
