"""Cases that a stranger might bring: models and losses of many kinds, each with what is true of it."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from harness import Case
from harness.penalties import bernoulli_kl_of_logits


def data() -> Tensor:
    draw = torch.Generator().manual_seed(1)
    factors = torch.randn(256, 4, generator=draw)
    return factors @ torch.randn(4, 12, generator=draw) / 2 + 0.1 * torch.randn(256, 12, generator=draw)


def images() -> Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.randn(128, 1, 8, 8, generator=draw)


class Plain(nn.Module):
    """12-16-4-16-12; the code's activation is chosen; returns code and reconstruction."""

    def __init__(self, activation=torch.relu, norm: bool = False, skip: bool = False, units: int = 4) -> None:
        super().__init__()
        self.enc1, self.enc2 = nn.Linear(12, 16), nn.Linear(16, units)
        self.bn = nn.BatchNorm1d(units, affine=False) if norm else nn.Identity()
        self.dec1, self.dec2 = nn.Linear(units, 16), nn.Linear(16, 12)
        self.activation, self.skip = activation, skip
        for layer in (self.enc1, self.enc2, self.dec1, self.dec2):
            nn.init.zeros_(layer.bias)
        self.saved = {}
        self.enc2.register_forward_hook(self._save)

    def _save(self, module, args, output) -> None:
        self.saved["raw"] = output

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.hidden = torch.relu(self.enc1(x))
        self.pre = self.bn(self.enc2(self.hidden))
        self.code = self.activation(self.pre)
        out = self.dec2(torch.relu(self.dec1(self.code)))
        return self.code, out + x if self.skip else out


def kl(rho: float, mean: Tensor) -> Tensor:
    return (rho * torch.log(rho / mean) + (1 - rho) * torch.log((1 - rho) / (1 - mean))).sum()


def losses_of(penalty):
    """Mean squared error and `penalty(model, code, batch)`."""

    def losses(model, batch):
        code, out = model(batch)
        return {"reconstruction": F.mse_loss(out, batch), "penalty": penalty(model, code, batch)}

    return losses


def case_of(penalty, model=Plain, beta: float = 0.01, **more) -> Case:
    losses = losses_of(penalty) if penalty is not None else lambda m, b: {"reconstruction": F.mse_loss(m(b)[1], b)}
    return Case(model=model, data=data, losses=losses, bottleneck="enc2", numbers={"beta": beta}, **more)


def sigmoid_model() -> Plain:
    return Plain(torch.sigmoid)


def linear_model() -> Plain:
    return Plain(lambda values: values)


def normed_model() -> Plain:
    return Plain(torch.relu, norm=True)


def straight_through(m, code, b):
    soft = torch.sigmoid(10 * code - 1)
    hard = (code > 0.1).to(code.dtype)
    return (hard + soft - soft.detach()).mean()


def contractive(m, code, b):
    rows = b.clone().requires_grad_(True)
    code = m(rows)[0]
    total = 0.0
    for unit in range(code.shape[1]):
        (slope,) = torch.autograd.grad(code[:, unit].sum(), rows, create_graph=True)
        total = total + slope.pow(2).sum() / len(rows)
    return total


def vicreg(m, code, b):
    deviation = (code.var(0) + 1e-4).sqrt()
    centred = code - code.mean(0)
    covariance = centred.T @ centred / (len(code) - 1)
    return F.relu(1 - deviation).mean() + (covariance - torch.diag(covariance.diag())).pow(2).sum() / code.shape[1]


def load_balance(m, code, b):
    shares = torch.softmax(code, 1).mean(0)
    return (shares * torch.log(shares * code.shape[1])).sum()


class TopK(Plain):
    def __init__(self) -> None:
        super().__init__(lambda v: torch.relu(v) * (v >= v.topk(2, dim=1).values[:, -1:]).to(v.dtype))


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mu, self.logvar = nn.Linear(12, 16), nn.Linear(16, 3), nn.Linear(16, 3)
        self.decoder = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 12))

    def forward(self, x):
        hidden = F.relu(self.body(x))
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return self.decoder(z), mu, logvar, z


