"""On which device a case trains."""

import torch
from torch import Tensor

from harness.capture import eval_mode
from harness.case import Case
from harness.errors import HarnessError
from harness.models import accepts_rows, build_model
from harness.user_code import guarded

LOOKED_UP_AT_ONCE = 1024  # rows


def device_of(case: Case, rows: Tensor) -> str:
    """Where the case's training numbers have it trained: `auto` is a GPU, if there is one and the author's code runs on it.

    Args:
        case: a case, treated or not.
        rows: training inputs, `[sample, *feature]`.
    """
    name = str(case.training()["device"])
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() and _runs_on_the_gpu(case, rows) else "cpu"


def check_device(name: str) -> None:
    """Look whether torch has the device that training numbers name.

    Raises:
        HarnessError: where it has not.
    """
    kind, _, index = name.partition(":")
    here = {"cuda": int(index or 0) < torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    if not here.get(kind, True):
        raise HarnessError(f"train.device: {name} is wanted, and torch finds none here; auto takes what there is")


def gpu_name(device: str) -> str | None:
    """What the GPU is called; None for the processor.

    >>> gpu_name("cpu"), gpu_name("mps")
    (None, 'mps')
    """
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return None if device == "cpu" else device


def gpu_is_lost() -> bool:
    """Whether an error on the GPU has ended all work of this process there, as an index out of bounds does."""
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _runs_on_the_gpu(case: Case, rows: Tensor) -> bool:
    try:
        if not rows.is_floating_point():
            with guarded():
                _look_everything_up(case, rows)
        few = rows[:4].to("cuda")
        return accepts_rows(case, build_model(case, 0, few), few)
    except Exception:  # whatever is wrong with the case is told where it trains
        return False


def _look_everything_up(case: Case, rows: Tensor) -> None:
    """A token past the end of its table is an exception on the processor, and would cost this process the GPU."""
    model = build_model(case, 0, rows[:4])
    numbers = {name: case.numbers[name] for name in case.loss_keywords()}
    with torch.random.fork_rng(), torch.no_grad(), eval_mode(model):
        for part in rows.split(LOOKED_UP_AT_ONCE):
            case.losses(model, part, **numbers)
