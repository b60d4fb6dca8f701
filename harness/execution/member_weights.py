"""Weights of trained members as safetensors, under the names of the treated model's state dict."""

import json
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from harness.results.records import MemberRecord
from harness.results.weights import LARGEST_SHOWN, extremes
from harness.training.program import first_names
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine

Engine = StackedEngine | SequentialEngine


def with_weights(records: Sequence[MemberRecord], engine: Engine, keep: str) -> list[MemberRecord]:
    """Attach the weights of the members that the experiment may keep.

    Args:
        records: one per member, in the order of the engine's members.
        engine: the trained members.
        keep: "all", "none", or "shown" for the worst and the best member of each variant.
    """
    if keep == "none":
        return list(records)
    keys = {record.key for record in records} if keep == "all" else _candidates(records)
    largest = None if keep == "all" else LARGEST_SHOWN
    return [
        replace(record, weights=_content(engine, index, record, largest)) if record.key in keys else record
        for index, record in enumerate(records)
    ]


def state_dict_of(engine: Engine, member: int) -> dict[str, Tensor]:
    """Return the state dict of a member's model, on the CPU; a tensor with several names is copied for each."""
    if isinstance(engine, StackedEngine):
        model, own = engine.program.model, engine.state_of(member)
        first = first_names(model)
        state = {name: own[first[name]] for name in model.state_dict() if first.get(name) in own}
    else:
        state = engine.members[member].model.state_dict()
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}  # no extra state
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def load_weights(model: nn.Module, content: bytes) -> None:
    """Load the weights of a member into its model.

    Raises:
        RuntimeError: if they are the weights of another model.
    """
    from safetensors.torch import load

    model.load_state_dict(load(content))


def _content(engine: Engine, index: int, record: MemberRecord, largest: int | None) -> bytes:
    from safetensors.torch import save

    state = state_dict_of(engine, index)
    if largest is not None and sum(value.numel() * value.element_size() for value in state.values()) > largest:
        return b""
    # one entry: safetensors writes several in an order that changes
    about = {"key": record.key, "variant": record.variant, "levels": dict(record.levels), "seed": record.seed}
    return bytes(save(state, {"member": json.dumps(about)}))


def _candidates(records: Sequence[MemberRecord]) -> set[str]:
    """Return the keys of the worst and the best member of each variant."""
    variants: dict[str, list[MemberRecord]] = {}
    for record in records:
        variants.setdefault(record.variant, []).append(record)
    return {record.key for members in variants.values() for record in extremes(members) or ()}