def vae_losses(model, batch):
    out, mu, logvar, _ = model(batch)
    kl = -0.5 * torch.mean(torch.sum(1 + logvar - mu**2 - logvar.exp(), dim=1))
    return {"reconstruction": F.mse_loss(out, batch), "kl": kl}


def vae_case(bottleneck: str = "mu") -> Case:
    return Case(
        model=Vae, data=data, losses=vae_losses, bottleneck=bottleneck, reconstruction="out:0", numbers={"beta": 0.01}
    )


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, 2, 1), nn.Sigmoid())
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2), nn.ReLU(), nn.ConvTranspose2d(6, 1, 2, 2))

    def forward(self, x):
        return self.decoder(self.encoder(x))


def convolutional_case(dims) -> Case:
    def losses(model, batch):
        code = model.encoder(batch)
        mean = code.mean(dims)
        return {"reconstruction": F.mse_loss(model.decoder(code), batch), "penalty": kl(0.05, mean) / mean.numel()}

    return Case(model=Convolutional, data=images, losses=losses, bottleneck="encoder.2", numbers={"beta": 0.1})


class LossInAClass:
    def __init__(self, rho: float) -> None:
        self.rho = rho

    def __call__(self, model, batch):
        code, out = model(batch)
        return {"reconstruction": F.mse_loss(out, batch), "penalty": kl(self.rho, code.mean(0))}


def denoising(model, batch):
    _, out = model(batch + 0.1 * torch.randn_like(batch))
    code, _ = model(batch)
    return {"reconstruction": F.mse_loss(out, batch), "penalty": kl(0.1, code.mean(0))}


def mmd(m, c, b):
    """Maximum mean discrepancy of the code and a normal draw, RBF kernel (Tolstikhin et al. 2018): 0 to 2."""
    prior = torch.randn_like(c)

    def kernel(first, second):
        return torch.exp(-torch.cdist(first, second).pow(2) / 8).mean()

    return kernel(c, c) + kernel(prior, prior) - 2 * kernel(c, prior)


class Averaging(Plain):
    """A running average of each unit's activity, as a buffer."""

    def __init__(self) -> None:
        super().__init__(torch.sigmoid)
        self.register_buffer("average", torch.full((4,), 0.5))


class AveragingOutside(Plain):
    """The same in a plain attribute."""

    def __init__(self) -> None:
        super().__init__(torch.sigmoid)
        self.average = torch.full((4,), 0.5)


def average_assigned(m, c, b):
    average = 0.9 * m.average + 0.1 * c.mean(0)
    m.average = average.detach()
    return kl(0.05, average)


def average_written_into(m, c, b):
    average = 0.9 * m.average + 0.1 * c.mean(0)
    m.average.copy_(average.detach())
    return kl(0.05, average)


def own_case(losses, model=sigmoid_model, **more) -> Case:
    return Case(model=model, data=data, losses=losses, bottleneck="enc2", numbers={"beta": 0.01}, **more)


