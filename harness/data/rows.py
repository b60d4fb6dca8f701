"""Rows of data with their reference variables for mutual information."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Data in memory.

    Args:
        inputs: `[sample, *feature]`, in the model's own precision, or int64 for tokens.
        labels: `[sample]` int64 classes, or None.
        factors: name -> `[sample]`; integers are classes, floats a continuous factor.
        blocks: `[sample]` int64, or None for exchangeable rows. Rows of one block (windows of one series, neighboring
            patches of one photograph) are permuted together.
        targets: `[sample, ...]`, passed to a loss that names `target`, or None.
    """

    inputs: Tensor
    labels: Tensor | None = None
    factors: Mapping[str, Tensor] = field(default_factory=dict)
    blocks: Tensor | None = None
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def quantities(self) -> Tensor | None:
        """The inputs as `[sample, feature]`; None for tokens, which are not quantities."""
        return self.inputs.flatten(1) if self.inputs.is_floating_point() else None

    @property
    def reference(self) -> Tensor:
        """Rows with which an output of the size of the inputs is compared: targets of that size, else the inputs."""
        targets = self.targets
        if targets is None or not targets.is_floating_point() or targets[:1].numel() != self.inputs[:1].numel():
            return self.inputs
        return self.inputs if torch.equal(targets.reshape(self.inputs.shape), self.inputs) else targets

    def take(self, index: Tensor) -> "Rows":
        """Return the rows at `index` with their references."""
        return Rows(
            self.inputs[index],
            None if self.labels is None else self.labels[index],
            {name: values[index] for name, values in self.factors.items()},
            None if self.blocks is None else self.blocks[index],
            None if self.targets is None else self.targets[index],
        )


@dataclass(frozen=True)
class Split:
    """Training rows, held-out rows, and a fingerprint of the bytes of both."""

    train: Rows
    evaluation: Rows
    fingerprint: str
