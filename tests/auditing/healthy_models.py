"""Healthy models of many kinds, each near the fault of a rule on rows, reach or training, and with none of them."""

import torch
import torch.nn.functional as F
from torch import nn

from harness import Case


def rows():
    draw = torch.Generator().manual_seed(3)
    return torch.tanh(torch.randn(320, 4, generator=draw) @ torch.randn(4, 12, generator=draw) / 2)


def tokens():
    draw = torch.Generator().manual_seed(4)
    first = torch.randint(0, 11, (320, 1), generator=draw)
    return (first + torch.arange(6)) % 11


def sequences():
    draw = torch.Generator().manual_seed(5)
    frequency, phase = (torch.rand(320, 1, generator=draw) for _ in range(2))
    return torch.sin((0.4 + 0.4 * frequency) * torch.arange(12) + 6.283 * phase)


class Autoencoder(nn.Module):
    """12-16-4-16-12 with a tanh code, made of parts that the variants replace."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.enc = nn.Linear(12, 16), nn.Linear(16, 4)
        self.dec, self.out = nn.Linear(4, 16), nn.Linear(16, 12)

    def encode(self, x):
        return torch.tanh(self.enc(F.relu(self.body(x))))

    def decode(self, z):
        return self.out(F.relu(self.dec(z)))

    def forward(self, x):
        z = self.encode(x)
        return z, self.decode(z)


def squared_error(model, x):
    return {"reconstruction": F.mse_loss(model(x)[1], x)}


def case(model, losses=squared_error, data=rows, bottleneck="enc", **more):
    return Case(model=model, data=data, losses=losses, bottleneck=bottleneck, **more)


class Vae(Autoencoder):
    def __init__(self):
        super().__init__()
        self.logvar = nn.Linear(16, 4)

    def forward(self, x):
        hidden = F.relu(self.body(x))
        mean, logvar = self.enc(hidden), self.logvar(hidden)
        drawn = mean + torch.randn_like(mean) * (logvar / 2).exp() if self.training else mean
        return self.decode(drawn), mean, logvar


def elbo(model, x):
    made, mean, logvar = model(x)
    divergence = -0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1).mean()
    return {"reconstruction": F.mse_loss(made, x), "kl": 1e-3 * divergence}


class Quantized(Autoencoder):
    """A codebook behind a straight-through step."""

    def __init__(self):
        super().__init__()
        self.book = nn.Parameter(torch.randn(16, 4) / 2)

    def nearest(self, code):
        return self.book[torch.cdist(code, self.book).argmin(1)]

    def forward(self, x):
        code = self.encode(x)
        nearest = self.nearest(code)
        return code, self.decode(code + (nearest - code).detach()), nearest


def quantizer_losses(model, x):
    code, made, nearest = model(x)
    return {
        "reconstruction": F.mse_loss(made, x),
        "codebook": F.mse_loss(nearest, code.detach()),
        "commitment": 0.25 * F.mse_loss(code, nearest.detach()),
    }


class AveragedBook(Quantized):
    """A codebook of moving averages, written by the forward pass; a parameter, or a buffer."""

    def __init__(self, buffer=True):
        super().__init__()
        if buffer:
            book = self.book.detach()
            del self.book
            self.register_buffer("book", book)

    def nearest(self, code):
        chosen = torch.cdist(code, self.book).argmin(1)
        if self.training:
            with torch.no_grad():
                hits = F.one_hot(chosen, 16).to(code.dtype)
                means = hits.T @ code / hits.sum(0).clamp(min=1)[:, None]
                self.book.data.lerp_(torch.where(hits.sum(0)[:, None] > 0, means, self.book), 0.05)
        return self.book[chosen]


def commitment_losses(model, x):
    code, made, nearest = model(x)
    return {"reconstruction": F.mse_loss(made, x), "commitment": 0.25 * F.mse_loss(code, nearest.detach())}


class Tied(Autoencoder):
    def decode(self, z):
        return self.out(F.relu(F.linear(z, self.enc.weight.T, self.dec.bias)))

    def __init__(self):
        super().__init__()
        bias = self.dec.bias
        self.dec = nn.Module()
        self.dec.bias = bias


class Normalized(Autoencoder):
    def __init__(self, **options):
        super().__init__()
        self.norm = nn.BatchNorm1d(16, **options)

    def encode(self, x):
        return torch.tanh(self.enc(F.relu(self.norm(self.body(x)))))


class Dropping(Autoencoder):
    def encode(self, x):
        return F.dropout(super().encode(x), 0.2, self.training)


class Attention(nn.Module):
    """Self-attention over the six tokens of a row, mean code, all tokens read from it."""

    def __init__(self):
        super().__init__()
        self.embedding, self.position = nn.Embedding(11, 16), nn.Parameter(torch.randn(6, 16) / 4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.enc, self.dec = nn.Linear(96, 8), nn.Linear(8, 66)

    def forward(self, x):
        states = self.embedding(x) + self.position
        states = states + self.attention(states, states, states, need_weights=False)[0]
        code = self.enc(states.flatten(1))
        return code, self.dec(torch.relu(code)).view(len(x), 6, 11)


def cross_entropy(model, x):
    return {"reconstruction": F.cross_entropy(model(x)[1].transpose(1, 2), x)}


class BatchAttention(Autoencoder):
    """Attention over the rows of a batch, by design."""

    def encode(self, x):
        z = super().encode(x)
        return z + 0.2 * torch.softmax(z @ z.T, 1) @ z


class BatchTopK(Autoencoder):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(16, 16), nn.Linear(16, 16)

    def encode(self, x):
        z = F.relu(self.enc(F.relu(self.body(x))))
        least = z.flatten().sort(descending=True).values[2 * len(z)]
        return z * (z >= least)


class Frozen(Autoencoder):
    def __init__(self):
        super().__init__()
        self.body.requires_grad_(False)
        self.enc.requires_grad_(False)

    def encode(self, x):
        return super().encode(x).detach()


def decoder_only(parameters):
    return torch.optim.Adam(list(parameters)[4:], lr=1e-3)


class Detached(Autoencoder):
    def encode(self, x):
        return super().encode(x).detach()


class Lora(Autoencoder):
    """Frozen weights beside a product of two factors, the second zero."""

    def __init__(self):
        super().__init__()
        self.body.requires_grad_(False)
        self.down, self.up = nn.Linear(12, 2, bias=False), nn.Linear(2, 16, bias=False)
        nn.init.zeros_(self.up.weight)

    def encode(self, x):
        return torch.tanh(self.enc(F.relu(self.body(x) + self.up(self.down(x)))))


class Rezero(Autoencoder):
    def __init__(self):
        super().__init__()
        self.branch, self.alpha = nn.Linear(16, 16), nn.Parameter(torch.zeros(()))

    def encode(self, x):
        hidden = F.relu(self.body(x))
        return torch.tanh(self.enc(hidden + self.alpha * F.relu(self.branch(hidden))))


class ZeroDecoder(Autoencoder):
    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.out.weight)


class ZeroEncoder(Autoencoder):
    """The last layer of the encoder is zero but for its bias, so the code starts constant."""

    def __init__(self):
        super().__init__()
        nn.init.zeros_(self.enc.weight)


class Contrastive(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.enc = nn.Linear(12, 32), nn.Linear(32, 8)

    def forward(self, x):
        return F.normalize(self.enc(F.relu(self.body(x))), dim=1)


def contrast(model, x, temperature):
    first, second = (model(x + 0.1 * torch.randn_like(x)) for _ in range(2))
    return {"contrast": F.cross_entropy(first @ second.T / temperature, torch.arange(len(x)))}


class Siamese(Contrastive):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))

    def forward(self, x):
        z = self.enc(F.relu(self.body(x)))
        return z, self.head(z)


def similarity(model, x):
    (z1, p1), (z2, p2) = (model(x + 0.1 * torch.randn_like(x)) for _ in range(2))
    pull = F.cosine_similarity(p1, z2.detach(), dim=1).mean() + F.cosine_similarity(p2, z1.detach(), dim=1).mean()
    return {"similarity": -pull / 2}


class Head(nn.Module):
    """A supervised net: the last entry of a row is its target."""

    def __init__(self):
        super().__init__()
        self.body, self.enc, self.head = nn.Linear(11, 16), nn.Linear(16, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.enc(F.relu(self.body(x[:, :11])))))


def regression(model, x):
    return {"error": F.mse_loss(model(x), x[:, 11:])}


class ProbeOnCode(Siamese):
    """A decoder that only watches the code, beside the declared objective."""

    def __init__(self):
        super().__init__()
        self.dec = nn.Linear(8, 12)

    def forward(self, x):
        z, p = super().forward(x)
        return z, p, self.dec(z.detach())


def watched_similarity(model, x):
    (z1, p1, made), (z2, p2, _) = (model(x + 0.1 * torch.randn_like(x)) for _ in range(2))
    pull = F.cosine_similarity(p1, z2.detach(), dim=1).mean() + F.cosine_similarity(p2, z1.detach(), dim=1).mean()
    return {"similarity": -pull / 2, "probe": F.mse_loss(made, x)}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.enc = nn.GRU(1, 16, 2, batch_first=True), nn.Linear(32, 4)
        self.dec, self.out = nn.Linear(4, 32), nn.Linear(32, 12)

    def forward(self, x):
        states = self.rnn(x.unsqueeze(2))[1].transpose(0, 1).reshape(len(x), -1)
        z = self.enc(states)
        return z, self.out(F.relu(self.dec(z)))


class TimeFirst(Recurrent):
    """A GRU whose rows are on the second axis, as it expects."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(1, 32)

    def forward(self, x):
        z = self.enc(self.rnn(x.T.unsqueeze(2))[1][0])
        return z, self.out(F.relu(self.dec(z)))


