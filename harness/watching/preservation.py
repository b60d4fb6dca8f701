"""State of a model and of the random generators, restored when a block ends."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Restore the mode, the buffers and all random generators bit for bit when the block ends.

    Covers the generators of torch (every device in use), NumPy and Python.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    values = {id(buffer): buffer.clone() for buffer in model.buffers()}
    try:
        with preserved_random_state(model):
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for module, names in buffers:
                module._buffers.clear()
                module._buffers.update(names)
            for buffer in model.buffers():
                if not torch.equal(buffer, values[id(buffer)]):
                    buffer.copy_(values[id(buffer)])


@contextmanager
def preserved_random_state(model: nn.Module) -> Iterator[None]:
    """Restore the random generators of torch (every device of the model), NumPy and Python when the block ends."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # the state of user code
    try:
        with torch.random.fork_rng(devices=_devices(model)):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _devices(model: nn.Module) -> list[int]:
    used = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    return sorted(device.index or 0 for device in used)
