"""Held-out examination, faults of the loss terms: written with their truth before the first run; constructed."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from held_out_codes import pair, reaches
from stranger import Observed, Stranger, case, clusters, linear
from torch import Tensor, nn
from variational import Vae, divergence, summed_error, summed_kl, vae

from harness import Case


class Categories(nn.Module):
    """One of 24 categories a row, drawn by Gumbel noise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.logits, self.out = nn.Linear(16, 48), nn.Linear(48, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction and probabilities."""
        logits = self.logits(F.relu(self.body(x)))
        p = logits.softmax(1)
        return self.out(F.gumbel_softmax(logits, tau=0.7) if self.training else p), p

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, p = self(x)
        return Observed(p, made)


class Autoencoder(nn.Module):
    """An autoencoder of 24 features whose code has an activation, and may be normalized over the batch."""

    def __init__(self, act: nn.Module, units: int = 8, norm: bool = False) -> None:
        super().__init__()
        self.encoder, self.act = nn.Linear(24, units), act
        self.norm = nn.BatchNorm1d(units, affine=False) if norm else nn.Identity()
        self.grow, self.out = nn.Linear(units, 32), nn.Linear(32, 24)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return reconstruction, code and the decoder's hidden values."""
        z = self.act(self.norm(self.encoder(x)))
        hidden = F.relu(self.grow(z))
        return self.out(hidden), z, hidden

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        made, z, _ = self(x)
        return Observed(z, made)


class Sparsemax(nn.Module):
    """Project every row on the simplex (Martins & Astudillo 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return shares that add up to 1, many of them 0."""
        ordered = x.sort(1, descending=True).values
        count = torch.arange(1, x.shape[1] + 1)
        total = ordered.cumsum(1)
        support = (1 + count * ordered > total).sum(1, keepdim=True)
        return F.relu(x - (total.gather(1, support - 1) - 1) / support)


class LearnedPrior(Vae):
    """A VAE whose prior has a mean and a log-variance of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.prior_mean, self.prior_logvar = nn.Parameter(0.3 * torch.ones(6)), nn.Parameter(torch.zeros(6))


class TwoViews(nn.Module):
    """An encoder with a projection head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 12))
        self.head = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 8))

    def forward(self, x: Tensor) -> Tensor:
        """Return projections."""
        return self.head(self.body(x))

    def observe(self, x: Tensor) -> Observed:
        """Return what the truth needs."""
        return Observed(self.body(x))


def squared(made: Tensor, x: Tensor) -> Tensor:
    """Return the error summed over features."""
    return (made - x).square().sum(1).mean()


def categorical(axis: int) -> Callable[..., dict[str, Tensor]]:
    """Return a loss with the divergence from equal categories, summed over this axis and averaged over the other."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, p = model(x)
        kl = p * (24 * p + 1e-8).log()
        return {"reconstruction": squared(made, x), "kl": 0.05 * kl.sum(axis).mean()}

    return losses


def mmd(cut: bool) -> Callable[..., dict[str, Tensor]]:
    """Return a loss with the maximum mean discrepancy between code and N(0, 1), of the code's `.data` if cut."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (-(a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2) / 16).exp().mean()

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, z, _ = model(x)
        code, prior = z.data if cut else z, torch.randn_like(z)
        distance = kernel(code, code) + kernel(prior, prior) - 2 * kernel(code, prior)
        return {"reconstruction": squared(made, x), "mmd": 20 * distance}

    return losses