class FiniteScalar(Autoencoder):
    """Five levels a unit, rounded with a straight-through gradient."""

    def encode(self, x):
        z = 2 * super().encode(x)
        return z + (z.round() - z).detach()


def matched_distributions(model, x):
    made = model(x)[1]

    def kernel(first, second):
        return torch.exp(-(first[:, None] - second).pow(2).sum(2) / 12).mean()

    return {"reconstruction": kernel(made, made) + kernel(x, x) - 2 * kernel(made, x)}


def warm_up_after(steps):
    """A penalty whose weight is a keyword that nothing reads before so many steps."""

    def losses(model, x, strength):
        z, made = model(x)
        model.steps = getattr(model, "steps", 0) + 1
        terms = {"reconstruction": F.mse_loss(made, x), "l2": 1e-3 * z.pow(2).mean()}
        if model.steps > steps:
            terms["l2"] = terms["l2"] * strength
        return terms

    return losses


def free_bits(model, x, floor, margin=50.0):
    z, made = model(x)
    energy = z.pow(2).mean()
    return {
        "reconstruction": F.mse_loss(made, x),
        "energy": energy.clamp(min=floor) + 1e-3 * energy + F.relu(z.abs() - margin).mean(),
    }


def sharp_surrogate(model, x, sharpness):
    z, made = model(x)
    soft = torch.sigmoid(sharpness * z)
    hard = (z > 0).to(z.dtype)
    return {"reconstruction": F.mse_loss(made, x), "count": 1e-2 * (hard + soft - soft.detach()).mean()}


