"""Quantized autoencoders and routers: public faults and their corrected twins."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from stranger import Observed, Stranger, case, clusters, gradients
from torch import Tensor, nn

from harness import Case

CODES, UNITS = 32, 6


class Quantizer(nn.Module):
    """Nearest entry of a codebook, with a straight-through step."""

    def __init__(self, codes: int = CODES, scale: float = 1.0) -> None:
        super().__init__()
        self.book = nn.Parameter(torch.randn(codes, UNITS) * scale)

    def nearest(self, code: Tensor) -> Tensor:
        """Return the nearest entries."""
        return self.book[torch.cdist(code.detach(), self.book.detach()).argmin(1)]

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Return the straight-through output and the entries."""
        entries = self.nearest(code)
        return code + (entries - code).detach(), entries


class Vq(nn.Module):
    """16-6-16 with a quantizer."""

    def __init__(self, through: bool = True) -> None:
        super().__init__()
        self.enc, self.quantizer, self.dec = nn.Linear(16, UNITS), Quantizer(), nn.Linear(UNITS, 16)
        self.through = through

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return reconstruction, code, straight-through output and entries."""
        code = self.enc(x)
        straight, entries = self.quantizer(code)
        return self.dec(straight if self.through else entries), code, straight, entries

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, _, straight, _ = self(x)
        return Observed(straight, made)


class Residual(nn.Module):
    """Two quantizers, the second of what the first leaves."""

    def __init__(self, straight: bool) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(16, UNITS), nn.Linear(UNITS, 16)
        self.first, self.second, self.straight = Quantizer(), Quantizer(), straight

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return reconstruction, code, both residuals and both entries."""
        code = self.enc(x)
        straight, entries = self.first(code)
        rest = code - (straight if self.straight else entries.detach())
        more = self.second(rest)[1]
        total = code + (entries + more - code).detach()
        return self.dec(total), code, rest, entries, more

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, _, _, entries, more = self(x)
        return Observed(entries + more, made)


