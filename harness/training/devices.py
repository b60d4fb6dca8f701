"""Choice of the device that a case trains on."""

import torch
from torch import Tensor

from harness.capture import eval_mode
from harness.case import Case
from harness.errors import HarnessError
from harness.loss_terms import bind_losses
from harness.models import accepts_rows, build_model
from harness.user_code import guarded

LOOKUP_ROWS = 1024  # rows


def device_of(case: Case, rows: Tensor, targets: Tensor | None = None) -> str:
    """Return the device that the case trains on; `auto` is a GPU if there is one and the author's code runs on it.

    Args:
        case: a case, treated or not.
        rows: training inputs, `[sample, *feature]`.
        targets: targets of the rows, for a loss that names `target`.
    """
    name = str(case.training()["device"])
    if name != "auto":
        return name
    if case.fit is not None:
        return "cpu"  # the device of training is that function's own choice
    return "cuda" if torch.cuda.is_available() and _runs_on_the_gpu(case, rows, targets) else "cpu"


def check_device(name: str) -> None:
    """Check that torch has the device named in the training numbers.

    Raises:
        HarnessError: when it does not.
    """
    device_type, _, index = name.partition(":")
    here = {"cuda": int(index or 0) < torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    if not here.get(device_type, True):
        raise HarnessError(
            f"train.device: expected a device that torch finds here, got {name}; write auto to use what there is"
        )


def gpu_name(device: str) -> str | None:
    """Return the name of the GPU; None for the CPU.

    >>> gpu_name("cpu"), gpu_name("mps")
    (None, 'mps')
    """
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return None if device == "cpu" else device


def gpu_is_lost() -> bool:
    """Return True if an error, such as an index out of bounds, has made the GPU unusable for this process."""
    try:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _runs_on_the_gpu(case: Case, rows: Tensor, targets: Tensor | None) -> bool:
    try:
        if not rows.is_floating_point():
            with guarded():
                _check_lookups(case, rows, targets)
        sample = rows[:4].to("cuda")
        return accepts_rows(bind_losses(case, targets), build_model(case, 0, sample), sample)
    except Exception:  # an error of the case is reported when it trains
        return False


def _check_lookups(case: Case, rows: Tensor, targets: Tensor | None) -> None:
    """Evaluate the loss on all rows on the CPU, where a token past the end of its table is an exception.

    On a GPU the same error would make the device unusable for this process.
    """
    model = build_model(case, 0, rows[:4])
    with torch.random.fork_rng(), torch.no_grad(), eval_mode(model):
        for start in range(0, len(rows), LOOKUP_ROWS):
            part = slice(start, start + LOOKUP_ROWS)
            bound = bind_losses(case, None if targets is None else targets[part])
            bound.losses(model, rows[part], **bound.loss_arguments(bound.numbers))