class SharedBook(Quantized):
    """A codebook that is looked up under a second name for the same numbers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(self.book.data)

    def nearest(self, code):
        return self.book[torch.cdist(code, self.table).argmin(1)]


class MeanTeacher(Siamese):
    """A teacher that starts as a copy of the student and follows it; its parameters are not frozen."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 8))
        self.teacher.load_state_dict(
            {f"{2 * i}.{k}": v for i, m in ((0, self.body), (1, self.enc)) for k, v in m.state_dict().items()}
        )

    def taught(self, x):
        with torch.no_grad():
            for mine, layer in ((self.teacher[0], self.body), (self.teacher[2], self.enc)):
                mine.weight.data.lerp_(layer.weight, 0.05)
                mine.bias.data.lerp_(layer.bias, 0.05)
            return self.teacher(x)


def taught_similarity(model, x):
    first, second = (x + 0.1 * torch.randn_like(x) for _ in range(2))
    return {"similarity": -F.cosine_similarity(model(first)[1], model.taught(second), dim=1).mean()}


class Averaging(Autoencoder):
    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(4))


def kept_for_the_next_step(model, x, decay):
    """A penalty towards an average that is updated after it was read."""
    z, made = model(x)
    penalty = 1e-2 * (z - model.average).pow(2).mean()
    model.average = (decay * model.average + (1 - decay) * z.mean(0)).detach()
    return {"reconstruction": F.mse_loss(made, x), "penalty": penalty}


