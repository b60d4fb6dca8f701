"""Ctrl-C and SIGTERM: out in order the first time, at once the second, and never later than in five seconds."""

import os
import signal
import sys
import threading
from typing import Any, NoReturn

from harness.user_code import end_process

LATEST = 4.0  # seconds: an interrupt can be lost inside a library, and a store may not answer
NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user or the system asks the command to stop.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install_handlers(farewell: str) -> None:
    """From now on the first signal raises `Interrupted` in the main thread; `exit_now` ends what it began."""

    def stop(number: int, frame: Any) -> NoReturn:
        for each in NUMBERS:
            signal.signal(each, kill_now)
        sys.unraisablehook = lambda error: None
        watchdog = threading.Timer(LATEST, exit_now, (number, farewell))
        watchdog.daemon = True
        watchdog.start()
        raise Interrupted(number)

    for number in NUMBERS:
        signal.signal(number, stop)


def spare_children() -> None:
    """Children that a case's code forks answer to signals as any process of Python, from their first moment on.

    Signals wait while a process is forked: one that met the handler of this command in the child would be lost there,
    and `multiprocessing.Pool` ends its processes by such a signal, and waits for them.
    """
    before = threading.local()

    def block() -> None:
        before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)

    def restore() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)

    def answer_as_usual() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        restore()

    os.register_at_fork(before=block, after_in_parent=restore, after_in_child=answer_as_usual)


def exit_now(number: int, farewell: str) -> NoReturn:
    """End the process with the signal's exit code; threads that wait for a store do not hold it up."""
    os.write(2, f"{farewell}\n".encode())
    end_process(128 + number)


def kill_now(number: int, frame: Any) -> None:
    """End the process now."""
    end_process(128 + number)
