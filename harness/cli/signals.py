"""Ctrl-C and SIGTERM: the first stops in order, within five seconds; the second stops at once."""

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn

from harness.user_code import end_process

LATEST = 4.0  # seconds: an interrupt can be lost inside a library, and a store may not answer
NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user or the system stops the command.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install_handlers(farewell: str) -> None:
    """Let the first signal raise `Interrupted` in the main thread, and the second end the process."""

    def stop(number: int, frame: Any) -> NoReturn:
        for stop_signal in NUMBERS:
            signal.signal(stop_signal, kill_now)
        sys.unraisablehook = lambda error: None
        watchdog = threading.Timer(LATEST, exit_now, (number, farewell))
        watchdog.daemon = True
        watchdog.start()
        raise Interrupted(number)

    for number in NUMBERS:
        signal.signal(number, stop)


def spare_children() -> None:
    """Give child processes that a case's code forks Python's default signal handlers.

    Signals are blocked during a fork: in the child, this command's handler would swallow them, and
    `multiprocessing.Pool` ends its processes by such a signal and waits for them.
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
    """End the process with the signal's exit code, without waiting for threads."""
    os.write(2, f"{farewell}\n".encode())
    end_process(128 + number)


def leave(code: int) -> NoReturn:
    """End the process with this exit code, without waiting for threads that a case's code started."""
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        end_process(code)
    if code == 128 + signal.SIGPIPE:  # a flush at the end would fail again, with a message
        end_process(code)
    sys.exit(code)


def kill_now(number: int, frame: Any) -> None:
    """End the process at once."""
    end_process(128 + number)
