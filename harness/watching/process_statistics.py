"""Statistics of all processes of a DistributedDataParallel model, added up."""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from harness.watching.layer_window import LayerWindow
from harness.watching.row_window import MOST_ROWS, Block
from harness.watching.step_history import Steps
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
    window.history.replace(_merged_steps([state["history"] for state in states]))
    offset, blocks = 0, list[Block]()
    for state in states:
        parts: list[Block] = state["blocks"]
        blocks += [replace(part, first=part.first + offset) for part in parts]
        offset = max((block.first + block.samples * len(block.values) for block in blocks), default=0)
    size = sum(block.size for block in blocks)
    if size > MOST_ROWS:
        generator = torch.Generator().manual_seed(0)
        blocks = [block.thinned(max(1, block.rows * MOST_ROWS // size), generator) for block in blocks]
    window.window.blocks = deque(blocks)


def _merged_steps(histories: list[Steps]) -> Steps:
    """Return the measures of the steps that all ranks have, over the rows of all ranks."""
    common = np.array(sorted(set.intersection(*(set(history.step.tolist()) for history in histories))), dtype=np.int64)
    positions = [np.searchsorted(history.step, common) for history in histories]

    def of(name: str) -> Any:
        pairs = zip(histories, positions, strict=True)
        return np.stack([getattr(history, name)[position] for history, position in pairs])

    rows = of("rows").astype(np.float64)
    share = (rows / rows.sum(0))[..., None]
    mean = (share * of("mean")).sum(0)
    variance = (share * (np.square(of("sd")) + np.square(of("mean") - mean))).sum(0)
    gradients = [
        [history.gradients[index] for history, index in zip(histories, indices, strict=True)]
        for indices in zip(*positions, strict=True)
    ]
    return Steps(
        step=common,
        rows=rows.sum(0).astype(np.int64),
        activation_frequency=(share * of("activation_frequency")).sum(0),
        mean=mean,
        sd=np.sqrt(variance),
        dead=of("dead").all(0),
        gradients=[_merged_gradients(ranks) for ranks in gradients],
    )


def _merged_gradients(ranks: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    terms = set.intersection(*map(set, ranks))
    # the loss is the mean over ranks
    return {term: torch.stack([rank[term].cpu() for rank in ranks]).norm(dim=0) / len(ranks) for term in terms}
