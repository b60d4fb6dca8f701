"""Constructed faults and twins of a held-out examination: written, with their truth, before the audit was run on them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from stranger import Observed, Stranger, case, linear
from torch import Tensor, nn

from harness import Case

SOURCE = "constructed"


class Wide(nn.Module):
    """24-48-12-48-24 with an activation of the code."""

    def __init__(self, activation: Callable[[Tensor], Tensor], shift: float = 0.1) -> None:
        super().__init__()
        self.body, self.enc = nn.Linear(24, 48), nn.Linear(48, 12)
        self.norm = nn.BatchNorm1d(12, affine=False)
        self.d1, self.d2 = nn.Linear(12, 48), nn.Linear(48, 24)
        self.activation, self.shift = activation, shift

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, code and the decoder's hidden values."""
        code = self.activation(self.enc(F.relu(self.body(x))) + self.shift)
        hidden = F.relu(self.d1(code))
        return self.d2(hidden), code, hidden

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, code, _ = self(x)
        return Observed(code, made)


class Normalized(Wide):
    """The same with a normalized code."""

    def __init__(self) -> None:
        super().__init__(lambda values: values)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, code and the decoder's hidden values."""
        code = self.norm(self.enc(F.relu(self.body(x))))
        hidden = F.relu(self.d1(code))
        return self.d2(hidden), code, hidden


class Pairs(nn.Module):
    """24-48-8 embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.enc = nn.Linear(24, 48), nn.Linear(48, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings."""
        return self.enc(F.relu(self.body(x)))

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(self(x))


def shares(values: Tensor) -> Tensor:
    """Return positive values that add up to 1 in every row."""
    positive = F.softplus(values)
    return positive / positive.sum(1, keepdim=True)


def penalized(model: Callable[[], nn.Module], penalty: Callable[..., Tensor], layer: str = "enc") -> Case:
    """Return a case with a reconstruction and `penalty(code, hidden)`."""

    def losses(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, code, hidden = net(x)
        return {"reconstruction": F.mse_loss(made, x), "penalty": penalty(code, hidden)}

    return case(model, losses, linear, layer, reconstruction="out:0")


def paired(negatives: bool) -> Case:
    """Return a case that draws two views together, with negative pairs or without."""

    def losses(net: nn.Module, x: Tensor) -> dict[str, Any]:
        first, second = (F.normalize(net(x + 0.2 * torch.randn_like(x)), dim=1) for _ in range(2))
        near = net(x + 0.2 * torch.randn_like(x)), net(x + 0.2 * torch.randn_like(x))
        if negatives:
            return {"similarity": F.cross_entropy(first @ second.T / 0.2, torch.arange(len(x)))}
        return {"similarity": (near[0] - near[1]).pow(2).sum(1).mean()}

    return case(Pairs, losses, linear, "enc", objective="similarity")


def contractive(graph: bool) -> Case:
    """Return a case with a penalty on the slope of the code, kept in the graph or not."""

    def losses(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
        rows = x.clone().requires_grad_()
        made, code, _ = net(rows)
        draw = torch.randn_like(code)
        slope = torch.autograd.grad((code * draw).sum(), rows, create_graph=graph, retain_graph=True)[0]
        return {"reconstruction": F.mse_loss(made, x), "penalty": 0.01 * slope.pow(2).sum(1).mean()}

    return case(lambda: Wide(F.relu), losses, linear, "enc", reconstruction="out:0")


def binary(straight: bool) -> Case:
    """Return a case with a code of 0 and 1, with a straight-through step or without."""

    def bits(values: Tensor) -> Tensor:
        soft = torch.sigmoid(values)
        hard = (soft > 0.5).float()
        return hard + soft - soft.detach() if straight else hard

    def losses(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
        return {"reconstruction": F.mse_loss(net(x)[0], x)}

    return case(lambda: Wide(bits), losses, linear, "enc", reconstruction="out:0")


def rectified() -> nn.Module:
    """Return a model with a ReLU code."""
    return Wide(F.relu)


def silent() -> nn.Module:
    """Return a model with a ReLU code whose units seldom fire at first."""
    return Wide(F.relu, -0.5)


def shared() -> nn.Module:
    """Return a model whose code adds up to 1."""
    return Wide(shares)


def entropy(code: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean entropy of the rows."""
    return -0.01 * (code * (code + 1e-8).log()).sum(1).mean()


STRANGERS = (
    Stranger(
        "embeddings drawn together without negatives", "contrastive", SOURCE,
        "two views are drawn together, and nothing keeps the embeddings apart",
        lambda: paired(False), lambda: paired(True), ("collapse_optimum",), lost="any", output="any",
    ),
    Stranger(
        "mean square of a batch-normalized code", "sparse", SOURCE,
        "the mean square of a batch-normalized unit is 1, whatever the weights",
        lambda: penalized(Normalized, lambda code, hidden: 0.05 * code.pow(2).mean(), "norm"),
        lambda: penalized(Normalized, lambda code, hidden: 0.05 * code.abs().mean(), "norm"),
        ("negligible", "zero_gradient"),
    ),
    Stranger(
        "L1 of a code that adds up to 1", "sparse", SOURCE,
        "the absolute values of a code that adds up to 1 have the sum 1",
        lambda: penalized(shared, lambda code, hidden: 0.01 * code.abs().sum(1).mean()),
        lambda: penalized(shared, entropy), ("zero_gradient",), lost="any", output="any",
    ),
    Stranger(
        "logarithm of a use that is 0", "sparse", SOURCE,
        "the logarithm of every unit's mean is taken, and a unit that never fires has the mean 0",
        lambda: penalized(silent, lambda code, hidden: -0.01 * code.mean(0).log().mean()),
        lambda: penalized(silent, lambda code, hidden: -1e-4 * (code.mean(0) + 1e-3).log().mean()),
        ("outside_domain", "diverges"), lost="any", output="any",
    ),
    Stranger(
        "sparsity of the decoder's hidden layer", "sparse", SOURCE,
        "the penalty reads the decoder's hidden layer instead of the code",
        lambda: penalized(rectified, lambda code, hidden: 0.003 * hidden.abs().sum(1).mean()),
        lambda: penalized(rectified, lambda code, hidden: 0.003 * code.abs().sum(1).mean()),
        ("wrong_layer", "misses_bottleneck"), lost="any",
    ),
    Stranger(
        "count of the units that fire", "sparse", SOURCE,
        "the share of positive entries is a comparison, which has no gradient",
        lambda: penalized(rectified, lambda code, hidden: 0.02 * (code > 0).float().mean()),
        lambda: penalized(rectified, lambda code, hidden: 0.02 * torch.tanh(4 * code).mean()),
        ("no_gradient",), lost="any",
    ),
    Stranger(
        "slope of the code outside the graph", "sparse", SOURCE,
        "the contractive penalty takes the slope without create_graph",
        lambda: contractive(False), lambda: contractive(True), ("no_gradient",), lost="any",
    ),
    Stranger(
        "binary code without a straight-through step", "quantized", SOURCE,
        "the decoder reads a comparison, and no gradient comes to the encoder",
        lambda: binary(False), lambda: binary(True), ("cut_encoder",), lost="any", output="any",
    ),
)  # fmt: skip
