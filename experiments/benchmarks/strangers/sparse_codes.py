"""Sparse autoencoders: public faults and their corrected twins."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from stranger import Observed, Stranger, case, gradients, linear, smooth, sparse, terms_of
from torch import Tensor, nn

from harness import Case

RHO = 0.05


class Sparse(nn.Module):
    """One hidden layer with a chosen activation and as many outputs as inputs."""

    def __init__(
        self,
        features: int = 24,
        units: int = 16,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        centered: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.enc, self.dec, self.activation = nn.Linear(features, units), nn.Linear(units, features), activation
        if centered is not None:
            with torch.no_grad():
                self.dec.bias.copy_(centered)
                self.enc.weight.copy_(F.normalize(self.dec.weight, dim=0).T)
                self.enc.bias.copy_(-self.enc.weight @ centered)

    def encode(self, x: Tensor) -> Tensor:
        """Return the code."""
        return self.activation(self.enc(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction and code."""
        code = self.encode(x)
        return self.dec(code), code

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        code = self.encode(x)
        return Observed(code, self.dec(code))


def top_k(values: Tensor, count: int = 4) -> Tensor:
    """Keep the largest values of every row after a ReLU."""
    values = torch.relu(values)
    largest = values.topk(count, dim=1)
    return torch.zeros_like(values).scatter(1, largest.indices, largest.values)


def bernoulli_kl(mean: Tensor) -> Tensor:
    """Return the KL from Bernoulli(0.05) to Bernoulli(mean)."""
    return RHO * torch.log(RHO / mean) + (1 - RHO) * torch.log((1 - RHO) / (1 - mean))


def penalized(penalty: Callable[[Tensor], Tensor], name: str) -> Callable[..., Any]:
    """Return a loss of the squared error and a penalty of the code."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, code = model(x)
        return {"reconstruction": F.mse_loss(made, x), name: penalty(code)}

    return losses


def unpenalized(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the squared error alone."""
    return {"reconstruction": F.mse_loss(model(x)[0], x)}


def sigmoid_model(features: int = 40) -> Sparse:
    """Return a model with a sigmoid code."""
    return Sparse(features, 16, torch.sigmoid)


def sae(losses: Callable[..., Any], model: Callable[[], nn.Module], rows: Callable[[bool], Any], **more: Any) -> Case:
    """Return a case of a sparse autoencoder."""
    return case(model, losses, rows, "enc", reconstruction="out:0", **more)


def auxiliary(detached: bool) -> Callable[..., Any]:
    """Return a loss whose second term lets the units that were not selected explain the rest of the error."""

    def losses(model: Sparse, x: Tensor) -> dict[str, Tensor]:
        made, code = model(x)
        rest = (x - made).detach()
        unselected = torch.relu(model.enc(x)) * (code == 0)
        auxk = F.mse_loss(top_k(unselected, 4) @ model.dec.weight.T, rest) / 32
        return {"reconstruction": F.mse_loss(made, x), "auxk": auxk.detach() if detached else auxk}

    return losses


def no_path(term: str) -> Callable[[Case, nn.Module, Tensor], bool]:
    """Return a check that no parameter gets a gradient from a term."""
    return lambda case, model, rows: max(gradients(case, term).values()) <= 0.0


def grows(term: str) -> Callable[[Case, nn.Module, Tensor], bool]:
    """Return a check that a term grows with the number of equal rows."""

    def check(case: Case, model: nn.Module, rows: Tensor) -> bool:
        with torch.no_grad():
            small = float(terms_of(case, model, rows[:64], None)[term])
            return float(terms_of(case, model, rows[:64].repeat(2, 1), None)[term]) > 1.5 * small

    return check


