"""Treated model: the author's unchanged module with changes that act only inside its forward pass.

Inserted layers (a normalization with its buffers) belong to the wrapper, so a loop over the model's children skips them,
and a loss that calls the bottleneck a second time does not pass them another distribution.
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
    """Combined changes of all remedies of one variant.

    Args:
        activations: position -> name of the replacing activation.
        normalized: position whose input is normalized, or None.
        dropped: positions after which dropout acts.
        top_k: number of units that top-k keeps, or None.
        output: name of the activation added to a reconstruction without one.
        penalty: (name, function of the pass) that replaces the author's penalties; ("", None) means no penalty.
        own_penalty: True if the author's penalties stay.
        zero_bias: True if every bias starts at zero.
        centered: True if the mean of the training inputs is subtracted from all inputs.
        numbers: numbers of the variant.
        train: training numbers of the variant.
        units: bottleneck width, or None for the author's.
        floor: True if each unit's KL divergence has the floor `free_bits`.
        weights: name of the distribution of the initial weights; "default" for the author's.
        rate_warmup: share of training over which the learning rate rises.
        clip: largest norm of a gradient, or None for the author's.
        resamples: number of times that units or codebook entries are resampled during training.
        resampling: the factor that says how.
        auxk: weight of the reconstruction of the error by dead units; 0 for none.
    """

    activations: Mapping[int, str] = field(default_factory=dict)
    normalized: int | None = None
    dropped: tuple[int, ...] = ()
    top_k: int | None = None
    output: str | None = None
    penalty: tuple[str, Penalty | None] = ("", None)
    own_penalty: bool = True
    zero_bias: bool = False
    centered: bool = False
    numbers: Mapping[str, float] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    units: int | None = None
    floor: bool = False
    weights: str = "default"
    rate_warmup: float = 0.0
    clip: float | None = None
    resamples: int = 0
    resampling: str = "resample"
    auxk: float = 0.0

    @property
    def has_target(self) -> bool:
        """True if the replacing penalty has the target activation `rho`."""
        return self.penalty[0] == "kl"

    @property
    def edits_nothing(self) -> bool:
        """True if the forward pass is unchanged."""
        return (
            not (self.activations or self.dropped or self.output or self.top_k or self.resamples or self.auxk)
            and self.normalized is None
        )


class TreatedModel(nn.Module):
    """The author's model (`model`) under a treatment, with the layers that it inserts (`inserted`)."""

    def __init__(self, model: nn.Module, treatment: Treatment, layout: Any, bottleneck: str) -> None:
        super().__init__()
        self.model = model
        self.treatment, self.layout, self.bottleneck = treatment, layout, bottleneck
        self.rate: Any = treatment.numbers.get("dropout", 0.0)
        self.inserted = nn.ModuleDict()
        if treatment.normalized is not None:
            self.inserted["batchnorm"] = nn.BatchNorm1d(layout.channels, affine=False, dtype=own_precision(model))

    def forward(self, *batch: Any, **keywords: Any) -> Any:
        """Run the author's model under the treatment."""
        with self.tap():
            return self.model(*batch, **keywords)

    def tap(self, everywhere: bool = False) -> BottleneckTap:
        """Return the tap that applies the treatment to the author's model; `everywhere` for a loss that calls parts."""
        return BottleneckTap(self.model, self.bottleneck, self._edits(), everywhere=everywhere)

    @contextmanager
    def at_rate(self, rate: Any) -> Any:
        """Set the dropout rate inside the block; it may be one number per member."""
        before, self.rate = self.rate, rate
        try:
            yield
        finally:
            self.rate = before

    def _edits(self) -> dict[int, Edit]:
        treatment, code = self.treatment, self._code_position()
        positions = {*treatment.activations, *treatment.dropped}
        positions |= {code} if treatment.normalized is not None or treatment.top_k else set()
        edits = {
            position: Edit(
                before=self._normalize if position == treatment.normalized else None,
                activation=treatment.activations.get(position),
                after=self._after(position),
            )
            for position in positions
        }
        if treatment.output is not None:
            edits[OUTPUT_SITE] = Edit(after=self._activate_output)
        return edits

    def _after(self, position: int) -> Callable[[Tensor], Tensor] | None:
        if position in self.treatment.dropped:
            return self._drop
        return self._keep if self.treatment.top_k and position == self._code_position() else None

    def _code_position(self) -> int:
        return CODE_SITE if self.layout.code is None else self.layout.code

    def _normalize(self, values: Tensor) -> Tensor:
        moved = values.movedim(self.layout.channel_axis, -1)
        rows = moved.reshape(-1, moved.shape[-1])
        return self.inserted["batchnorm"](rows).reshape(moved.shape).movedim(-1, self.layout.channel_axis)

    def _drop(self, values: Tensor) -> Tensor:
        if not self.training:
            return values
        return values * (torch.rand_like(values) >= self.rate) / (1 - self.rate)

    def _keep(self, code: Tensor) -> Tensor:
        assert self.treatment.top_k is not None
        return keep_largest(code, self.treatment.top_k)

    def _activate_output(self, output: Any) -> Any:
        assert self.treatment.output is not None
        function = {"relu": torch.relu, "sigmoid": torch.sigmoid}[self.treatment.output]
        return _change_output(output, self.layout.reconstruction, function)


def _change_output(output: Any, index: int, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, Mapping):
        changed = list(output)[index]
        return {**output, changed: function(output[changed])}
    changed_items = [function(item) if i == index else item for i, item in enumerate(output)]
    return type(output)(*changed_items) if hasattr(output, "_fields") else type(output)(changed_items)
