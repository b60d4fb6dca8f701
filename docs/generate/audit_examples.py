"""An example of every rule of the audit: a faulty loss or model, as short as it can be, on one small autoencoder."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.code = nn.Linear(12, 16), nn.Linear(16, 4)
        self.hidden, self.output = nn.Linear(4, 16), nn.Linear(16, 12)

    def encode(self, x):
        return torch.sigmoid(self.code(torch.relu(self.encoder(x))))

    def decode(self, code):
        return self.output(torch.relu(self.hidden(code)))

    def forward(self, x):
        code = self.encode(x)
        return code, self.decode(code)


class ReluCode(Autoencoder):
    def encode(self, x):
        return torch.relu(self.code(torch.relu(self.encoder(x))))


def rows() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.tanh(torch.randn(320, 4, generator=generator) @ torch.randn(4, 12, generator=generator) / 2)


def kl(rho, mean):
    return (rho * torch.log(rho / mean) + (1 - rho) * torch.log((1 - rho) / (1 - mean))).sum()


def squared_error(model, batch):
    return {"reconstruction": F.mse_loss(model(batch)[1], batch)}


# Penalties: functions of the code of a batch, `[sample, unit]`


def no_gradient(code):
    return (code > 0.5).float().mean().item()


def zero_gradient(code):
    return torch.softmax(code, dim=1).sum(dim=1).mean()


def wrong_axis(code):
    return kl(0.05, code.mean(1)) / len(code)


def unreachable_target(code):  # of a ReLU code: the mean of its sigmoid is never below 0.5
    return kl(0.05, torch.sigmoid(code).mean(0))


def collapse_optimum(code):  # one divergence per entry: every entry is asked to be 0.05
    return kl(0.05, code) / len(code)


def unbounded(code):
    return -code.var(0).sum()


def escape(code):
    return code.clamp(max=3).mean()


def outside_domain(code):
    return torch.log(code.mean(0)).square().sum()


def dominates(code):
    return 1e4 * kl(0.05, code.mean(0))


def negligible(code):
    return 1e-8 * kl(0.05, code.mean(0))


def depends_on_batch_size(code):
    return 1e-3 * code.square().sum()


def edits_in_place(code):
    code[code > 0.5] = 1
    return code.mean()


# Losses


def misses_bottleneck(model, batch):  # the first layer's pre-activations, computed from its weights
    output = model(batch)[1]
    return {"reconstruction": F.mse_loss(output, batch), "l1": (batch @ model.encoder.weight.T).abs().mean()}


def wrong_layer(model, batch):
    output = model(batch)[1]
    return {"reconstruction": F.mse_loss(output, batch), "l1": torch.relu(model.encoder(batch)).mean()}


def not_the_code_in_use(model, batch):  # the decoder reads relu(z), the penalty reads z
    output = model(batch)[1]
    z = model.code(torch.relu(model.encoder(batch)))
    return {"reconstruction": F.mse_loss(output, batch), "l2": 0.01 * z.square().mean()}


def index_addressing(model, batch):
    layers = list(model.children())
    code = torch.sigmoid(layers[1](torch.relu(layers[0](batch))))
    return {"reconstruction": F.mse_loss(model(batch)[1], batch), "l1": code.mean()}


def unpaired_rows(model, batch):  # [sample, 1, feature] against [sample, feature]: all pairs of rows
    return {"reconstruction": (model(batch)[1][:, None] - batch).abs().mean()}


def unused_number(model, batch, rho):
    code, output = model(batch)
    return {"reconstruction": F.mse_loss(output, batch), "kl": 0.01 * kl(0.05, code.mean(0))}


# Models


class Vae(Autoencoder):  # the case names the mean, and not the log-variance
    def __init__(self):
        super().__init__()
        self.log_variance = nn.Linear(16, 4)

    def forward(self, x):
        hidden = torch.relu(self.encoder(x))
        mean, spread = self.code(hidden), (0.5 * self.log_variance(hidden)).exp()
        drawn = mean + torch.randn_like(mean) * spread
        return drawn, self.decode(drawn)


class OutputRange(Autoencoder):  # the data run from -1 to 1
    def decode(self, code):
        return torch.sigmoid(super().decode(code))


class SymmetricInit(Autoencoder):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.encoder.weight, 0.1)
        nn.init.zeros_(self.encoder.bias)


class DeadAtBirth(ReluCode):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.code.bias[:2], -9.0)


class Bypass(Autoencoder):
    def forward(self, x):
        code = self.encode(x)
        return code, self.decode(code) + x


class MixedRows(Autoencoder):  # a missing transpose
    def encode(self, x):
        return super().encode(x.T.reshape(len(x), -1))


class CutEncoder(Autoencoder):
    def encode(self, x):
        return super().encode(x).detach()


class UnreachedParameter(ReluCode):  # a threshold that is only compared with
    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.full((4,), 0.05))

    def encode(self, x):
        z = super().encode(x)
        return z * (z > self.threshold)


class ConstantAtBirth(Autoencoder):
    def __init__(self):
        super().__init__()
        nn.init.constant_(self.code.bias, 100.0)


def decoder_only(parameters):
    return torch.optim.Adam(list(parameters)[4:])


def one_more(parameters):
    return torch.optim.Adam([*parameters, nn.Parameter(torch.zeros(3))])


def huge_steps(parameters):
    return torch.optim.SGD(list(parameters), lr=1e4)


def with_offset() -> Tensor:
    return rows() + 3


@dataclass(frozen=True)
class AuditExample:
    """A case, what of it is shown, and its penalty as a function of the code where it has one."""

    case: Callable[[], harness.Case]
    shown: Any
    penalty: Callable[[Tensor], Any] | None = None
    training: bool = False


def of_penalty(
    penalty: Callable[[Tensor], Any], model: type[nn.Module] = Autoencoder, beta: float = 1.0, training: bool = False
) -> AuditExample:
    """An autoencoder with a penalty."""

    def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        code, output = model(batch)
        value = penalty(code)
        value = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=output.dtype)
        return {"reconstruction": F.mse_loss(output, batch), "penalty": beta * value}

    return AuditExample(lambda: harness.Case(model, rows, losses, "code"), penalty, penalty, training)


def of_loss(losses: Any, model: type[nn.Module] = Autoencoder, **more: Any) -> AuditExample:
    """An autoencoder with a loss."""
    return AuditExample(lambda: harness.Case(model, rows, losses, "code", **more), losses)


def of_model(model: Any, training: bool = False) -> AuditExample:
    """A faulty model with an ordinary loss."""
    return AuditExample(lambda: harness.Case(model, rows, squared_error, "code"), model, training=training)


def of_optimizer(optimizer: Any, training: bool = False) -> AuditExample:
    """An ordinary model with a faulty optimizer."""
    return AuditExample(
        lambda: harness.Case(Autoencoder, rows, squared_error, "code", optimizer=optimizer),
        optimizer,
        training=training,
    )


AUDIT_EXAMPLES: dict[str, AuditExample] = {
    "no_gradient": of_penalty(no_gradient),
    "zero_gradient": of_penalty(zero_gradient),
    "misses_bottleneck": of_loss(misses_bottleneck),
    "wrong_layer": of_loss(wrong_layer),
    "wrong_axis": of_penalty(wrong_axis),
    "not_the_code_in_use": of_loss(not_the_code_in_use, ReluCode),
    "unreachable_target": of_penalty(unreachable_target, ReluCode, beta=0.01),
    "collapse_optimum": of_penalty(collapse_optimum, beta=0.01),
    "pushes_active_units_down": of_penalty(unreachable_target, ReluCode, beta=0.01),
    "unbounded": of_penalty(unbounded, ReluCode, beta=0.01),
    "escape": of_penalty(escape, ReluCode, beta=0.01),
    "outside_domain": of_penalty(outside_domain, ReluCode, beta=0.01),
    "dominates": of_penalty(dominates),
    "negligible": of_penalty(negligible, training=True),
    "depends_on_batch_size": of_penalty(depends_on_batch_size),
    "index_addressing": of_loss(index_addressing),
    "edits_in_place": of_penalty(edits_in_place),
    "optimizer_misses_parameters": of_optimizer(decoder_only),
    "optimizer_extra_parameters": of_optimizer(one_more),
    "undeclared_posterior": of_model(Vae),
    "output_range": of_model(OutputRange),
    "symmetric_init": of_model(SymmetricInit),
    "dead_at_birth": of_model(DeadAtBirth),
    "input_offset": AuditExample(lambda: harness.Case(ReluCode, with_offset, squared_error, "code"), with_offset),
    "bypass": of_model(Bypass),
    "mixed_rows": of_model(MixedRows),
    "unpaired_rows": of_loss(unpaired_rows),
    "cut_encoder": of_model(CutEncoder),
    "unreached_parameter": of_model(UnreachedParameter, training=True),
    "unused_number": of_loss(unused_number, numbers={"rho": 0.05}),
    "constant_at_birth": of_model(ConstantAtBirth, training=True),
    "diverges": of_optimizer(huge_steps, training=True),
}