def least_at_a_constant(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if no code has a smaller penalty than the constant one at rho, entry by entry."""
    del model, rows
    constant, spread = torch.full((400, 16), RHO), torch.zeros(400, 16)
    spread[torch.arange(400) % 20 == 0] = 0.999  # each unit on in 5 % of the rows, off elsewhere
    spread.clamp_(1e-4)

    class Given(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, self.code

    given = Given()
    values = []
    for code in (constant, spread):
        given.code = code
        values.append(float(case.losses(given, torch.zeros(400, 40))["kl"]))
    return values[1] > values[0] + 0.01


def negative_is_rewarded(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the penalty of a code of -1000 is below 0."""
    del model, rows

    class Given(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, torch.full((64, 16), -1000.0)

    return float(case.losses(Given(), torch.zeros(64, 24))["l1"]) < 0


def meets_nan(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the KL of a new model is not finite."""
    del model
    torch.manual_seed(0)
    with torch.no_grad():
        return not bool(torch.isfinite(terms_of(case, case.model(), rows[:64], None)["kl"]))


def offset_rows(train: bool) -> Tensor:
    """Return sparse rows around an offset of length 3."""
    return sparse(train, 3.0)


def in_middle(train: bool) -> Tensor:
    """Return the linear rows between 0 and 1."""
    return torch.sigmoid(linear(train))


STRANGERS = (
    Stranger(
        "sae KL entry by entry",
        "sparse",
        "wblgers/tensorflow_stacked_denoising_autoencoder#1",
        "the KL is taken of every activation, not of the mean over the batch: every entry is asked to be rho",
        lambda: sae(penalized(lambda code: 0.5 * bernoulli_kl(code).mean(), "kl"), sigmoid_model, smooth),
        lambda: sae(penalized(lambda code: 1e-3 * bernoulli_kl(code.mean(0)).sum(), "kl"), sigmoid_model, smooth),
        causes=("collapse_optimum",),
        lost="any",
        output="any",
        fact=least_at_a_constant,
        also=("dominates",),
    ),
    Stranger(
        "sae KL of a ReLU code",
        "sparse",
        "Abhipanda4/Sparse-Autoencoders#1",
        "the KL takes the logarithm of 1 - mean, and the mean of a ReLU code passes 1: the loss is NaN",
        lambda: sae(
            penalized(lambda code: 1e-2 * bernoulli_kl(code.mean(0)).sum(), "kl"),
            lambda: Sparse(24, 16),
            lambda train: 6 * linear(train),
        ),
        lambda: sae(
            penalized(lambda code: 1e-4 * bernoulli_kl(code.mean(0)).sum(), "kl"), lambda: sigmoid_model(24), linear
        ),
        causes=("outside_domain", "diverges"),
        lost="any",
        output="any",
        fact=meets_nan,
    ),
    Stranger(
        "sae auxiliary term is not trained",
        "sparse",
        "oclivegriffin/crosscode#3",
        "the term that revives unselected units is logged, and the loss that is differentiated leaves it out",
        lambda: sae(auxiliary(True), lambda: Sparse(24, 48, top_k), sparse),
        lambda: sae(auxiliary(False), lambda: Sparse(24, 48, top_k), sparse),
        causes=("no_gradient", "zero_gradient"),
        lost="any",
        fact=no_path("auxk"),
    ),
    Stranger(
        "sae brackets of the KL",
        "sparse",
        "caglar/autoencoders#5",
        "p log p - log q + ... instead of p (log p - log q) + ...: the penalty is least at 0.51, whatever rho",
        lambda: sae(
            penalized(
                lambda code: 1e-3 * (-torch.log(code.mean(0)) - (1 - RHO) * torch.log(1 - code.mean(0))).sum(), "kl"
            ),
            sigmoid_model,
            smooth,
        ),
        lambda: sae(penalized(lambda code: 1e-3 * bernoulli_kl(code.mean(0)).sum(), "kl"), sigmoid_model, smooth),
    ),
    Stranger(
        "sae dead latents of a TopK code",
        "sparse",
        "decoderesearch/SAELens#202",
        "rows with an offset and an encoder of its own: the few units along the offset are always selected, others never",
        lambda: sae(unpenalized, lambda: Sparse(24, 48, top_k), offset_rows),
        lambda: sae(auxiliary(False), lambda: Sparse(24, 48, top_k, offset_rows(True).mean(0)), offset_rows),
        lost="some",
    ),
    Stranger(
        "sae L1 summed over the batch",
        "sparse",
        "ai-safety-foundation/sparse_autoencoder#63",
        "losses are summed over the rows of the batch, so weight and step depend on the batch size",
        lambda: sae(penalized(lambda code: 1e-4 * code.abs().sum(), "l1"), lambda: Sparse(24, 32), linear),
        lambda: sae(penalized(lambda code: 1e-3 * code.abs().sum(1).mean(), "l1"), lambda: Sparse(24, 32), linear),
        causes=("depends_on_batch_size",),
        lost="any",
        fact=grows("l1"),
        also=("dominates",),
    ),
    Stranger(
        "sae L1 without an absolute value",
        "sparse",
        "OSU-NLP-Group/saev#19",
        "the sum of a code that may be negative is called L1: the more negative, the lower",
        lambda: sae(
            penalized(lambda code: 1e-2 * code.sum(1).mean(), "l1"), lambda: Sparse(24, 16, nn.Identity()), linear
        ),
        lambda: sae(
            penalized(lambda code: 1e-2 * code.abs().sum(1).mean(), "l1"), lambda: Sparse(24, 16, nn.Identity()), linear
        ),
        causes=("unbounded",),
        output="any",
        fact=negative_is_rewarded,
    ),
    Stranger(
        "sae code behind a dead ReLU",
        "sparse",
        "Yang7879/3D-RecGAN#6",
        "the biases of a ReLU code start so low that no unit fires on any row: zeros for every input",
        lambda: sae(unpenalized, lambda: low_bias(-8.0), in_middle),
        lambda: sae(penalized(lambda code: 1e-4 * code.abs().mean(), "l1"), lambda: low_bias(0.0), in_middle),
        causes=("dead_at_birth",),
        lost="all",
        output="constant",
    ),
)


def low_bias(value: float) -> Sparse:
    """Return a ReLU model whose encoder has one bias everywhere."""
    model = Sparse(24, 16)
    nn.init.constant_(model.enc.bias, value)
    return model
