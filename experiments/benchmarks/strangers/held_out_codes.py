"""Held-out examination, faults of the code's path: written with their truth before the first run; constructed."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from stranger import Observed, Stranger, case, clusters, gradients, linear, smooth, waves
from torch import Tensor, nn

from harness import Case


class MaskedAutoencoder(nn.Module):
    """An autoencoder whose input is multiplied by a fixed mask, a buffer; `keep` is the share of features left."""

    mask: Tensor

    def __init__(self, keep: float) -> None:
        super().__init__()
        order = torch.rand(40, generator=torch.Generator().manual_seed(3)).argsort()
        self.register_buffer("mask", (order < keep * 40).float())
        self.body, self.code = nn.Sequential(nn.Linear(40, 48), nn.GELU()), nn.Linear(48, 8)
        self.back = nn.Sequential(nn.Linear(8, 48), nn.GELU(), nn.Linear(48, 40))

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of all features."""
        return self.back(self.code(self.body(x * self.mask)))

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(self.code(self.body(x * self.mask)), self(x))


class LstmAutoencoder(nn.Module):
    """A sequence autoencoder whose code is a layer on the last hidden state; the decoder's GRU gets it at every step."""

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.reader, self.code = nn.LSTM(1, 24, batch_first=True), nn.Linear(24, 6)
        self.writer, self.out, self.detach = nn.GRU(6, 24, batch_first=True), nn.Linear(24, 1), detach

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction and code."""
        z = self.code(self.reader(x.unsqueeze(2))[1][0][-1])
        read = z.detach() if self.detach else z
        return self.out(self.writer(read.unsqueeze(1).repeat(1, x.shape[1], 1))[0]).squeeze(2), z

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, z = self(x)
        return Observed(z, made)


class ResidualQuantizer(nn.Module):
    """Two quantizers in a row whose entries are buffers that follow the mean of their rows."""

    first: Tensor
    second: Tensor

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(16, 6), nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16))
        self.register_buffer("first", torch.randn(24, 6))
        self.register_buffer("second", 0.3 * torch.randn(24, 6))
        self.detached = detached

    def look(self, rows: Tensor, entries: Tensor) -> Tensor:
        """Return the nearest entries, and move them in training."""
        index = torch.cdist(rows.detach(), entries).argmin(1)
        if self.training:
            with torch.no_grad():
                chosen = F.one_hot(index, len(entries)).float()
                count = chosen.sum(0).unsqueeze(1)
                mean = chosen.t() @ rows / count.clamp_min(1)
                entries.copy_(torch.where(count > 0, 0.9 * entries + 0.1 * mean, entries))
        return F.embedding(index, entries.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, encoder's output and quantized code."""
        z = self.encoder(x)
        one = self.look(z, self.first)
        quantized = one + self.look(z - one, self.second)
        through = z + (quantized - z).detach() if self.detached else z + (quantized - z)
        return self.decoder(through), z, quantized

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, _, quantized = self(x)
        return Observed(quantized, made)


class LatentQueries(nn.Module):
    """Four learned queries read four tokens of a row by attention; `batch_first` False reads the batch as the tokens."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(10, 16), nn.Parameter(torch.randn(4, 16))
        self.queries = nn.Parameter(torch.randn(4, 16))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=batch_first)
        self.code = nn.Linear(64, 8)
        self.back = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 40))

    def encode(self, x: Tensor) -> Tensor:
        """Return the code."""
        tokens = self.embed(x.reshape(-1, 4, 10)) + self.position
        queries = self.queries.expand(len(x), -1, -1)
        return self.code(self.attention(queries, tokens, tokens, need_weights=False)[0].reshape(len(x), 64))

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction."""
        return self.back(self.encode(x))

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(self.encode(x), self(x))


class SumNormalized(nn.Module):
    """A ReLU code divided by its sum over units."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(24, 16), nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 24))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction and code."""
        z = F.relu(self.encoder(x))
        z = z / (z.sum(1, keepdim=True) + 1e-6)
        return self.decoder(z), z

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, z = self(x)
        return Observed(z, made)


class BinaryCode(nn.Module):
    """A code of zeros and ones, with the sigmoid's gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(24, 32), nn.Tanh(), nn.Linear(32, 16))
        self.decoder = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 24))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, bits and probabilities."""
        p = torch.sigmoid(self.encoder(x))
        bits = (p > 0.5).float() + p - p.detach()
        return self.decoder(bits), bits, p

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, bits, _ = self(x)
        return Observed(bits, made)


