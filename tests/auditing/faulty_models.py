"""Models with one planted fault each: rows that are mixed, an encoder that is cut off, numbers that nothing reads, ..."""

import torch
import torch.nn.functional as F
from healthy_models import Autoencoder, Head, Quantized, Recurrent, case, rows, sequences, squared_error
from torch import nn

from harness import Case


def images():
    return rows()[:, :9].reshape(-1, 1, 3, 3)


class TransposedRows(Autoencoder):
    """Features first, then reshaped back without a transpose."""

    def encode(self, x):
        return super().encode(x.T.reshape(len(x), -1))


class ViewedStates(Recurrent):
    """The last states of a bidirectional GRU, `[2, sample, unit]`, viewed as `[sample, 2 unit]`."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(1, 16, bidirectional=True, batch_first=True)

    def forward(self, x):
        z = self.enc(self.rnn(x.unsqueeze(2))[1].view(len(x), -1))
        return z, self.out(F.relu(self.dec(z)))


class RolledRows(Autoencoder):
    """A shift over the rows where one over the features was meant."""

    def encode(self, x):
        return super().encode(x.roll(1, 0))


def column_against_vector(model, x):
    return {"error": (model(x) - x[:, 11]).pow(2).mean()}


class ImageAutoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(9, 4), nn.Linear(4, 9)

    def forward(self, x):
        z = torch.tanh(self.enc(x.flatten(1)))
        return z, self.dec(z).view(-1, 3, 3)


def absolute_error(model, x):
    return {"reconstruction": (model(x)[1] - x).abs().mean()}


def all_pairs(model, x):
    return {"reconstruction": torch.cdist(model(x)[1], x).mean()}


class DetachedCode(Autoencoder):
    def encode(self, x):
        return super().encode(x).detach()


class NoGradientCode(Autoencoder):
    def encode(self, x):
        with torch.no_grad():
            return super().encode(x)


class RoundedCode(Autoencoder):
    """Levels without a straight-through gradient."""

    def encode(self, x):
        return torch.round(4 * super().encode(x)) / 4


class HardQuantizer(Quantized):
    """The decoder reads the codebook itself; the commitment term alone trains the encoder."""

    def forward(self, x):
        code = self.encode(x)
        nearest = self.nearest(code)
        return code, self.decode(nearest), nearest


def commitment(model, x):
    code, made, nearest = model(x)
    return {"reconstruction": F.mse_loss(made, x), "commitment": F.mse_loss(code, nearest.detach())}


class UntrainedBook(Quantized):
    """The codebook term is taken on the straight-through output."""

    def forward(self, x):
        code = self.encode(x)
        through = code + (self.nearest(code) - code).detach()
        return code, self.decode(through), through


def misplaced_codebook_term(model, x):
    code, made, through = model(x)
    return {"reconstruction": F.mse_loss(made, x), "codebook": 0.1 * F.mse_loss(through, code.detach())}


class LearnedThreshold(Autoencoder):
    """A threshold that is only compared with."""

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.full((4,), 0.05))

    def encode(self, x):
        z = super().encode(x)
        return z * (z > self.threshold)


class DetachedBody(Autoencoder):
    """The first layer is cut off, the bottleneck's layer is trained."""

    def encode(self, x):
        return torch.tanh(self.enc(F.relu(self.body(x)).detach()))


def never_read(model, x, rho):
    return squared_error(model, x)


def helper(code, target):
    return code.pow(2).mean()


def passed_and_ignored(model, x, rho):
    z, made = model(x)
    return {"reconstruction": F.mse_loss(made, x), "penalty": 1e-2 * helper(z, rho)}


def with_a_default(model, x, margin=0.5):
    return squared_error(model, x)


class Saturated(Autoencoder):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.enc.bias, 100.0)


class WrongUnits(Autoencoder):
    """Inputs in units that make them vanish beside the biases."""

    def encode(self, x):
        return super().encode(1e-12 * x)


def huge_steps(parameters):
    return torch.optim.SGD(list(parameters), lr=1e4)


def logarithm_of_what_is_left(model, x):
    model.steps = getattr(model, "steps", 0) + 1
    z, made = model(x)
    left = 80.0 - model.steps
    return {"reconstruction": F.mse_loss(made, x), "decay": 1e-2 * torch.log(z.pow(2).mean() * left)}


def root_at_zero(model, x):
    model.steps = getattr(model, "steps", 0) + 1
    z, made = model(x)
    weight = max(0.0, 1 - model.steps / 100)
    return {"reconstruction": F.mse_loss(made, x), "root": 1e-2 * torch.sqrt(weight * z.pow(2).mean())}


def image_case(losses):
    return Case(model=ImageAutoencoder, data=images, losses=losses, bottleneck="enc")


FAULTY = {
    "features first": ("mixed_rows", lambda: case(TransposedRows)),
    "states viewed": ("mixed_rows", lambda: case(ViewedStates, data=sequences)),
    "rows rolled": ("mixed_rows", lambda: case(RolledRows)),
    "column against vector": (
        "unpaired_rows",
        lambda: case(Head, column_against_vector, objective="error", reconstruction="out:0"),
    ),
    "images without a channel": ("unpaired_rows", lambda: image_case(absolute_error)),
    "all pairs": ("unpaired_rows", lambda: case(Autoencoder, all_pairs)),
    "code detached": ("cut_encoder", lambda: case(DetachedCode)),
    "code without a graph": ("cut_encoder", lambda: case(NoGradientCode)),
    "code rounded": ("cut_encoder", lambda: case(RoundedCode)),
    "hard quantizer": ("cut_encoder", lambda: case(HardQuantizer, commitment)),
    "codebook term misplaced": ("unreached_parameter", lambda: case(UntrainedBook, misplaced_codebook_term)),
    "learned threshold": ("unreached_parameter", lambda: case(LearnedThreshold)),
    "first layer detached": ("unreached_parameter", lambda: case(DetachedBody)),
    "number never read": ("unused_number", lambda: case(Autoencoder, never_read, numbers={"rho": 0.05})),
    "number ignored by a helper": (
        "unused_number",
        lambda: case(Autoencoder, passed_and_ignored, numbers={"rho": 0.05}),
    ),
    "default never read": ("unused_number", lambda: case(Autoencoder, with_a_default)),
    "saturated": ("constant_at_birth", lambda: case(Saturated)),
    "inputs in other units": ("constant_at_birth", lambda: case(WrongUnits)),
    "huge steps": ("diverges", lambda: case(Autoencoder, optimizer=huge_steps)),
    "logarithm of a negative number": ("diverges", lambda: case(Autoencoder, logarithm_of_what_is_left)),
    "root at zero": ("diverges", lambda: case(Autoencoder, root_at_zero)),
}
