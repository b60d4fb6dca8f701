"""A case file as anybody writes one: an ordinary model, an ordinary loss, one `harness.Case`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 6))
        self.decoder = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 24))

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(F.relu(self.encoder(x)))


def losses(model: Denoiser, batch: Tensor) -> dict[str, Tensor]:
    code = F.relu(model.encoder(batch))
    return {"reconstruction": F.mse_loss(model.decoder(code), batch), "l1": code.abs().mean()}


def waves() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(3, (1500,), generator=generator)
    phase = torch.rand(1500, 1, generator=generator) * 6.2832
    time = torch.linspace(0, 6.2832, 24)
    noise = 0.1 * torch.randn(1500, 24, generator=generator)
    return torch.sin(time * (kind[:, None] + 1) + phase) + noise, kind


case = harness.Case(model=Denoiser, data=waves, losses=losses, bottleneck="encoder.2", numbers={"beta": 0.01})
