"""A treated model: the author's own module, untouched, with changes that act only inside its forward pass.

What is inserted (a normalisation with its buffers) belongs to the wrapper, so a loop over the model's children does
not meet it, and a loss that calls the bottleneck a second time does not feed it another distribution.
"""

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness.capture import CODE_SITE, OUTPUT_SITE, BottleneckTap, Edit, ForwardPass
from harness.models import own_precision
from harness.penalties import keep_largest

Penalty = Callable[[ForwardPass, Mapping[str, Any]], Tensor]


@dataclass(frozen=True)
class Treatment:
    """What all remedies of one variant add up to.

    Args:
        activations: position -> name of the activation that takes the place.
        normalised: position whose input is normalised, or None.
        dropped: positions behind which dropout acts.
        kept: how many units top-k keeps at the code, or None.
        output: name of an activation put on a reconstruction that has none.
        penalty: (name, function of the pass) that replaces the author's penalties; ("", None) means no penalty.
        own_penalty: whether the author's penalties stay.
        zero_bias: whether every bias starts at zero.
        centred: whether the mean of the training inputs is taken from all inputs.
        numbers: numbers that the variant sets.
        train: training numbers that it sets.
        units: bottleneck width, or None for the author's.
    """

    activations: Mapping[int, str] = field(default_factory=dict)
    normalised: int | None = None
    dropped: tuple[int, ...] = ()
    kept: int | None = None
    output: str | None = None
    penalty: tuple[str, Penalty | None] = ("", None)
    own_penalty: bool = True
    zero_bias: bool = False
    centred: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    units: int | None = None

    @property
    def has_target(self) -> bool:
        """Whether the penalty that replaces the author's holds a mean activation at `rho`."""
        return self.penalty[0] == "kl"

    @property
    def edits_nothing(self) -> bool:
        """Whether the forward pass stays as its author wrote it."""
        return not (self.activations or self.dropped or self.output or self.kept) and self.normalised is None


class TreatedModel(nn.Module):
    """The author's model under a recipe. `model` is theirs; `inserted` is ours."""

    def __init__(self, model: nn.Module, recipe: Treatment, places: Any, bottleneck: str) -> None:
        super().__init__()
        self.model = model
        self.recipe, self.places, self.bottleneck = recipe, places, bottleneck
        self.rate: Any = recipe.numbers.get("dropout", 0.0)
        self.inserted = nn.ModuleDict()
        if recipe.normalised is not None:
            self.inserted["batchnorm"] = nn.BatchNorm1d(places.channels, affine=False, dtype=own_precision(model))

    def forward(self, *batch: Any, **keywords: Any) -> Any:
        with self.tap():
            return self.model(*batch, **keywords)

    def tap(self, everywhere: bool = False) -> BottleneckTap:
        """The watch over the author's model under which the recipe acts; `everywhere` for a loss that calls parts."""
        return BottleneckTap(self.model, self.bottleneck, self._edits(), everywhere=everywhere)

    @contextmanager
    def at_rate(self, rate: Any) -> Any:
        """Dropout at this rate, which may be one number per member."""
        before, self.rate = self.rate, rate
        try:
            yield
        finally:
            self.rate = before

    def _edits(self) -> dict[int, Edit]:
        recipe, code = self.recipe, self._code_position()
        positions = {*recipe.activations, *recipe.dropped}
        positions |= {code} if recipe.normalised is not None or recipe.kept else set()
        edits = {
            position: Edit(
                before=self._normalise if position == recipe.normalised else None,
                activation=recipe.activations.get(position),
                after=self._after(position),
            )
            for position in positions
        }
        if recipe.output is not None:
            edits[OUTPUT_SITE] = Edit(after=self._activate_output)
        return edits

    def _after(self, position: int) -> Callable[[Tensor], Tensor] | None:
        if position in self.recipe.dropped:
            return self._drop
        return self._keep if self.recipe.kept and position == self._code_position() else None

    def _code_position(self) -> int:
        return CODE_SITE if self.places.code is None else self.places.code

    def _normalise(self, values: Tensor) -> Tensor:
        moved = values.movedim(self.places.channel_axis, -1)
        rows = moved.reshape(-1, moved.shape[-1])
        return self.inserted["batchnorm"](rows).reshape(moved.shape).movedim(-1, self.places.channel_axis)

    def _drop(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        return values * (torch.rand_like(values) >= self.rate) / (1 - self.rate)

    def _keep(self, code: Tensor) -> Tensor:
        assert self.recipe.kept is not None
        return keep_largest(code, self.recipe.kept)

    def _activate_output(self, output: Any) -> Any:
        assert self.recipe.output is not None
        function = {"relu": torch.relu, "sigmoid": torch.sigmoid}[self.recipe.output]
        return _change_output(output, self.places.reconstruction, function)


def _change_output(output: Any, index: int, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, Mapping):
        changed = list(output)[index]
        return {**output, changed: function(output[changed])}
    changed_items = [function(each) if i == index else each for i, each in enumerate(output)]
    return type(output)(*changed_items) if hasattr(output, "_fields") else type(output)(changed_items)