def hidden_l1(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error and an L1 on the decoder's hidden values."""
    made, _, hidden = model(x)
    return {"reconstruction": squared(made, x), "sparsity": 0.01 * hidden.abs().sum(1).mean()}


def contractive(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error and the squared Jacobian of a sigmoid code in closed form."""
    made, z, _ = model(x)
    rows = model.encoder.weight.square().sum(1)
    return {"reconstruction": squared(made, x), "contraction": 0.1 * ((z * (1 - z)).square() * rows).sum(1).mean()}


def spread_hinge(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error and a hinge on every unit's deviation."""
    made, z, _ = model(x)
    return {"reconstruction": squared(made, x), "variance": F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()}


def orthogonality(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the error and the distance of the encoder's rows from an orthonormal set."""
    made, _, _ = model(x)
    weight = model.encoder.weight
    return {
        "reconstruction": squared(made, x),
        "orthogonality": 0.1 * (weight @ weight.t() - torch.eye(8)).square().sum(),
    }


def learned_prior(detach: bool) -> Callable[..., dict[str, Tensor]]:
    """Return a loss with the divergence from a learned prior."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, mean, logvar = model(x)
        center, width = model.prior_mean, model.prior_logvar
        if detach:
            center, width = center.detach(), width.detach()
        kl = 0.5 * (width - logvar + (logvar.exp() + (mean - center).square()) / width.exp() - 1)
        return {"reconstruction": summed_error(made, x), "kl": kl.sum(1).mean()}

    return losses


def free_bits(**bound: float) -> Callable[..., dict[str, Tensor]]:
    """Return a loss whose KL per unit is bounded."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, mean, logvar = model(x)
        return {"reconstruction": summed_error(made, x), "kl": divergence(mean, logvar).mean(0).clamp(**bound).sum()}

    return losses


def two_views(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return projections of two noisy copies."""
    return model(x + 0.3 * torch.randn_like(x)), model(x + 0.3 * torch.randn_like(x))


def alignment(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the squared distance of two views."""
    first, second = two_views(model, x)
    return {"alignment": (first - second).square().sum(1).mean()}


def info_nce(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return the cross-entropy of finding the other view in the batch."""
    first, second = (F.normalize(view, dim=1) for view in two_views(model, x))
    return {"contrast": F.cross_entropy(first @ second.t() / 0.2, torch.arange(len(x)))}


def annealed(whole: bool) -> Callable[..., dict[str, Tensor]]:
    """Return a loss whose KL weight rises over 200 steps, by integer division if `whole`."""

    def losses(model: nn.Module, x: Tensor, step: int) -> dict[str, Tensor]:
        made, mean, logvar = model(x)
        weight = step // 400 if whole else min(step / 200, 1.0)
        return {"reconstruction": summed_error(made, x), "kl": weight * summed_kl(mean, logvar)}

    return losses


def groups(axis: int) -> Callable[..., dict[str, Tensor]]:
    """Return a loss with the norms of groups of four units, taken over this axis."""

    def losses(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
        made, z, _ = model(x)
        norms = (z.reshape(len(z), 4, 4).square().sum(axis) + 1e-8).sqrt()
        return {"reconstruction": squared(made, x), "group": 0.02 * (norms.sum() if axis == 0 else norms.sum(1).mean())}

    return losses


def asked_mean(model: nn.Module, x: Tensor, rho: float) -> dict[str, Tensor]:
    """Return the error and the KL of every unit's mean from rho."""
    made, z, _ = model(x)
    mean = z.mean(0).clamp(1e-4, 1 - 1e-4)
    kl = rho * (rho / mean).log() + (1 - rho) * ((1 - rho) / (1 - mean)).log()
    return {"reconstruction": squared(made, x), "sparsity": 0.5 * kl.sum()}


def grows(term: str, factor: float) -> Callable[[Case, nn.Module, Tensor], bool]:
    """Return the fact that the term of twice the rows is this much larger."""

    def fact(case: Case, model: nn.Module, rows: Tensor) -> bool:
        with torch.no_grad():
            small, large = (float(case.losses(model, part)[term]) for part in (rows[:64], rows[:64].repeat(2, 1)))
        return large > factor * small

    return fact


def beyond_has_no_pull(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if a mean far from the prior gets no gradient of the KL."""
    del rows
    x = case.data()[:64]
    model.zero_grad()
    with torch.no_grad():
        model.mean.bias += 5.0
    case.losses(model, x)["kl"].backward()
    gone = float(model.mean.bias.grad.abs().max()) == 0
    with torch.no_grad():
        model.mean.bias -= 5.0
    return gone


def constant_is_least(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the objective of a constant projection is no higher than that of the trained model."""

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 8)

    name = case.objective
    with torch.no_grad():
        return float(case.losses(Constant(), rows[:64])[name]) <= float(case.losses(model, rows[:64])[name])


def kl_weight_stays_zero(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the KL is 0 at the last step."""
    return float(case.losses(model, rows[:64], step=299)["kl"]) == 0


def means_miss(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the units' means, which add up to 1, cannot all be rho."""
    del model, rows
    return abs(8 * case.numbers["rho"] - 1) > 0.01


def ae(
    losses: Callable[..., dict[str, Tensor]],
    act: Callable[[], nn.Module],
    units: int = 8,
    norm: bool = False,
    **more: object,
) -> Case:
    """Return a case of an autoencoder."""
    return case(lambda: Autoencoder(act(), units, norm), losses, linear, "encoder", reconstruction="out:0", **more)


STRANGERS: tuple[Stranger, ...] = (
    pair(
        "categorical KL summed over rows",
        "the divergence is summed over the rows and averaged over the categories: its weight grows with the batch",
        lambda: case(Categories, categorical(0), clusters, "logits", reconstruction="out:0"),
        lambda: case(Categories, categorical(1), clusters, "logits", reconstruction="out:0"),
        "depends_on_batch_size",
        lost="any",
        output="any",
        fact=grows("kl", 1.5),
    ),
    pair(
        "discrepancy of the code's data",
        "the discrepancy is taken of `z.data`, which has no graph",
        lambda: ae(mmd(True), nn.Identity),
        lambda: ae(mmd(False), nn.Identity),
        "no_gradient",
        fact=reaches("mmd", "encoder.weight"),
    ),
    pair(
        "sparsity of the decoder's hidden values",
        "the penalty that is meant for the code is taken of the decoder's hidden layer",
        lambda: ae(hidden_l1, nn.Sigmoid),
        lambda: ae(contractive, nn.Sigmoid),
        "wrong_layer",
        fact=lambda case, model, rows: "sparsity" in case.losses(model, rows[:8]),
    ),
    pair(
        "hinge on a normalized deviation",
        "the code is normalized over the batch, so its deviation is 1 and the hinge is 0 whatever the encoder does",
        lambda: ae(spread_hinge, nn.Identity, norm=True),
        lambda: ae(orthogonality, nn.Identity, norm=True),
        "zero_gradient",
        "negligible",
        fact=lambda case, model, rows: (
            float(case.losses(model.train(), rows[:64]).get("variance", torch.ones(()))) < 1e-3
        ),
    ),
    pair(
        "learned prior is detached",
        "the divergence reads the prior's parameters detached: they never move",
        lambda: vae(learned_prior(True), LearnedPrior),
        lambda: vae(learned_prior(False), LearnedPrior),
        "unreached_parameter",
        lost="any",
        fact=reaches("kl", "prior_mean"),
    ),
    pair(
        "free bits bound from above",
        "the KL per unit is clamped at most instead of at least: a unit above the bound is pulled no more",
        lambda: vae(free_bits(max=0.5)),
        lambda: vae(free_bits(min=0.1)),
        "escape",
        "zero_gradient",
        lost="any",
        fact=beyond_has_no_pull,
    ),
    pair(
        "alignment of views without a guard",
        "two views are pulled together and nothing keeps the rows apart: least at one constant projection",
        lambda: case(TwoViews, alignment, linear, "body.2", objective="alignment"),
        lambda: case(TwoViews, info_nce, linear, "body.2", objective="contrast"),
        "collapse_optimum",
        lost="any",
        output="",
        fact=constant_is_least,
    ),
    pair(
        "annealing by integer division",
        "the weight is steps // 400 in a training of 300 steps: 0 at every step",
        lambda: vae(annealed(True)),
        lambda: vae(annealed(False)),
        "zero_gradient",
        "no_gradient",
        lost="any",
        fact=kl_weight_stays_zero,
    ),
    pair(
        "group norm over the rows",
        "the norm of a group is taken over the rows instead of its units, and it grows with their number",
        lambda: ae(groups(0), nn.ReLU, 16),
        lambda: ae(groups(2), nn.ReLU, 16),
        "depends_on_batch_size",
        "wrong_axis",
        lost="any",
        output="any",
        fact=grows("group", 1.3),
    ),
    pair(
        "sparsemax code asked for 0.05",
        "the units of a sparsemax add up to 1, so the means of 8 units cannot be 0.05",
        lambda: ae(asked_mean, Sparsemax, numbers={"rho": 0.05}),
        lambda: ae(asked_mean, Sparsemax, numbers={"rho": 0.125}),
        "unreachable_target",
        lost="any",
        fact=means_miss,
    ),
)
