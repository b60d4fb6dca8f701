"""Cases of many structures, each as its author might have written it: what the laws are checked on."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import harness


def rows_of(*shape, count=150, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    features = torch.Size(shape).numel()
    mixed = torch.randn(count, 4, generator=generator) @ torch.randn(4, features, generator=generator)
    return (0.5 * mixed + 0.1 * torch.randn(count, features, generator=generator)).view(count, *shape).to(dtype)


def missed(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}


def case(build, rows, bottleneck="code", losses=missed, batch_size=33, **others):
    train = {"epochs": 1, "batch_size": batch_size, "learning_rate": 1e-2}
    return harness.Case(build, lambda: rows, losses, bottleneck, train=train, **others), rows


class Layered(nn.Module):
    """Linear layers with something between them."""

    def __init__(self, features, hidden, units, activation, between=nn.Identity):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, hidden), between(hidden), activation())
        self.code, self.activation, self.again = nn.Linear(hidden, units), activation(), between(units)
        self.decoder = nn.Sequential(
            nn.Linear(units, hidden), between(hidden), activation(), nn.Linear(hidden, features)
        )

    def forward(self, rows):
        return self.decoder(self.activation(self.again(self.code(self.encoder(rows)))))


def layered(features, hidden, units, activation, between=nn.Identity, batch_size=33, dtype=torch.float32, **others):
    build = partial(Layered, features, hidden, units, activation, between)
    return case(build, rows_of(features, dtype=dtype), batch_size=batch_size, **others)


class Variational(nn.Module):
    """A code that is drawn, and a temperature that is learned."""

    def __init__(self):
        super().__init__()
        self.encoder, self.code, self.spread = nn.Linear(11, 13), nn.Linear(13, 3), nn.Linear(13, 3)
        self.decoder, self.temperature = nn.Linear(3, 11), nn.Parameter(torch.tensor(0.3))

    def forward(self, rows):
        hidden = F.gelu(self.encoder(rows), approximate="tanh")
        mean, logs = self.code(hidden), self.spread(hidden)
        drawn = mean + torch.exp(0.5 * logs) * torch.randn_like(mean)
        return self.decoder(drawn) * F.softplus(self.temperature), mean, logs


def evidence_bound(model, batch):
    made, mean, logs = model(batch)
    divergence = -0.5 * (1 + logs - mean.square() - logs.exp()).sum(-1).mean()
    return {"reconstruction": F.mse_loss(made, batch), "divergence": divergence, "sharp": torch.sigmoid(mean.std())}


class Convolutional(nn.Module):
    def __init__(self, activation=nn.SiLU):
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5)
        self.code, self.back = nn.Linear(60, 3), nn.Linear(3, 60)
        self.last, self.activation = nn.ConvTranspose2d(5, 2, 3, stride=2, padding=1), activation()

    def forward(self, rows):
        hidden = self.activation(self.norm(self.first(rows))).flatten(1)
        return self.last(self.activation(self.back(self.code(hidden).tanh())).view(-1, 5, 3, 4))


class Grouped(nn.Module):
    """Convolutions that are not taken over."""

    def __init__(self):
        super().__init__()
        self.wide, self.deep = nn.Conv1d(3, 6, 3, padding=1, groups=3), nn.Conv3d(1, 2, (1, 3, 3), padding=(0, 1, 1))
        self.norm, self.code, self.back = nn.GroupNorm(2, 6), nn.Linear(42, 5), nn.Linear(5, 21)

    def forward(self, rows):
        hidden = F.elu(self.norm(self.wide(rows)))
        return self.back(self.code(hidden.flatten(1)).sigmoid()).view(rows.shape) + self.deep(rows[:, None, None]).mean(
            (1, 2)
        )


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 3, 10, dropout=0.0, activation="gelu", batch_first=True)
        self.code, self.back = nn.Linear(30, 3), nn.Linear(3, 30)

    def forward(self, rows):
        return self.back(F.softplus(self.code(self.layer(rows).flatten(1)))).view(rows.shape)


class Looking(nn.Module):
    """Tokens, and a softmax over a vocabulary."""

    def __init__(self):
        super().__init__()
        self.table, self.code, self.back = nn.Embedding(9, 5), nn.Linear(35, 3), nn.Linear(3, 63)

    def forward(self, rows):
        return self.back(F.mish(self.code(self.table(rows).flatten(1)))).unflatten(1, (7, 9))


def guessed(model, batch):
    return {"reconstruction": F.cross_entropy(model(batch).flatten(0, 1), batch.flatten())}


BASIS = torch.linalg.qr(torch.randn(11, 11, generator=torch.Generator().manual_seed(3))).Q


def in_a_basis(model, batch):
    """What all members share is no parameter and no buffer."""
    made = model(batch)
    away = F.linear(made - batch, BASIS[:7])
    return {"reconstruction": away.square().mean(), "weighed": ((made @ BASIS[:, :3]).sigmoid() @ BASIS[0, :3]).mean()}


def decorrelating(model, batch):
    """Products of rows with rows, their logarithm, distances, singular values."""
    made = model(batch)
    code = model.code(model.encoder(batch))
    products = torch.cov(code.T) + 0.1 * torch.eye(code.shape[1])
    apart = torch.cdist(code, code + 1).mean()
    return {
        "reconstruction": F.mse_loss(made, batch),
        "volume": -torch.logdet(products),
        "apart": (-apart).exp(),
        "size": torch.linalg.svdvals(model.code.weight).sum(),
    }


def tokens():
    rows = torch.randint(9, (150, 7), generator=torch.Generator().manual_seed(1))
    return case(Looking, rows, losses=guessed)


def stepped(make):
    return layered(11, 20, 3, nn.SELU, optimizer=make)


# name -> a function that gives the case and its training rows
STRUCTURES = {
    "sigmoid 3": partial(layered, 11, 7, 3, nn.Sigmoid),
    "sigmoid 1": partial(layered, 1, 3, 1, nn.Sigmoid, batch_size=7),
    "relu 4": partial(layered, 100, 32, 4, nn.ReLU, batch_size=64),
    "relu 33": partial(layered, 33, 100, 33, nn.ReLU, batch_size=45),
    "elu 20": partial(layered, 33, 20, 5, nn.ELU, batch_size=45),
    "elu 2": partial(layered, 2, 5, 2, nn.ELU, batch_size=15),
    "softplus 7": partial(layered, 20, 33, 7, nn.Softplus, batch_size=51),
    "mish 11": partial(layered, 7, 11, 11, nn.Mish, batch_size=1),
    "silu 5": partial(layered, 5, 4, 5, nn.SiLU, batch_size=2),
    "gelu 3": partial(layered, 20, 100, 3, nn.GELU, batch_size=17),
    "tanh 100": partial(layered, 4, 11, 100, nn.Tanh, batch_size=31),
    "float64": partial(layered, 11, 20, 3, nn.ELU, dtype=torch.float64),
    "sigmoid 3 of float64": partial(layered, 7, 5, 3, nn.Sigmoid, dtype=torch.float64, batch_size=21),
    "batch norm": partial(layered, 11, 20, 3, nn.ReLU, nn.BatchNorm1d, batch_size=45),
    "batch norm of few": partial(layered, 7, 5, 1, nn.Sigmoid, nn.BatchNorm1d, batch_size=6),
    "layer norm": partial(layered, 20, 33, 5, nn.SiLU, nn.LayerNorm),
    "dropout": partial(layered, 11, 20, 3, nn.LogSigmoid, lambda _: nn.Dropout(0.3)),
    "sgd": partial(stepped, lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)),
    "adamw": partial(stepped, lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1)),
    "variational": partial(case, Variational, rows_of(11), losses=evidence_bound),
    "convolutional": partial(case, Convolutional, rows_of(2, 5, 7), batch_size=21),
    "grouped": partial(case, Grouped, rows_of(3, 7), batch_size=21),
    "attentive": partial(case, Attentive, rows_of(5, 6), batch_size=21),
    "tokens": tokens,
    "shared factors": partial(layered, 11, 20, 3, nn.ELU, losses=in_a_basis),
    "decorrelated": partial(layered, 11, 20, 7, nn.Tanh, losses=decorrelating, batch_size=45),
}