def without_momentum(parameters):
    return torch.optim.SGD(list(parameters), lr=0.05)


HEALTHY = {
    "autoencoder": lambda: case(Autoencoder),
    "VAE": lambda: case(Vae, elbo, reconstruction="out:0"),
    "quantizer, straight-through": lambda: case(Quantized, quantizer_losses),
    "quantizer, averaged buffer": lambda: case(AveragedBook, commitment_losses),
    "quantizer, averaged parameter": lambda: case(lambda: AveragedBook(buffer=False), commitment_losses),
    "quantizer, codebook with two names": lambda: case(SharedBook, quantizer_losses),
    "tied weights": lambda: case(Tied),
    "batch norm": lambda: case(Normalized),
    "dropout": lambda: case(Dropping),
    "attention over tokens": lambda: case(Attention, cross_entropy, tokens),
    "frozen encoder": lambda: case(Frozen),
    "encoder not in the optimizer": lambda: case(Detached, optimizer=decoder_only),
    "LoRA": lambda: case(Lora),
    "ReZero": lambda: case(Rezero),
    "zero decoder": lambda: case(ZeroDecoder),
    "contrastive": lambda: case(Contrastive, contrast, numbers={"temperature": 0.2}, objective="contrast"),
    "SimSiam": lambda: case(Siamese, similarity, objective="similarity"),
    "supervised head": lambda: case(Head, regression, objective="error"),
    "decoder as a probe": lambda: case(ProbeOnCode, watched_similarity, objective="similarity", reconstruction="out:2"),
    "GRU": lambda: case(Recurrent, data=sequences),
    "GRU, time first": lambda: case(TimeFirst, data=sequences),
    "finite scalar quantization": lambda: case(FiniteScalar),
    "free bits and a margin": lambda: case(Autoencoder, free_bits, numbers={"floor": 3.0}),
    "number in the gradient alone": lambda: case(Autoencoder, sharp_surrogate, numbers={"sharpness": 4.0}),
    "number read after 100 steps": lambda: case(Autoencoder, warm_up_after(100), numbers={"strength": 3.0}),
    "number read after 1000 steps": lambda: case(Autoencoder, warm_up_after(1000), numbers={"strength": 3.0}),
    "mean teacher": lambda: case(MeanTeacher, taught_similarity, objective="similarity"),
    "number of the next step": lambda: case(Averaging, kept_for_the_next_step, numbers={"decay": 0.9}),
    "large steps": lambda: case(Autoencoder, optimizer=without_momentum),
}

NEAR_A_FAULT = {
    "zero encoder": (lambda: case(ZeroEncoder), "constant_at_birth"),
    "attention over the batch": (lambda: case(BatchAttention), "mixed_rows"),
    "top-k over the batch": (lambda: case(BatchTopK), "mixed_rows"),
    "batch statistics in eval mode": (lambda: case(lambda: Normalized(track_running_stats=False)), "mixed_rows"),
    "matched distributions": (lambda: case(Autoencoder, matched_distributions), "unpaired_rows"),
}