HONEST = {
    "no penalty": lambda: case_of(None),
    "KL of a sigmoid code over the batch": lambda: case_of(lambda m, c, b: kl(0.05, c.mean(0)), sigmoid_model),
    "KL of the sigmoid, computed again": lambda: case_of(
        lambda m, c, b: kl(0.05, torch.sigmoid(m.pre).mean(0)), sigmoid_model
    ),
    "KL of a sigmoid code from its logits": lambda: case_of(
        lambda m, c, b: bernoulli_kl_of_logits(0.05, m.pre), sigmoid_model
    ),
    "KL of a sigmoid code from a hooked output": lambda: case_of(
        lambda m, c, b: bernoulli_kl_of_logits(0.05, m.saved["raw"]), sigmoid_model
    ),
    "distance of a sigmoid's mean, from its logits": lambda: case_of(
        lambda m, c, b: (torch.logsumexp(F.logsigmoid(m.pre), 0) - math.log(len(b)) - math.log(0.05)).pow(2).sum(),
        sigmoid_model,
    ),
    "KL of a clamped sigmoid mean": lambda: case_of(
        lambda m, c, b: kl(0.05, c.mean(0).clamp(1e-6, 1 - 1e-6)), sigmoid_model
    ),
    "squared distance to a target": lambda: case_of(lambda m, c, b: (c.mean(0) - 0.1).pow(2).sum(), sigmoid_model),
    "L1 of a ReLU code": lambda: case_of(lambda m, c, b: c.abs().mean()),
    "L1, summed over units": lambda: case_of(lambda m, c, b: c.abs().sum(1).mean()),
    "L2 of a linear code": lambda: case_of(lambda m, c, b: c.pow(2).mean(), linear_model),
    "L2,1 of rows": lambda: case_of(lambda m, c, b: (c.pow(2).sum(1) + 1e-12).sqrt().mean()),
    "L2,1 of units": lambda: case_of(lambda m, c, b: (c.pow(2).mean(0) + 1e-12).sqrt().sum()),
    "Hoyer of rows": lambda: case_of(lambda m, c, b: (c.abs().sum(1) / (c.pow(2).sum(1).sqrt() + 1e-6)).mean()),
    "top-k": lambda: case_of(None, TopK),
    "straight-through count": lambda: case_of(straight_through),
    "contractive, double backward": lambda: case_of(contractive),
    "contractive, sigmoid": lambda: case_of(contractive, sigmoid_model),
    "variance and covariance": lambda: case_of(vicreg, linear_model),
    "orthogonal code": lambda: case_of(lambda m, c, b: (c.T @ c / len(c) - torch.eye(4)).pow(2).mean(), linear_model),
    "orthogonal weights": lambda: case_of(
        lambda m, c, b: (m.dec1.weight.T @ m.dec1.weight - torch.eye(4)).pow(2).mean()
    ),
    "weight decay": lambda: case_of(lambda m, c, b: sum(p.pow(2).sum() for p in m.parameters())),
    "entropy of a softmax": lambda: case_of(
        lambda m, c, b: -(F.softmax(c, 1) * F.log_softmax(c, 1)).sum(1).mean(), linear_model
    ),
    "load balancing": lambda: case_of(load_balance, linear_model),
    "log penalty": lambda: case_of(lambda m, c, b: torch.log1p(c.pow(2)).mean()),
    "VAE, judged at mu": vae_case,
    "VAE, judged at logvar": lambda: vae_case("logvar"),
    "VAE, judged at the second output": lambda: vae_case("out:1"),
    "VAE, judged at the drawn code": lambda: vae_case("out:3"),
    "convolution, per unit": lambda: convolutional_case(0),
    "convolution, per channel": lambda: convolutional_case((0, 2, 3)),
    "a loss in a class": lambda: own_case(LossInAClass(0.05)),
    "a loss that calls the model twice": lambda: own_case(denoising),
    "a penalty on an attribute": lambda: case_of(lambda m, c, b: kl(0.05, m.code.mean(0)), sigmoid_model),
    "a penalty on a hook": lambda: case_of(
        lambda m, c, b: kl(0.05, torch.sigmoid(m.saved["raw"]).mean(0)), sigmoid_model
    ),
    "L1 behind batch norm": lambda: case_of(lambda m, c, b: c.mean(), normed_model),
    "MMD of a linear code": lambda: case_of(mmd, linear_model),
    "KL of a running average, assigned": lambda: case_of(average_assigned, Averaging),
    "KL of a running average, written into its buffer": lambda: case_of(average_written_into, Averaging),
    "KL of a running average in an attribute": lambda: case_of(average_assigned, AveragingOutside),
    "KL on every layer": lambda: case_of(
        lambda m, c, b: kl(0.05, c.mean(0)) + kl(0.2, torch.sigmoid(m.hidden).mean(0)), sigmoid_model
    ),
}


class ReluOutput(Plain):
    def forward(self, x):
        code, out = super().forward(x)
        return code, torch.relu(out)


class Symmetric(Plain):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.enc2.weight, 0.1)


class Unread(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(12, 4)

    def forward(self, x):
        code, _ = super().forward(x)
        return code, self.dec2(torch.relu(self.dec1(self.other(x))))


class DeadBirth(Plain):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.enc2.bias, -5.0)


def offset_data() -> Tensor:
    return data() + 10


class OffsetBiased(Plain):
    def __init__(self) -> None:
        super().__init__()
        for layer in (self.enc1, self.enc2):
            layer.reset_parameters()


