"""Four realistic models, each with a sick twin: a convolutional VAE, a TopK autoencoder of a transformer's activations,
a SimSiam encoder and a quantized autoencoder of images."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from contrastive import negative_cosine
from quantized import Quantizer
from sparse_codes import top_k
from stranger import Observed, Stranger, case, digits, halves
from torch import Tensor, nn
from variational import divergence, kl_outweighs

from harness import Case

SAE_UNITS, WORDS, LENGTH = 96, 24, 12


# --- convolutional VAE on digits ------------------------------------------------------------------------------------


class ConvVae(nn.Module):
    """Two strided convolutions, 8 Gaussian units, two transposed convolutions; logits of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(inplace=True)
        )
        self.mean, self.logvar, self.grow = nn.Linear(128, 8), nn.Linear(128, 8), nn.Linear(8, 128)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(inplace=True), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance."""
        hidden = self.down(x).flatten(1)
        return self.mean(hidden), self.logvar(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Return the pixels."""
        return torch.sigmoid(self.up(F.relu(self.grow(z)).view(-1, 32, 2, 2)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels, mean and log-variance."""
        mean, logvar = self.encode(x)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp() if self.training else mean
        return self.decode(z), mean, logvar

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        mean, logvar = self.encode(x)
        return Observed(mean, self.decode(mean), logvar)


def pixel_losses(reduction: str) -> Callable[..., Any]:
    """Return cross-entropy of the pixels, averaged over pixels or summed, and the KL summed over units."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, mean, logvar = model(x)
        error = F.binary_cross_entropy(made, x, reduction="none").flatten(1)
        reconstruction = error.mean() if reduction == "mean" else error.sum(1).mean()
        return {"reconstruction": reconstruction, "kl": divergence(mean, logvar).sum(1).mean()}

    return losses


def conv_vae(reduction: str) -> Case:
    """Return a case of the convolutional VAE."""
    return case(
        ConvVae,
        pixel_losses(reduction),
        digits,
        "mean",
        reconstruction="out:0",
        posterior="out:2",
        train={"epochs": 25},
    )


# --- TopK autoencoder on the activations of a transformer -----------------------------------------------------------


class Block(nn.Module):
    """A small causal transformer that predicts the next word of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, 32), nn.Parameter(0.1 * torch.randn(LENGTH, 32))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.out = nn.Linear(32, WORDS)

    def stream(self, words: Tensor) -> Tensor:
        """Return the residual stream after the last layer, `[sample, step, 32]`."""
        values = self.words(words) + self.places
        mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)
        for layer in self.layers:
            values = layer(values, src_mask=mask, is_causal=True)
        return values


def sentences(count: int) -> Tensor:
    """Return sequences in which the next word follows from the last two."""
    draw = torch.Generator().manual_seed(18)
    table = torch.randint(0, WORDS, (WORDS, WORDS, 2), generator=draw)
    words = [torch.randint(0, WORDS, (count,), generator=draw) for _ in range(2)]
    for _ in range(LENGTH - 2):
        choice = (torch.rand(count, generator=draw) < 0.2).long()
        words.append(table[words[-1], words[-2], choice])
    return torch.stack(words, 1)


@cache
def activations() -> Tensor:
    """Train the transformer, and return its activations at all steps, `[row, 32]`."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model, words = Block(), sentences(1024)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(12):
        for index in torch.randperm(len(words)).split(128):
            logits = model.out(model.stream(words[index])[:, 1:-1])
            optimizer.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), words[index][:, 2:].flatten()).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        rows = model.stream(words[:200]).flatten(0, 1)[:2200]
    torch.set_rng_state(state)
    return rows


def activation_rows(train: bool, offset: float = 0.0) -> Tensor:
    """Return the activations, scaled to mean squared norm 1, around an offset."""
    rows = activations() / activations().square().sum(1).mean().sqrt()
    return halves(rows + offset, train)


