"""Ctrl-C and SIGTERM: out in order the first time, at once the second, and never later than in five seconds."""

import os
import signal
import sys
import threading
from typing import Any, NoReturn

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


def listen(farewell: str) -> None:
    """From now on the first signal raises `Interrupted` in the main thread; `leave` ends what it began."""

    def stop(number: int, frame: Any) -> NoReturn:
        for each in NUMBERS:
            signal.signal(each, at_once)
        sys.unraisablehook = lambda error: None
        watchdog = threading.Timer(LATEST, leave, (number, farewell))
        watchdog.daemon = True
        watchdog.start()
        raise Interrupted(number)

    for number in NUMBERS:
        signal.signal(number, stop)


def leave(number: int, farewell: str) -> NoReturn:
    """End the process with the signal's exit code; threads that wait for a store do not hold it up."""
    os.write(2, f"{farewell}\n".encode())
    os._exit(128 + number)


def at_once(number: int, frame: Any) -> None:
    """End the process now."""
    os._exit(128 + number)
