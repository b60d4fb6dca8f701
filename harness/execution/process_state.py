"""Settings of a process that a case's code may change, and that the next stack must not inherit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


@contextmanager
def kept_process_state() -> Iterator[None]:
    """Restore the working directory, and torch's default dtype, device, gradient mode and threads, when the block ends."""
    folder, dtype, device = _working_directory(), torch.get_default_dtype(), torch.get_default_device()
    gradients, threads = torch.is_grad_enabled(), torch.get_num_threads()
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(folder)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:  # a set device makes every call of torch slower
            torch.set_default_device(None if device == torch.device("cpu") else device)
        torch.set_grad_enabled(gradients)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""
