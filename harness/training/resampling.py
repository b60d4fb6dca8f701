"""Resampling during training of what a member does not use: units of the bottleneck, or entries of a codebook.

The sources are those of the remedies, `harness.remedies.dormant_units`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.remedies.wrapper import TreatedModel
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine

DORMANT = 0.025  # share of the layer's mean activation up to which a unit is dormant, as in the paper
MOST_ROWS = 512
SHARE_OF_LENGTH = 0.2  # of a resampled unit, as in the paper

Changes = dict[str, tuple[Tensor, Tensor]]  # name of a parameter -> entries to change, and new values


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
    """Resample what every member does not use, and forget the optimizer's averages of the changed weights."""
    model = engine.program.model if isinstance(engine, StackedEngine) else engine.members[0].model
    assert isinstance(model, TreatedModel)
    rows = inputs[:MOST_ROWS]
    view = engine.observe(rows, "resampling")
    for index, seed in enumerate(seeds):
        parameters, averages = _of_member(engine, index)
        generator = torch.Generator().manual_seed(_mixed(seed, step))
        reconstruction = None if view.reconstruction is None else view.reconstruction[index]
        part = Part(model, parameters, rows, view.code[index], view.raw[index], reconstruction, generator)
        for name, (mask, values) in KINDS[model.treatment.resampling](part).items():
            with torch.no_grad():
                parameters[name].copy_(torch.where(mask, values, parameters[name]))
                for average in averages.get(name, ()):
                    average.masked_fill_(mask, 0.0)


@dataclass(frozen=True)
class Part:
    """A member that is resampled.

    Args:
        model: the structure of the stack.
        parameters: of the member, by name.
        rows: `[sample, ...]`, of the training.
        code: of the member on these rows, the values that the next layer reads.
        raw: output of the bottleneck's module on these rows.
        reconstruction: of these rows, or None.
        generator: of the draws.
    """

    model: TreatedModel
    parameters: Mapping[str, Tensor]
    rows: Tensor
    code: Tensor
    raw: Tensor
    reconstruction: Tensor | None
    generator: torch.Generator

    def name(self, layer: str) -> str:
        """Name of the weight of a layer of the author's model."""
        return f"model.{layer}.weight"


def redo(part: Part) -> Changes:
    """New incoming weights for dormant units, biases of zero and outgoing weights of zero."""
    dormant, into, out = _layers(part, dormant_units(part.code))
    weight = part.parameters[into]
    bound = weight.shape[1] ** -0.5  # the distribution of torch.nn.Linear
    fresh = (2 * torch.rand(weight.shape, generator=part.generator, dtype=torch.float64) - 1) * bound
    return _unit_changes(part, dormant, fresh.to(weight), torch.zeros_like(part.parameters[out]))


def point_at_rows(part: Part) -> Changes:
    """Point units that fire on no row at rows drawn with a probability proportional to the squared loss.

    The outgoing weights become the row at length 1, the incoming ones 0.2 of the mean length of the other units'.
    """
    assert part.reconstruction is not None
    dead, into, _ = _layers(part, ~(part.code > 0).any(dim=-2))
    weight, rows = part.parameters[into], part.rows.flatten(1)
    loss = (rows - part.reconstruction).square().sum(dim=1).double().cpu()
    chances = loss.square() if bool(loss.any()) else torch.ones_like(loss)
    drawn = torch.multinomial(chances, len(dead), replacement=True, generator=part.generator)
    direction = torch.nn.functional.normalize(rows[drawn.to(rows.device)].to(weight), dim=1)
    lengths = weight[~dead].norm(dim=1)
    length = SHARE_OF_LENGTH * (lengths.mean() if len(lengths) else 1.0)
    return _unit_changes(part, dead, length * direction, direction.T)


def restart_entries(part: Part) -> Changes:
    """Move codebook entries that are nearest to no row's code to codes of random rows; codes before they are quantized."""
    name = part.name(part.model.layout.codebook)
    book = part.parameters[name]
    nearest = torch.cdist(part.raw.to(book), book.detach()).argmin(dim=1)
    unused = torch.ones(len(book), dtype=torch.bool, device=book.device).index_fill(0, nearest, False)
    drawn = torch.randint(len(part.raw), (len(book),), generator=part.generator)
    return {name: (unused[:, None].expand_as(book), part.raw[drawn.to(part.raw.device)].to(book))}


def _layers(part: Part, units: Tensor) -> tuple[Tensor, str, str]:
    """The units on the device of the weights, and the names of the incoming and outgoing weights."""
    into, out = part.name(part.model.bottleneck), part.name(part.model.layout.reader)
    return units.to(part.parameters[into].device), into, out


def _unit_changes(part: Part, units: Tensor, incoming: Tensor, outgoing: Tensor) -> Changes:
    """New weights of some units, and biases of zero."""
    units, into, out = _layers(part, units)
    changes = {
        into: (units[:, None].expand_as(incoming), incoming),
        out: (units.expand_as(outgoing), outgoing),
    }
    bias = part.parameters.get(f"{into.removesuffix('weight')}bias")
    if bias is not None:
        changes[f"{into.removesuffix('weight')}bias"] = (units, torch.zeros_like(bias))
    return changes


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


KINDS: dict[str, Callable[[Part], Changes]] = {
    "resample": redo,
    "neuron_resampling": point_at_rows,
    "codebook_restart": restart_entries,
}
