"""The record of one evaluation: the calls of layers, the operations of the loss, and the sites that were met.

A *site* is "the values that these operations make of that layer's output": `TensorSite("enc3", ())` is the output of `enc3`,
`TensorSite("enc3", ("relu",))` its ReLU, whoever computes it: the model's own forward pass, a second call of it, or the loss.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Change = Callable[[Tensor, int], Tensor]  # (values, how-manieth instance of the site) -> values


@dataclass(frozen=True)
class TensorSite:
    """The values that `chain` makes of the output of `layer`."""

    layer: str
    chain: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.layer if not self.chain else f"{' of '.join(reversed(self.chain))} of {self.layer}"


@dataclass
class TracedCall:
    """One call of a layer: its name, which call of it, what came in, what came out and what was put there."""

    name: str
    index: int
    entered: Tensor | None
    before: Tensor
    after: Tensor


@dataclass
class TracedOperation:
    """One torch call outside the model's layers: its name, the site it read, and the line of source it stands on."""

    name: str
    site: TensorSite
    file: str
    line: int
    text: str = ""


@dataclass
class Trace:
    """What one evaluation did."""

    calls: list[TracedCall] = field(default_factory=list)
    met: dict[TensorSite, list[Tensor]] = field(default_factory=dict)
    operations: list[TracedOperation] = field(default_factory=list)
    outputs: list[tuple[Any, ...]] = field(default_factory=list)
    sites: dict[TensorSite, None] = field(default_factory=dict)
    made: list[tuple[Tensor, int]] = field(default_factory=list)
