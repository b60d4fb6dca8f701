"""Resampling of dormant units during training: new incoming weights, and outgoing weights at zero.

Source: Sokar et al. 2023, The dormant neuron phenomenon in deep reinforcement learning, arXiv 2302.12902.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.remedies.wrapper import TreatedModel
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine

DORMANT = 0.025  # share of the layer's mean activation up to which a unit is dormant, as in the paper
MOST_ROWS = 512


def resampling_steps(engine: StackedEngine | SequentialEngine, steps: int) -> frozenset[int]:
    """Return the steps after which units are resampled: equal parts of training apart, never at its end.

    Args:
        engine: with members of one structure; only a treated model is resampled.
        steps: optimizer steps of the training.
    """
    model = engine.program.model if isinstance(engine, StackedEngine) else engine.members[0].model
    times = model.treatment.resamples if isinstance(model, TreatedModel) else 0
    return frozenset(round(steps * number / (times + 1)) for number in range(1, times + 1)) - {0, steps}


def dormant_units(code: Tensor) -> Tensor:
    """Return True for units whose mean magnitude is at most `DORMANT` of the layer's mean, `[*member, unit]`.

    >>> dormant_units(torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
    tensor([ True, False])
    """
    magnitudes = code.abs().mean(dim=-2)
    return magnitudes <= DORMANT * magnitudes.mean(dim=-1, keepdim=True)


def resample(engine: StackedEngine | SequentialEngine, inputs: Tensor, seeds: Sequence[int], step: int) -> None:
    """Resample the dormant units of every member, and forget the optimizer's averages of their weights."""
    dormant = dormant_units(engine.observe(inputs[:MOST_ROWS], "resampling", keep=None).code)
    model = engine.program.model if isinstance(engine, StackedEngine) else engine.members[0].model
    assert isinstance(model, TreatedModel)
    into, out = model.bottleneck, f"model.{model.layout.reader}"
    into = f"model.{into}"
    for index, seed in enumerate(seeds):
        parameters, averages = _of_member(engine, index)
        weight = parameters[f"{into}.weight"]
        generator = torch.Generator().manual_seed(_mixed(seed, step))
        bound = weight.shape[1] ** -0.5  # the distribution of torch.nn.Linear
        fresh = (2 * torch.rand(weight.shape, generator=generator, dtype=torch.float64) - 1) * bound
        rows = dormant[index]
        changes = {
            f"{into}.weight": (rows[:, None].expand_as(weight), fresh.to(weight)),
            f"{out}.weight": (
                rows.expand_as(parameters[f"{out}.weight"]),
                torch.zeros_like(parameters[f"{out}.weight"]),
            ),
        }
        if f"{into}.bias" in parameters:
            changes[f"{into}.bias"] = (rows, torch.zeros_like(parameters[f"{into}.bias"]))
        for name, (mask, values) in changes.items():
            with torch.no_grad():
                parameters[name].copy_(torch.where(mask, values, parameters[name]))
                for average in averages.get(name, ()):
                    average.masked_fill_(mask, 0.0)


def _of_member(
    engine: StackedEngine | SequentialEngine, index: int
) -> tuple[Mapping[str, Tensor], Mapping[str, Sequence[Tensor]]]:
    """Return the parameters of a member, and the optimizer's averages of each; both are changed in place."""
    if isinstance(engine, StackedEngine):
        return engine.member_parameters(index)
    member = engine.members[index]
    parameters = dict(member.model.named_parameters())
    states: dict[str, Any] = {name: member.optimizer.state.get(value, {}) for name, value in parameters.items()}
    averages = {
        name: [value for value in state.values() if isinstance(value, Tensor) and value.shape == parameters[name].shape]
        for name, state in states.items()
    }
    return parameters, averages


def _mixed(seed: int, step: int) -> int:
    """A seed of the generator that no other step of the member has."""
    return (seed * 1_000_003 + step) % (1 << 63)