class TopKSae(nn.Module):
    """A TopK autoencoder with tied initialization and an optional bias that centers the rows."""

    def __init__(self, center: Tensor | None) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(32, SAE_UNITS), nn.Linear(SAE_UNITS, 32)
        self.center = nn.Parameter(torch.zeros(32) if center is None else center.clone())
        if center is not None:
            with torch.no_grad():
                self.dec.weight.copy_(F.normalize(self.dec.weight, dim=0))
                self.enc.weight.copy_(self.dec.weight.T)
                nn.init.zeros_(self.enc.bias)
                nn.init.zeros_(self.dec.bias)

    def encode(self, x: Tensor) -> Tensor:
        """Return the code."""
        return top_k(self.enc(x - self.center), 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction and code."""
        code = self.encode(x)
        return self.dec(code) + self.center, code

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        code = self.encode(x)
        return Observed(code, self.dec(code) + self.center)


def sae_losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the squared error."""
    return {"reconstruction": (model(x)[0] - x).square().sum(1).mean()}


def topk_sae(center: bool) -> Case:
    """Return a case of the TopK autoencoder on rows with an offset, which a bias takes away or not."""

    def rows(train: bool) -> Tensor:
        return activation_rows(train, 1.0)

    return case(
        lambda: TopKSae(rows(True).mean(0) if center else None),
        sae_losses,
        rows,
        "enc",
        reconstruction="out:0",
        train={"epochs": 15, "learning_rate": 2e-3},
    )


# --- SimSiam on digits ----------------------------------------------------------------------------------------------


class SimSiam(nn.Module):
    """A convolutional encoder with projection and predictor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(128, 16)
        self.pred = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return embedding and prediction."""
        z = self.head(self.conv(x).flatten(1))
        return z, self.pred(z)

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(self(x)[0])


def augmented(x: Tensor) -> Tensor:
    """Return images moved by up to one pixel, with noise."""
    shift = torch.randint(-1, 2, (2,)).tolist()
    return x.roll(shift, (2, 3)) + 0.1 * torch.randn_like(x)


def simsiam_losses(stopped: bool) -> Callable[..., Any]:
    """Return the loss with or without the gradient of the target."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        (z1, p1), (z2, p2) = model(augmented(x)), model(augmented(x))
        if stopped:
            z1, z2 = z1.detach(), z2.detach()
        return {"similarity": negative_cosine(p1, z2) + negative_cosine(p2, z1)}

    return losses


def simsiam_case(stopped: bool) -> Case:
    """Return a case of SimSiam on digits."""
    return case(SimSiam, simsiam_losses(stopped), digits, "head", objective="similarity", train={"epochs": 10})


# --- VQ-VAE on digits -----------------------------------------------------------------------------------------------


class ImageVq(nn.Module):
    """A quantized autoencoder of digits; the codebook term is right, or taken on the straight-through output."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.enc = nn.Linear(64, 64), nn.Linear(64, 6)
        self.quantizer = Quantizer(64, 0.5)
        self.grow, self.out = nn.Linear(6, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return reconstruction, code, straight-through output and entries."""
        code = self.enc(F.relu(self.body(x.flatten(1))))
        straight, entries = self.quantizer(code)
        return self.out(F.relu(self.grow(straight))).view_as(x), code, straight, entries

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, _, straight, _ = self(x)
        return Observed(straight, made)


def image_vq(right: bool) -> Case:
    """Return a case of the quantized autoencoder of digits."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, code, straight, entries = model(x)
        return {
            "reconstruction": F.mse_loss(made, x),
            "codebook": F.mse_loss(entries if right else straight, code.detach()),
            "commitment": 0.25 * F.mse_loss(code, entries.detach()),
        }

    return case(ImageVq, losses, digits, "enc", reconstruction="out:0", train={"epochs": 20})


def book_never_moves(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the trained codebook is the initial one."""
    del rows
    return not any(value.grad is not None for value in model.quantizer.parameters())  # type: ignore[union-attr, operator]


STRANGERS = (
    Stranger(
        "convolutional VAE on digits",
        "realistic",
        "pytorch/examples#290",
        "the cross-entropy is averaged over pixels, the KL is summed over units: the posterior collapses",
        lambda: conv_vae("mean"),
        lambda: conv_vae("sum"),
        causes=("dominates",),
        lost="all",
        output="mean",
        fact=kl_outweighs,
    ),
    Stranger(
        "TopK autoencoder of a transformer",
        "realistic",
        "decoderesearch/SAELens#202",
        "rows with an offset that no bias takes away: most latents are never selected",
        lambda: topk_sae(False),
        lambda: topk_sae(True),
        causes=("input_offset",),
        lost="some",
    ),
    Stranger(
        "SimSiam on digits",
        "realistic",
        "PatrickHua/SimSiam#39",
        "no stop-gradient: both branches are trained to one constant embedding",
        lambda: simsiam_case(False),
        lambda: simsiam_case(True),
        causes=("collapse_optimum",),
        lost="any",
        output="",
    ),
    Stranger(
        "VQ-VAE on digits",
        "realistic",
        "andylolu2/jax-vqvae-gpt#2",
        "codebook and commitment term are computed after the straight-through step: the codebook never moves",
        lambda: image_vq(False),
        lambda: image_vq(True),
        causes=("unreached_parameter",),
        output="any",
        fact=book_never_moves,
    ),
)
