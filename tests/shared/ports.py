"""Ports for servers of tests."""

import os
import random
import socket
from contextlib import suppress

# below those that the system gives away: until a server is up, on a busy machine, nobody else gets its port
OWN = iter(random.Random(os.getpid()).sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A port on which nothing listens, another one each time."""
    return next(filter(_is_free, OWN))


def _is_free(port: int) -> bool:
    with socket.socket() as asked, suppress(OSError):
        asked.bind(("127.0.0.1", port))
        return True
    return False