def vq_losses(codebook: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return reconstruction, codebook and commitment terms."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, code, straight, entries = model(x)
        return {
            "reconstruction": F.mse_loss(made, x),
            "codebook": codebook(code, straight, entries),
            "commitment": 0.25 * F.mse_loss(code, entries.detach()),
        }

    return losses


def residual_losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the terms of a residual quantizer."""
    made, code, rest, entries, more = model(x)
    return {
        "reconstruction": F.mse_loss(made, x),
        "codebook": F.mse_loss(entries, code.detach()) + F.mse_loss(more, rest.detach()),
        "commitment_1": 0.25 * F.mse_loss(code, entries.detach()),
        "commitment_2": 0.25 * F.mse_loss(rest, more.detach()),
    }


def vq(losses: Callable[..., Any], model: Callable[[], nn.Module] = Vq, **more: Any) -> Case:
    """Return a case of a quantized autoencoder."""
    return case(model, losses, clusters, "enc", reconstruction="out:0", **more)


def right_codebook(code: Tensor, straight: Tensor, entries: Tensor) -> Tensor:
    """Move the entries to the codes."""
    return F.mse_loss(entries, code.detach())


def book_unreached(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if no term has a gradient at the codebook."""
    del model, rows
    terms = ("reconstruction", "codebook", "commitment")
    return all(gradients(case, term)["quantizer.book"] <= 0 for term in terms)


def second_commitment_cut(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the second commitment term has no gradient at the encoder."""
    del model, rows
    return gradients(case, "commitment_2")["enc.weight"] <= 1e-6


def encoder_untouched(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the error has no gradient at the encoder."""
    del model, rows
    return gradients(case, "reconstruction")["enc.weight"] <= 0


class Router(nn.Module):
    """Four experts, two of which are chosen for every row by the scores of a router."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 16)) for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction and scores."""
        scores = self.router(x).softmax(1)
        made = torch.stack([expert(x) for expert in self.experts], 1)
        return (scores.unsqueeze(2) * made).sum(1), scores

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, scores = self(x)
        return Observed(scores, made)


def balance(right: bool) -> Callable[..., Any]:
    """Return a loss with a balance term over experts: right, or broadcast to a constant."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, scores = model(x)
        top = scores.topk(2, dim=1)
        shares = F.one_hot(top.indices, 4).double().to(x).mean((0, 1))
        if right:
            term = 4 * (shares * scores.mean(0)).sum()
        else:
            chosen = (top.values / top.values.sum(1, keepdim=True)).mean(0)
            term = (shares.unsqueeze(1) * chosen).sum()
        return {"reconstruction": F.mse_loss(made, x), "balance": 1e-2 * term}

    return losses


def balance_is_constant(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the balance term is the same for even and for uneven scores."""
    values = []
    for scale in (1.0, 30.0):
        torch.manual_seed(0)
        fresh = case.model()
        with torch.no_grad():
            fresh.router.weight.mul_(scale)  # type: ignore[union-attr, operator]
            values.append(float(case.losses(fresh, rows[:256])["balance"]))
    return abs(values[0] - values[1]) < 1e-6


STRANGERS = (
    Stranger(
        "vq codebook term on the straight-through output",
        "quantized",
        "showlab/Olaf-World#8",
        "the codebook term is taken on the straight-through output, where the entries are detached",
        lambda: vq(vq_losses(lambda code, straight, entries: F.mse_loss(straight, code.detach()))),
        lambda: vq(vq_losses(right_codebook)),
        causes=("unreached_parameter",),
        output="any",
        fact=book_unreached,
    ),
    Stranger(
        "vq entries are returned detached",
        "quantized",
        "EdoardoBotta/RQ-VAE-Recommender#24",
        "the quantizer returns detached entries, so the codebook's embeddings never get a gradient",
        lambda: vq(vq_losses(lambda code, straight, entries: F.mse_loss(entries.detach(), code.detach()))),
        lambda: vq(vq_losses(right_codebook)),
        causes=("no_gradient", "zero_gradient", "unreached_parameter"),
        output="any",
        fact=book_unreached,
        also=("no_gradient", "unreached_parameter"),
    ),
    Stranger(
        "vq without a straight-through step",
        "quantized",
        "lucidrains/vector-quantize-pytorch#40",
        "the decoder reads the entries, and no gradient of the error comes to the encoder",
        lambda: vq(vq_losses(right_codebook), lambda: Vq(through=False)),
        lambda: vq(vq_losses(right_codebook)),
        causes=("cut_encoder",),
        output="any",
        fact=encoder_untouched,
    ),
    Stranger(
        "vq residual through the straight-through output",
        "quantized",
        "facebookresearch/encodec#25",
        "the rest for the second quantizer is taken from the straight-through output: its gradient is 0",
        lambda: vq(residual_losses, lambda: Residual(True)),
        lambda: vq(residual_losses, lambda: Residual(False)),
        causes=("zero_gradient", "no_gradient"),
        output="any",
        fact=second_commitment_cut,
    ),
    Stranger(
        "vq detached sides are exchanged",
        "quantized",
        "MishaLaskin/vqvae#20",
        "codebook and commitment term are exchanged: both are there, only their weights are",
        lambda: vq(
            lambda model, x: (
                lambda made, code, straight, entries: {
                    "reconstruction": F.mse_loss(made, x),
                    "codebook": F.mse_loss(entries.detach(), code),
                    "commitment": 0.25 * F.mse_loss(entries, code.detach()),
                }
            )(*model(x))
        ),
        lambda: vq(vq_losses(right_codebook)),
        output="any",
        harmless=True,
    ),
    Stranger(
        "router balance is a constant",
        "quantized",
        "mindspore-ai/hyper-parallel#752",
        "shares of experts and mean scores are broadcast against each other: the balance term is always 1",
        lambda: case(Router, balance(False), clusters, "router", reconstruction="out:0"),
        lambda: case(Router, balance(True), clusters, "router", reconstruction="out:0"),
        causes=("zero_gradient", "no_gradient"),
        fact=balance_is_constant,
    ),
)
