"""Record of one evaluation: the calls of layers, the operations of the loss, and all sites.

A *site* is a layer and the operations applied to its output: `TensorSite("enc3", ())` is the output of `enc3`,
`TensorSite("enc3", ("relu",))` its ReLU, whether the forward pass, a second call of the model or the loss computes it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Change = Callable[[Tensor, int], Tensor]  # (values, index of the instance of the site) -> values


@dataclass(frozen=True)
class TensorSite:
    """The operations `chain` applied to the output of `layer`."""

    layer: str
    chain: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.layer if not self.chain else f"{' of '.join(reversed(self.chain))} of {self.layer}"


@dataclass
class TracedCall:
    """One call of a layer: name, index of the call, input, output, and output after the change."""

    name: str
    index: int
    entered: Tensor | None
    before: Tensor
    after: Tensor


@dataclass
class TracedOperation:
    """One torch call outside the model's layers: name, site of its argument, and line of source."""

    name: str
    site: TensorSite
    file: str
    line: int
    text: str = ""


@dataclass
class Trace:
    """Record of one evaluation; `site_of` has the site of every tensor, by id."""

    calls: list[TracedCall] = field(default_factory=list)
    met: dict[TensorSite, list[Tensor]] = field(default_factory=dict)
    operations: list[TracedOperation] = field(default_factory=list)
    outputs: list[tuple[Any, ...]] = field(default_factory=list)
    sites: dict[TensorSite, None] = field(default_factory=dict)
    site_of: dict[int, TensorSite] = field(default_factory=dict)
    tensors: list[tuple[Tensor, int]] = field(default_factory=list)
