"""Variational autoencoders: public faults and their corrected twins."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from stranger import Observed, Stranger, case, gradients, smooth, symptom, terms_of, trained, waves
from torch import Tensor, nn

from harness import Case


class Vae(nn.Module):
    """40-48-6-48-40 with a Gaussian latent; the mean is used in eval mode."""

    def __init__(self, features: int = 40, scale: float = 0.5, clamp: float | None = None) -> None:
        super().__init__()
        self.body, self.mean, self.logvar = nn.Linear(features, 48), nn.Linear(48, 6), nn.Linear(48, 6)
        self.grow, self.out = nn.Linear(6, 48), nn.Linear(48, features)
        self.scale, self.clamp = scale, clamp

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance."""
        hidden = F.relu(self.body(x))
        logvar = self.logvar(hidden)
        return self.mean(hidden), logvar if self.clamp is None else logvar.clamp(-30, self.clamp)

    def decode(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        return self.out(F.relu(self.grow(z)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, mean and log-variance."""
        mean, logvar = self.encode(x)
        z = mean + torch.randn_like(mean) * (self.scale * logvar).exp() if self.training else mean
        return self.decode(z), mean, logvar

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        mean, logvar = self.encode(x)
        return Observed(mean, self.decode(mean), logvar)


class AlwaysSampling(Vae):
    """Samples in eval mode too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, mean and log-variance."""
        mean, logvar = self.encode(x)
        return self.decode(mean + torch.randn_like(mean) * (0.5 * logvar).exp()), mean, logvar


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return KL(q || N(0, 1)) `[sample, unit]`."""
    return -0.5 * (1 + logvar - mean**2 - logvar.exp())


def elbo(error: Callable[[Tensor, Tensor], Tensor], kl: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """Return a loss of an error and a KL."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, mean, logvar = model(x)
        return {"reconstruction": error(made, x), "kl": kl(mean, logvar)}

    return losses


def summed_error(made: Tensor, x: Tensor) -> Tensor:
    """Return the Gaussian error with standard deviation 0.1, summed over features."""
    return 50 * (made - x).square().flatten(1).sum(1).mean()


def summed_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return the KL summed over units, averaged over rows."""
    return divergence(mean, logvar).sum(1).mean()


def vae(
    losses: Callable[..., Any], model: Callable[[], nn.Module] = Vae, rows: Callable[[bool], Any] = smooth, **more: Any
) -> Case:
    """Return a case of a VAE."""
    return case(model, losses, rows, "mean", reconstruction="out:0", posterior="out:2", **more)


def beta_ignored(model: nn.Module, x: Tensor, weight: float) -> dict[str, Tensor]:
    """Take a weight and leave it out."""
    made, mean, logvar = model(x)
    return {"reconstruction": summed_error(made, x), "kl": summed_kl(mean, logvar)}


def beta_used(model: nn.Module, x: Tensor, weight: float) -> dict[str, Tensor]:
    """Take a weight and use it."""
    made, mean, logvar = model(x)
    return {"reconstruction": summed_error(made, x), "kl": weight * summed_kl(mean, logvar)}


def weight_matters(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the number changes nothing."""
    torch.manual_seed(0)
    first = terms_of(case, model, rows[:64], None)
    torch.manual_seed(0)
    second = case.losses(model, rows[:64], weight=7.0)
    return all(torch.equal(first[name], second[name]) for name in first)


def kl_grows_with_rows(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the KL of twice the rows is about twice as large."""
    torch.manual_seed(0)
    small = float(terms_of(case, model, rows[:64], None)["kl"])
    large = float(terms_of(case, model, rows[:64].repeat(2, 1), None)["kl"])
    return large > 1.5 * small


def kl_outweighs(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the KL's gradient at the layer of the mean is more than 5 times that of the error."""
    del model, rows
    sizes = [gradients(case, term) for term in ("reconstruction", "kl")]
    return sizes[1]["mean.weight"] > 5 * sizes[0]["mean.weight"]


def kl_is_to_blame(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if all units are lost, and none is in a training without the KL."""
    if symptom(case, model).share != "all":
        return False

    def without(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        return {"reconstruction": case.losses(model, x)["reconstruction"]}

    del rows
    return symptom(case, trained(replace(case, losses=without), 0)).share == "none"


def starts_beyond(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if some log-variance of a new model is above 80, where the exponential leaves float32."""
    del model
    torch.manual_seed(0)
    return bool((case.model().observe(rows[:200]).logvar > 80).any())  # type: ignore[operator]


class TeacherForced(Vae):
    """A GRU decoder that reads the true previous step beside the latent."""

    def __init__(self, forced: bool) -> None:
        super().__init__(12)
        self.cell, self.read, self.forced = nn.GRU(7 if forced else 6, 32, batch_first=True), nn.Linear(32, 1), forced
        del self.grow, self.out

    def decode_with(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the reconstruction from the latent and, if forced, the previous steps."""
        steps = z.unsqueeze(1).expand(-1, 12, -1)
        if self.forced:
            steps = torch.cat([steps, F.pad(x[:, :-1], (1, 0)).unsqueeze(2)], 2)
        return self.read(self.cell(steps)[0]).squeeze(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, mean and log-variance."""
        mean, logvar = self.encode(x)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp() if self.training else mean
        return self.decode_with(z, x), mean, logvar

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        mean, logvar = self.encode(x)
        return Observed(mean, self.decode_with(mean, x), logvar)


def decoder_sees_rows(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the reconstruction follows the input while the latent is held."""
    del case
    z = torch.zeros(64, 6)
    with torch.no_grad():
        first = model.decode_with(z, rows[:64])  # type: ignore[operator]
        return not torch.equal(first, model.decode_with(z, rows[64:128]))  # type: ignore[operator]


def wide(train: bool) -> Tensor:
    """Return rows in units that make them 100 times as large."""
    return 4000 * (smooth(train) - 0.5)


def sequence_error(made: Tensor, x: Tensor) -> Tensor:
    """Return the error summed over steps."""
    return 5 * (made - x).square().sum(1).mean()


STRANGERS = (
    Stranger(
        "vae mean error, summed KL",
        "variational",
        "zdebruine/MMVAE#19",
        "the error is averaged over features, the KL is summed over units: the KL weighs 40 times too much",
        lambda: vae(elbo(F.mse_loss, summed_kl)),
        lambda: vae(elbo(summed_error, summed_kl)),
        causes=("dominates",),
        lost="all",
        output="mean",
        fact=kl_outweighs,
    ),
    Stranger(
        "vae mean error, mean KL",
        "variational",
        "AppliedDataSciencePartners/WorldModels#12",
        "error and KL are both averaged over all their entries, so the KL weighs 7 times too much at 40 features and 6 units",
        lambda: vae(
            elbo(lambda made, x: F.mse_loss(made, x) / 2, lambda mean, logvar: divergence(mean, logvar).mean())
        ),
        lambda: vae(elbo(summed_error, summed_kl)),
        causes=("dominates",),
        lost="all",
        output="mean",
        fact=kl_is_to_blame,
    ),
    Stranger(
        "vae KL without an axis",
        "variational",
        "EDAPINENUT/GNTPP#4",
        "the KL is summed over the rows of the batch as well, so its weight grows with the batch size",
        lambda: vae(elbo(summed_error, lambda mean, logvar: divergence(mean, logvar).sum())),
        lambda: vae(elbo(summed_error, summed_kl)),
        causes=("depends_on_batch_size",),
        lost="any",
        output="any",
        fact=kl_grows_with_rows,
        also=("dominates",),
    ),
    Stranger(
        "vae beta is not used",
        "variational",
        "AlexanderVNikitin/tsgm#69",
        "the loss takes a weight of the KL and adds the KL without it",
        lambda: vae(beta_ignored, numbers={"weight": 0.5}, penalty_weight=None),
        lambda: vae(beta_used, numbers={"weight": 0.5}, penalty_weight=None),
        causes=("unused_number",),
        lost="any",
        fact=weight_matters,
    ),
    Stranger(
        "vae decoder reads the true sequence",
        "variational",
        "molecularsets/moses#45",
        "a recurrent decoder gets the previous true step, which is enough: the latent is left at the prior",
        lambda: vae(elbo(sequence_error, summed_kl), lambda: TeacherForced(True), waves),
        lambda: vae(elbo(lambda made, x: 10 * sequence_error(made, x), summed_kl), lambda: TeacherForced(False), waves),
        causes=("bypass",),
        lost="any",
        fact=decoder_sees_rows,
    ),
    Stranger(
        "vae log-variance explodes",
        "variational",
        "vanderschaarlab/synthcity#331",
        "inputs are large and the log-variance has no bound: its exponential overflows in the first steps",
        lambda: vae(elbo(summed_error, summed_kl), rows=wide),
        lambda: vae(elbo(summed_error, summed_kl)),
        causes=("diverges", "outside_domain"),
        lost="any",
        output="any",
        fact=starts_beyond,
    ),
    Stranger(
        "vae variance taken for the deviation",
        "variational",
        "rachtsingh/ibp_vae#3",
        "the noise is scaled by the variance; the model learns as well with it, only the bound is wrong",
        lambda: vae(elbo(summed_error, summed_kl), lambda: Vae(scale=1.0)),
        lambda: vae(elbo(summed_error, summed_kl)),
        lost="any",
        harmless=True,
    ),
    Stranger(
        "vae KL averaged over units",
        "variational",
        "maxhodak/keras-molecules#59",
        "the KL is averaged over units instead of summed: a sixth of the weight, and no other effect",
        lambda: vae(elbo(summed_error, lambda mean, logvar: divergence(mean, logvar).mean())),
        lambda: vae(elbo(summed_error, summed_kl)),
        lost="any",
        harmless=True,
    ),
    Stranger(
        "vae samples in eval mode",
        "variational",
        "masato-ka/airc-rl-agent#43",
        "the noise is drawn in eval mode too: outputs differ between passes, and training is not touched",
        lambda: vae(elbo(summed_error, summed_kl), AlwaysSampling),
        lambda: vae(elbo(summed_error, summed_kl)),
        lost="any",
        harmless=True,
    ),
)
