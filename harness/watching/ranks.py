"""Statistics of all processes of a DistributedDataParallel model, added up."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed

from harness.watching.layer_window import MOST_ROWS, LayerWindow, WindowRows
from harness.watching.unit_record import UnitRecord


def gather(windows: Mapping[str, LayerWindow]) -> None:
    """Add the statistics of all ranks up in rank 0; all ranks have to call it. Other ranks keep their own."""
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, {name: window.state() for name, window in windows.items()})
    if torch.distributed.get_rank() == 0:
        for name, window in windows.items():
            _merge(window, [state[name] for state in states])


def _merge(window: LayerWindow, states: list[dict[str, Any]]) -> None:
    states = [state for state in states if state["record"] is not None]
    if not states:
        return
    first = states[0]
    window.activation, window.axis, window.shape = first["activation"], first["axis"], first["shape"]
    window.record = UnitRecord.merged([state["record"] for state in states])
    steps = [{entry["step"]: entry for entry in state["history"]} for state in states]
    common = [step for step in steps[0] if all(step in entries for entries in steps)]
    window.history = [_merged_step([entries[step] for entries in steps]) for step in common]
    offset, chunks = 0, list[WindowRows]()
    for state in states:
        parts: list[WindowRows] = state["chunks"]
        chunks += [WindowRows(part.values, part.sample + offset, part.labels) for part in parts]
        offset += 1 + max((int(part.sample.max()) for part in parts if len(part.sample)), default=0)
    window.replace_rows(deque(_thinned(chunks)))


def _thinned(chunks: list[WindowRows]) -> list[WindowRows]:
    """Return an even share of the rows, if there are too many."""
    rows = sum(len(chunk.values) for chunk in chunks)
    stride = -(-rows // MOST_ROWS)
    if stride <= 1:
        return chunks
    return [
        WindowRows(
            chunk.values[::stride], chunk.sample[::stride], None if chunk.labels is None else chunk.labels[::stride]
        )
        for chunk in chunks
    ]


def _merged_step(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the measures of one step over the rows of all ranks."""
    rows = torch.tensor([float(entry["rows"]) for entry in entries])[:, None]
    share = (rows / rows.sum()).double()
    mean, sd, frequency = (
        torch.stack([entry[name].double() for entry in entries]) for name in ("mean", "sd", "activation_frequency")
    )
    total = (share * mean).sum(0)
    terms = set.intersection(*(set(entry["gradients"]) for entry in entries))
    return {
        "step": entries[0]["step"],
        "rows": int(rows.sum()),
        "mean": total,
        "sd": (share * (sd.square() + (mean - total).square())).sum(0).sqrt(),
        "activation_frequency": (share * frequency).sum(0),
        "dead": torch.stack([entry["dead"] for entry in entries]).all(0),
        "gradients": {
            # a loss is the mean over ranks, so the gradient of a rank's rows counts by their number
            term: torch.stack([entry["gradients"][term].cpu().square() for entry in entries]).sum(0).sqrt()
            / len(entries)
            for term in terms
        },
    }
