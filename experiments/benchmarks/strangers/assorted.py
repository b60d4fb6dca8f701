"""Further public faults: what is clipped, scheduled, averaged or normalized in the wrong place, with corrected twins."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from plumbing import Plain, plain
from stranger import Observed, Stranger, binary, case, clusters, gradients, linear, smooth, terms_of
from torch import Tensor, nn
from variational import Vae, elbo, summed_error, summed_kl, vae

from harness import Case

# --- variational ------------------------------------------------------------------------------------------------------


class Rectified(Vae):
    """A ReLU on mean and log-variance: no mean below 0, no standard deviation below 1."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance."""
        mean, logvar = super().encode(x)
        return F.relu(mean), F.relu(logvar)


class Finished(Vae):
    """A last activation."""

    def __init__(self, finish: Callable[[Tensor], Tensor]) -> None:
        super().__init__(24)
        self.finish = finish

    def decode(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        return self.finish(super().decode(z))


def log_likelihood(made: Tensor, x: Tensor) -> Tensor:
    """Return the cross-entropy of probabilities, written out."""
    return -(x * torch.log(made + 1e-8) + (1 - x) * torch.log(1 - made + 1e-8)).sum(1).mean()


def warmed(reset: bool) -> Callable[..., Any]:
    """Return a loss whose KL weight rises with the step, or is set back to its start at every step."""

    def losses(model: nn.Module, x: Tensor, step: int = 0) -> dict[str, Tensor]:
        made, mean, logvar = model(x)
        weight = 0.0 if reset else min(1.0, step / 100)
        return {"reconstruction": summed_error(made, x), "kl": weight * summed_kl(mean, logvar)}

    return losses


def weight_stays_zero(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the KL is 0 at a late step."""
    with torch.no_grad():
        return float(case.losses(model, rows[:64], step=200)["kl"]) == 0.0


def takes_log_of_negative(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the error of a new model is not finite."""
    del model
    torch.manual_seed(0)
    with torch.no_grad():
        return not math.isfinite(float(terms_of(case, case.model(), rows[:64], None)["reconstruction"]))


def at_least_one(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if no standard deviation of the posterior is below 1."""
    del case
    return bool((model.observe(rows[:200]).logvar >= 0).all())  # type: ignore[operator]


# --- main terms -------------------------------------------------------------------------------------------------------


def far(train: bool) -> Tensor:
    """Return rows far from where the outputs start."""
    return 3 + 0.3 * linear(train)


class Shifted(Plain):
    """Centers its inputs."""

    def encode(self, x: Tensor) -> Tensor:
        """Return the code."""
        return super().encode((x - 3) / 0.3)


def clipped(inside: bool) -> Callable[..., Any]:
    """Return a loss of clipped errors, or the Huber loss."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made = model(x)
        return {"reconstruction": (x - made).clamp(-1, 1).square().mean() if inside else F.smooth_l1_loss(made, x)}

    return losses


def no_slope(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if fewer than a tenth of the outputs of a new model get a gradient."""
    torch.manual_seed(0)
    made: list[Tensor] = []
    fresh = case.model()
    handle = fresh.register_forward_hook(lambda module, args, output: made.append(output))
    loss = case.losses(fresh, rows[:64])["reconstruction"]
    handle.remove()
    (slope,) = torch.autograd.grad(loss, made)
    del model
    return float((slope != 0).float().mean()) < 0.1


def slow(parameters: Any) -> torch.optim.Optimizer:
    """Return an optimizer with a rate that is far too low."""
    return torch.optim.SGD(list(parameters), lr=1e-5)


class Normalized(Plain):
    """The code is divided by its norm: of the row, or of the unit over the batch."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def encode(self, x: Tensor) -> Tensor:
        """Return the code."""
        return F.normalize(self.enc(F.relu(self.body(x))), dim=self.axis)


def follows_batch(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if an output changes with the number of rows beside it."""
    del case
    with torch.no_grad():
        return not torch.allclose(model(rows[:8]), model(rows[:64])[:8], atol=1e-5)


# --- routers ----------------------------------------------------------------------------------------------------------


class Mixture(nn.Module):
    """Four experts, weighted by the scores of a router."""

    def __init__(self, zero: bool = False) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 16)) for _ in range(4))
        if zero:
            nn.init.zeros_(self.router.weight)
            nn.init.zeros_(self.router.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, logits and scores."""
        logits = self.router(x)
        scores = logits.softmax(1)
        made = torch.stack([expert(x) for expert in self.experts], 1)
        return (scores.unsqueeze(2) * made).sum(1), logits, scores

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, _, scores = self(x)
        return Observed(scores, made)


def mixture(balance: Callable[[Tensor, Tensor], Tensor], zero: bool = False) -> Case:
    """Return a case of a mixture of experts."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, logits, scores = model(x)
        return {"reconstruction": F.mse_loss(made, x), "balance": 1e-2 * balance(logits, scores)}

    return case(lambda: Mixture(zero), losses, clusters, "router", reconstruction="out:0")


def switch(probabilities: Tensor) -> Tensor:
    """Return the balance term of the Switch transformer."""
    shares = F.one_hot(probabilities.argmax(1), 4).to(probabilities).mean(0)
    return 4 * (shares * probabilities.mean(0)).sum()


def variation(importance: Tensor) -> Tensor:
    """Return the squared coefficient of variation."""
    return (importance.var().sqrt() / importance.mean()).square()


def variation_of_variance(importance: Tensor) -> Tensor:
    """Return the squared coefficient of variation, without a root."""
    return importance.var() / importance.mean().square()


def slope_is_nan(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the gradient of the balance term is NaN at the start."""
    del model, rows
    return any(value != value for value in gradients(case, "balance").values())


# --- self-supervised --------------------------------------------------------------------------------------------------


class Byol(nn.Module):
    """An online and a target network, the latter a moving average held in parameters."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.enc, self.head = nn.Linear(24, 48), nn.Linear(48, 8)
        self.pred = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.target = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 8))
        for parameter in self.target.parameters():
            parameter.requires_grad_(not frozen)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return embedding, prediction and target."""
        if self.training:
            with torch.no_grad():
                pairs = zip(self.target.parameters(), [*self.enc.parameters(), *self.head.parameters()], strict=True)
                for average, value in pairs:
                    average.mul_(0.9).add_(0.1 * value)
        z = self.head(F.relu(self.enc(x)))
        return z, self.pred(z), self.target(x).detach()

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(self.head(F.relu(self.enc(x))))


def byol_losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the distance of predictions from the targets of the other view."""
    first, second = x + 0.3 * torch.randn_like(x), x + 0.3 * torch.randn_like(x)
    (_, p1, t1), (_, p2, t2) = model(first), model(second)
    return {"similarity": -F.cosine_similarity(p1, t2).mean() / 2 - F.cosine_similarity(p2, t1).mean() / 2}


def byol(frozen: bool) -> Case:
    """Return a case of BYOL."""
    return case(lambda: Byol(frozen), byol_losses, linear, "head", objective="similarity")


STRANGERS = (
    Stranger(
        "vae ReLU on mean and log-variance",
        "variational",
        "shekkizh/TensorflowProjects#1",
        "mean and log-variance go through a ReLU: no mean below 0, and no standard deviation of the posterior below 1",
        lambda: vae(elbo(summed_error, summed_kl), Rectified),
        lambda: vae(elbo(summed_error, summed_kl)),
        lost="any",
        fact=at_least_one,
    ),
    Stranger(
        "vae tanh output into a logarithm",
        "variational",
        "pkmital/tensorflow_tutorials#23",
        "the output is a tanh, and the likelihood takes its logarithm: NaN",
        lambda: vae(elbo(log_likelihood, summed_kl), lambda: Finished(torch.tanh), binary),
        lambda: vae(elbo(log_likelihood, summed_kl), lambda: Finished(torch.sigmoid), binary),
        causes=("outside_domain", "diverges"),
        lost="any",
        output="any",
        fact=takes_log_of_negative,
    ),
    Stranger(
        "vae KL weight is set back at every step",
        "variational",
        "valdersoul/bn-vae#1",
        "the schedule of the KL weight is set back to its start inside the loop over batches: the KL is never applied",
        lambda: vae(warmed(True)),
        lambda: vae(warmed(False)),
        causes=("zero_gradient", "no_gradient"),
        fact=weight_stays_zero,
    ),
    Stranger(
        "vae KL weighted by the share of the batch",
        "variational",
        "AntixK/PyTorch-VAE#11",
        "the KL is multiplied by batch size / number of rows: a weight like another, and no other effect",
        lambda: vae(elbo(lambda made, x: F.mse_loss(made, x), lambda mean, logvar: 4e-4 * summed_kl(mean, logvar))),
        lambda: vae(elbo(summed_error, summed_kl)),
        lost="any",
        harmless=True,
    ),
    Stranger(
        "errors are clipped before the square",
        "main term",
        "spragunr/deep_q_rl#46",
        "the difference is clipped, so large errors have no gradient: where all are large, nothing is learned",
        lambda: plain(Shifted, far, losses=clipped(True), train={"epochs": 40, "learning_rate": 0.01}),
        lambda: plain(Shifted, far, losses=clipped(False), train={"epochs": 40, "learning_rate": 0.01}),
        causes=("escape", "zero_gradient"),
        output="any",
        lost="any",
        fact=no_slope,
    ),
    Stranger(
        "learning rate far too low",
        "main term",
        "keras-team/keras#1604",
        "plain gradient descent with a rate at which the loss stays where it started",
        lambda: plain(optimizer=slow),
        lambda: plain(),
        output="mean",
    ),
    Stranger(
        "linear output for images",
        "main term",
        "araffin/robotics-rl-srl#53",
        "the output is linear, and the data lie between 0 and 1: unusual, and no fault",
        lambda: plain(lambda: Plain(40), smooth),
        lambda: plain(lambda: Plain(40, torch.sigmoid), smooth),
        harmless=True,
    ),
    Stranger(
        "code normalized over the batch",
        "rows",
        "alireza-nasiri/SoundCLR#4",
        "F.normalize(dim=0): a unit is divided by its norm over the batch, also in eval mode",
        lambda: plain(lambda: Normalized(0)),
        lambda: plain(lambda: Normalized(1)),
        causes=("mixed_rows",),
        output="any",
        fact=follows_batch,
    ),
    Stranger(
        "router balance of a double softmax",
        "quantized",
        "huggingface/transformers#45120",
        "probabilities are given where logits are expected: the balance term sees a flat distribution",
        lambda: mixture(lambda logits, scores: switch(scores.softmax(1))),
        lambda: mixture(lambda logits, scores: switch(logits.softmax(1))),
        causes=("negligible",),
    ),
    Stranger(
        "router deviation at equal loads",
        "quantized",
        "google-research/vmoe#218",
        "the balance term is a standard deviation, whose gradient at equal loads is NaN: a router that starts at zero",
        lambda: mixture(lambda logits, scores: variation(scores.mean(0)), zero=True),
        lambda: mixture(lambda logits, scores: variation_of_variance(scores.mean(0)), zero=True),
        causes=("diverges", "outside_domain"),
        lost="all",
        output="invalid",
        fact=slope_is_nan,
    ),
    Stranger(
        "byol target in the optimizer",
        "contrastive",
        "lucidrains/byol-pytorch#35",
        "the optimizer holds the target's parameters too, which get no gradient: untidy, and no fault",
        lambda: byol(False),
        lambda: byol(True),
        lost="any",
        output="",
        harmless=True,
    ),
)
