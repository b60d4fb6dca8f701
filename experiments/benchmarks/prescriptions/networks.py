"""Small networks, losses and rows that the cases of this folder share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUNCTIONS = {"relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "leaky_relu": F.leaky_relu}


class Autoencoder(nn.Module):
    """20 features, a hidden layer, a code, a hidden layer, 20 features."""

    def __init__(self, units: int = 5, code: str = "relu", output: str = "", hidden: str = "relu") -> None:
        super().__init__()
        self.into, self.code = nn.Linear(20, 24), nn.Linear(24, units)
        self.back, self.out = nn.Linear(units, 24), nn.Linear(24, 20)
        self.hidden = FUNCTIONS[hidden]
        self.activation = FUNCTIONS.get(code, nn.Identity())
        self.last = FUNCTIONS.get(output, nn.Identity())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the code."""
        code = self.activation(self.code(self.hidden(self.into(x))))
        return self.last(self.out(self.hidden(self.back(code)))), code


class VAE(nn.Module):
    """A variational autoencoder of 20 features with 4 latents."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.log_variance = nn.Linear(20, 32), nn.Linear(32, 4), nn.Linear(32, 4)
        self.back, self.out = nn.Linear(4, 32), nn.Linear(32, 20)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction, the means and the log-variances."""
        hidden = F.relu(self.body(x))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        latent = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return self.out(F.relu(self.back(latent))), mean, log_variance


class SparseDictionary(nn.Module):
    """A sparse autoencoder with an overcomplete code."""

    def __init__(self, units: int = 48) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(20, units), nn.Linear(units, 20)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the code."""
        code = F.relu(self.encoder(x))
        return self.decoder(code), code


def squared_error(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error alone."""
    return {"reconstruction": F.mse_loss(model(batch)[0], batch)}


def with_l1(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error, and the mean absolute code."""
    output, code = model(batch)
    return {"reconstruction": F.mse_loss(output, batch), "l1": code.abs().mean()}


def with_kl(model: nn.Module, batch: Tensor, rho: float) -> dict[str, Tensor]:
    """Mean squared error, and the KL divergence of each unit's mean sigmoid from the target."""
    output, code = model(batch)
    mean = torch.sigmoid(code).mean(0)
    kl = rho * torch.log(rho / mean) + (1 - rho) * torch.log((1 - rho) / (1 - mean))
    return {"reconstruction": F.mse_loss(output, batch), "kl": kl.sum()}


def with_divergence(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Squared error summed over features, and the KL divergence of the posterior."""
    output, mean, log_variance = model(batch)
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1).mean()
    return {"reconstruction": (output - batch).pow(2).sum(1).mean(), "kl": kl}


def mixtures(rows: int = 1200) -> Tensor:
    """Five sources in 20 features, with zero mean."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 20, generator=generator)
    return torch.randn(rows, 5, generator=generator) @ mixing / 5**0.5


def positive() -> Tensor:
    """The same rows between 0 and 1."""
    return torch.sigmoid(mixtures())


def sparse_rows() -> Tensor:
    """Sparse sums of 40 directions in 20 features."""
    generator = torch.Generator().manual_seed(1)
    directions = F.normalize(torch.randn(40, 20, generator=generator), dim=1)
    active = torch.rand(1500, 40, generator=generator) < 0.05
    return (active * (0.5 + torch.rand(1500, 40, generator=generator))) @ directions
