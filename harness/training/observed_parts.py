"""Parts of equal size in which rows are observed, and the view of the bottleneck put together from them."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from harness.capture.code_form import CodeForm
from harness.training.program import BottleneckView, Program

# largest number of input elements of one member observed at once: they have to fit the cache
OBSERVED_AT_ONCE = 1 << 13
MIXED = 1e-3  # of the standard deviation: a stronger influence of the batch on a row counts


def rows_at_once(rows: Tensor) -> int:
    """Number of rows observed together: a power of two, so that all parts have the same shape.

    >>> rows_at_once(torch.zeros(5000, 100))
    64
    """
    most = max(32, OBSERVED_AT_ONCE // max(1, rows[0].numel()))
    return 1 << most.bit_length() - 1


@torch.no_grad()
def mixes_rows(program: Program, rows: Tensor, size: int) -> bool:
    """Return True if a row's code or output depends on the other rows of its batch, as behind BatchTopK.

    Args:
        program: in eval mode.
        rows: `[sample, *feature]`.
        size: rows of a batch, of which the first half is compared with a batch of these alone.
    """
    batch = rows[:size]
    if len(batch) < 2:
        return False
    looks = []
    try:
        with torch.random.fork_rng(devices=[]):
            for part in (batch, batch, batch[: len(batch) // 2]):
                view = program.look(part)
                looks.append([view[name] for name in ("code", "reconstruction", "output") if name in view])
    except Exception:  # the observation says what is wrong
        return False
    first, again, half = looks
    if not all(torch.equal(values, repeated) for values, repeated in zip(first, again, strict=True)):
        return False  # random, or not finite
    return any(
        bool(((values[: len(part)] - part).abs() > MIXED * values.std(0)).any())
        for values, part in zip(first, half, strict=False)
    )


def parts_of(rows: Tensor, size: int) -> Iterator[tuple[Tensor, slice]]:
    """Yield parts of equal size with the slice of new rows in each: a smaller last part would use other kernels."""
    size = min(size, len(rows))
    for start in range(0, len(rows), size):
        first = min(start, len(rows) - size)
        yield rows[first : first + size], slice(start - first, size)


def joined(parts: Sequence[Mapping[str, Tensor]], activation: str, form: CodeForm | None) -> BottleneckView:
    """Concatenate parts of rows, and average their scales one after the other.

    torch's mean adds in an order that depends on the number of members.
    """
    code, before, raw = (torch.cat([part[name] for part in parts], dim=-2) for name in ("code", "preactivation", "raw"))
    reconstructions = tuple(part["reconstruction"] for part in parts if "reconstruction" in part)
    scales = [part["scale"] for part in parts if "scale" in part]
    scale = sum(scales[1:], start=scales[0]) / len(scales) if scales else None
    log_variances = [part["posterior"] for part in parts if "posterior" in part]
    posterior = torch.cat(log_variances, dim=-2) if log_variances else None
    outputs = [part["output"] for part in parts if "output" in part]
    output = torch.cat(outputs, dim=-2) if outputs else None
    form = CodeForm(code.shape[-1]) if form is None else form
    return BottleneckView(code, before, raw, reconstructions, scale, activation, form, posterior, output)