def normalises_weights(model, batch):
    with torch.no_grad():
        model.dec1.weight.div_(1.01)
    _, out = model(batch)
    return {"reconstruction": F.mse_loss(out, batch)}


def clips_the_batch(model, batch):
    batch.clamp_(min=0)
    return {"reconstruction": F.mse_loss(model(batch)[1], batch)}


def overwrites_code(model, batch):
    code, out = model(batch)
    with torch.no_grad():
        code[code > 0] = 1
    return {"reconstruction": F.mse_loss(out, batch)}


def by_position(model, batch):
    _, out = model(batch)
    layers = list(model.children())
    hidden = torch.relu(layers[0](batch))
    return {"reconstruction": F.mse_loss(out, batch), "penalty": torch.relu(layers[1](hidden)).mean()}


def summed(model, batch):
    code, out = model(batch)
    return {"reconstruction": F.mse_loss(out, batch, reduction="sum"), "penalty": code.sum()}


def detached_reconstruction(model, batch):
    code, out = model(batch)
    return {"reconstruction": F.mse_loss(out, batch).detach(), "penalty": code.mean()}


def two_optimizers(parameters):
    return torch.optim.Adam(list(parameters)[:2])


def other_model(parameters):
    return torch.optim.Adam([*parameters, nn.Parameter(torch.zeros(3))])


def sig(values: Tensor) -> Tensor:
    return torch.sigmoid(values)