def plain(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error only."""
    return {"reconstruction": (model(x) - x).square().sum(1).mean()}


def small_code(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error and a small pull of the code to 0."""
    made, z = model(x)
    return {"reconstruction": (made - x).square().sum(1).mean(), "size": 0.01 * z.square().sum(1).mean()}


def commitment(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error and the commitment of the encoder to the entries."""
    made, z, quantized = model(x)
    return {"reconstruction": F.mse_loss(made, x), "commitment": 0.25 * F.mse_loss(z, quantized.detach())}


def entropy(smallest: float) -> Callable[..., dict[str, Tensor]]:
    """Return a loss with the entropy of the code's shares, each at least this."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, z = model(x)
        shares = z.clamp_min(smallest)
        return {
            "reconstruction": (made - x).square().sum(1).mean(),
            "entropy": -0.05 * (shares * shares.log()).sum(1).mean(),
        }

    return losses


def counted_bits(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error and the share of bits that are set, counted."""
    made, _, p = model(x)
    return {"reconstruction": (made - x).square().sum(1).mean(), "on": 0.5 * (p > 0.5).float().mean()}


def balanced_bits(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error and the distance of every bit's mean probability from one half."""
    made, _, p = model(x)
    return {"reconstruction": (made - x).square().sum(1).mean(), "balance": (p.mean(0) - 0.5).square().sum()}


def reaches(term: str, parameter: str) -> Callable[[Case, nn.Module, Tensor], bool]:
    """Return the fact that no gradient of the term reaches the parameter."""

    def fact(case: Case, model: nn.Module, rows: Tensor) -> bool:
        del model, rows
        return gradients(case, term)[parameter] <= 0

    return fact


def others_matter(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if a row's code follows the other rows."""
    del case
    changed = torch.cat([rows[:1], rows[1:64].flip(1)])
    with torch.no_grad():
        first, second = model.observe(rows[:64]).code, model.observe(changed).code  # type: ignore[operator]
    return not torch.allclose(first[0], second[0], atol=1e-4)


def not_finite(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the entropy of a new model is not a number."""
    del model
    torch.manual_seed(0)
    return not torch.isfinite(case.losses(case.model(), rows[:64])["entropy"])


def code_never_varies(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if new models give one code for all rows, at three initializations."""
    del model
    spreads = []
    for seed in range(3):
        torch.manual_seed(seed)
        code = case.model().eval().observe(rows[:200]).code
        spreads.append(float((code - code[:1]).abs().max().detach()))
    return max(spreads) == 0


def pair(
    name: str, wrong: str, sick: Callable[[], Case], twin: Callable[[], Case], *causes: str, **more: Any
) -> Stranger:
    return Stranger(name, "held out", "constructed", wrong, sick, twin, causes=causes, **more)


STRANGERS = (
    pair(
        "mask that keeps nothing",
        "the share of features that the mask keeps is 0: the encoder sees zeros",
        lambda: case(lambda: MaskedAutoencoder(0.0), plain, smooth, "code"),
        lambda: case(lambda: MaskedAutoencoder(0.6), plain, smooth, "code"),
        "constant_at_birth",
        lost="all",
        output="constant",
        fact=code_never_varies,
    ),
    pair(
        "lstm code is detached for the decoder",
        "the decoder reads the code detached, and a small pull to 0 is all that trains the encoder",
        lambda: case(lambda: LstmAutoencoder(True), small_code, waves, "code", reconstruction="out:0"),
        lambda: case(lambda: LstmAutoencoder(False), small_code, waves, "code", reconstruction="out:0"),
        "cut_encoder",
        lost="any",
        output="any",
        fact=reaches("reconstruction", "code.weight"),
    ),
    pair(
        "residual quantizer, straight-through not detached",
        "z + (q - z) without a detach is q, and q comes from buffers: the error reaches no encoder",
        lambda: case(lambda: ResidualQuantizer(False), commitment, clusters, "encoder", reconstruction="out:0"),
        lambda: case(lambda: ResidualQuantizer(True), commitment, clusters, "encoder", reconstruction="out:0"),
        "cut_encoder",
        lost="any",
        output="any",
        fact=reaches("reconstruction", "encoder.weight"),
    ),
    pair(
        "queries attend over the batch",
        "attention without batch_first reads the rows of the batch as tokens: every row gets one code",
        lambda: case(lambda: LatentQueries(False), plain, smooth, "code"),
        lambda: case(lambda: LatentQueries(True), plain, smooth, "code"),
        "mixed_rows",
        "constant_at_birth",
        lost="any",
        output="any",
        fact=others_matter,
    ),
    pair(
        "entropy of shares that are 0",
        "a ReLU code divided by its sum has zeros, and 0 log 0 is not a number",
        lambda: case(SumNormalized, entropy(0.0), linear, "encoder", reconstruction="out:0"),
        lambda: case(SumNormalized, entropy(1e-6), linear, "encoder", reconstruction="out:0"),
        "outside_domain",
        "diverges",
        lost="any",
        output="any",
        fact=not_finite,
    ),
    pair(
        "bits that are set are counted",
        "the penalty counts probabilities above one half: it has no gradient",
        lambda: case(BinaryCode, counted_bits, linear, "encoder.2", reconstruction="out:0"),
        lambda: case(BinaryCode, balanced_bits, linear, "encoder.2", reconstruction="out:0"),
        "no_gradient",
        "zero_gradient",
        lost="any",
        fact=lambda case, model, rows: "on" in case.losses(model, rows[:8]),
    ),
)