# name -> (case, rules that must be found, all other rules that may be found)
PLANTED = {
    "item": (lambda: case_of(lambda m, c, b: c.mean().item()), {"no_gradient"}),
    "detached": (lambda: case_of(lambda m, c, b: kl(0.05, c.detach().mean(0)), sigmoid_model), {"no_gradient"}),
    "count": (lambda: case_of(lambda m, c, b: (c > 0).sum(0).float().mean() / len(b)), {"no_gradient"}),
    "numpy": (lambda: case_of(lambda m, c, b: torch.as_tensor(c.detach().numpy().mean())), {"no_gradient"}),
    "reconstruction detached": (lambda: own_case(detached_reconstruction), {"no_gradient"}),
    "sign": (lambda: case_of(lambda m, c, b: torch.sign(c).mean()), {"zero_gradient"}),
    "rounding": (lambda: case_of(lambda m, c, b: c.round().mean(), sigmoid_model), {"zero_gradient"}),
    "layer before": (lambda: case_of(lambda m, c, b: m.hidden.abs().mean()), {"misses_bottleneck", "wrong_layer"}),
    "layer after": (lambda: case_of(lambda m, c, b: m.dec1(c).abs().mean()), {"wrong_layer"}),
    "output in place of the code": (lambda: case_of(lambda m, c, b: m(b)[1].abs().mean()), {"wrong_layer"}),
    "mean over units": (lambda: case_of(lambda m, c, b: kl(0.05, c.mean(1)) / len(b), sigmoid_model), {"wrong_axis"}),
    "mean over units, from logits": (
        lambda: case_of(lambda m, c, b: bernoulli_kl_of_logits(0.05, m.pre.T) / len(b), sigmoid_model),
        {"wrong_axis"},
    ),
    "squares over units": (
        lambda: case_of(lambda m, c, b: (c.mean(1) - 0.1).pow(2).mean(), sigmoid_model),
        {"wrong_axis"},
    ),
    "mean over channels": (lambda: convolutional_case((1,)), {"wrong_axis"}),
    "mean over an image": (lambda: convolutional_case((1, 2, 3)), {"wrong_axis"}),
    "sigmoid of the pre-activation": (
        lambda: case_of(lambda m, c, b: kl(0.05, sig(m.pre).mean(0))),
        {"not_the_code_in_use"},
    ),
    "sigmoid of a hooked output": (
        lambda: case_of(lambda m, c, b: kl(0.05, sig(m.saved["raw"]).mean(0))),
        {"not_the_code_in_use"},
    ),
    "squares of a sigmoid code's logits": (
        lambda: case_of(lambda m, c, b: m.pre.pow(2).mean(), sigmoid_model),
        {"not_the_code_in_use"},
    ),
    "mean of a sigmoid code's logits": (
        lambda: case_of(lambda m, c, b: (m.pre.mean(0) + 3).pow(2).sum(), sigmoid_model),
        {"not_the_code_in_use"},
    ),
    "KL from logits before batch norm": (
        lambda: case_of(
            lambda m, c, b: bernoulli_kl_of_logits(0.05, m.saved["raw"]), lambda: Plain(torch.sigmoid, norm=True)
        ),
        {"not_the_code_in_use"},
    ),
    "before batch norm": (
        lambda: case_of(lambda m, c, b: m.saved["raw"].abs().mean(), normed_model),
        {"not_the_code_in_use"},
    ),
    "sigmoid of ReLU": (
        lambda: case_of(lambda m, c, b: kl(0.05, sig(c).mean(0))),
        {"unreachable_target", "collapse_optimum", "pushes_active_units_down"},
    ),
    "sigmoid of ReLU, one unit": (
        lambda: case_of(lambda m, c, b: kl(0.05, sig(c).mean(0)), lambda: Plain(units=1)),
        {"unreachable_target", "collapse_optimum", "pushes_active_units_down"},
    ),
    "target above a sigmoid": (
        lambda: case_of(lambda m, c, b: (c.mean(0) - 1.5).pow(2).sum(), sigmoid_model),
        {"unreachable_target"},
    ),
    "sigmoid behind batch norm": (
        lambda: case_of(lambda m, c, b: kl(0.05, c.mean(0)), lambda: Plain(torch.sigmoid, norm=True)),
        {"unreachable_target"},
    ),
    "sigmoid behind batch norm, from its logits": (
        lambda: case_of(lambda m, c, b: bernoulli_kl_of_logits(0.05, m.pre), lambda: Plain(torch.sigmoid, norm=True)),
        {"unreachable_target"},
    ),
    "KL of a ReLU mean": (lambda: case_of(lambda m, c, b: kl(0.05, c.mean(0))), {"outside_domain"}),
    "log of a ReLU": (lambda: case_of(lambda m, c, b: torch.log(c.mean(0)).sum()), {"outside_domain"}),
    "divergence of no probabilities": (
        lambda: case_of(lambda m, c, b: F.kl_div(c, torch.full_like(c, 0.05), reduction="batchmean"), linear_model),
        {"unbounded"},
    ),
    "negative variance": (lambda: case_of(lambda m, c, b: -c.var(0).mean(), linear_model), {"unbounded"}),
    "clamped mean": (lambda: case_of(lambda m, c, b: kl(0.05, c.mean(0).clamp(1e-3, 1 - 1e-3))), {"escape"}),
    "clamped values": (lambda: case_of(lambda m, c, b: c.clamp(max=1).mean()), {"escape"}),
    "heavy": (lambda: case_of(lambda m, c, b: c.abs().sum() * 1e6), {"dominates", "depends_on_batch_size"}),
    "light": (lambda: case_of(lambda m, c, b: c.abs().mean(), beta=1e-12), {"negligible"}),
    "sum over rows": (lambda: own_case(summed), {"depends_on_batch_size"}),
    "weights edited": (lambda: own_case(normalises_weights), {"edits_in_place"}),
    "batch edited": (lambda: own_case(clips_the_batch), {"edits_in_place"}),
    "code overwritten": (lambda: own_case(overwrites_code), {"edits_in_place"}),
    "optimizer of two": (lambda: case_of(None, optimizer=two_optimizers), {"optimizer_misses_parameters"}),
    "optimizer of more": (lambda: case_of(None, optimizer=other_model), {"optimizer_extra_parameters"}),
    "ReLU output": (lambda: case_of(None, ReluOutput), {"output_range"}),
    "equal weights": (lambda: case_of(None, Symmetric), {"symmetric_init"}),
    "dead at birth": (lambda: case_of(None, DeadBirth), {"dead_at_birth"}),
    "skip": (lambda: case_of(None, lambda: Plain(skip=True)), {"bypass"}),
    "unread code": (lambda: case_of(None, Unread), {"bypass"}),
    "position": (lambda: own_case(by_position, Plain), {"index_addressing"}),
    "offset inputs": (
        lambda: Case(model=OffsetBiased, data=offset_data, losses=case_of(None).losses, bottleneck="enc2"),
        {"input_offset"},
    ),
}
