"""The posted autoencoder that this project examines: 100-40-20-4-20-40-100 with a KL sparsity penalty.

"Only one output neuron is activated, always the same." Nothing is repaired in this file. Known faults, each a factor of
the experiments: the penalty loops over `children()` without the activations and stops at index 3, which is `dec1`; it
averages over units (dim 1), so there is one term per sample; it takes the sigmoid of values that the network passes
through a ReLU; the output has a ReLU; biases are not zero. The post gives neither its rows, which have 100 features, nor
its learning rate. This case uses natural patches with their luminance and a rate of 0.01; 9 of 32 seeds end with at most
one unit that varies.

Source: discuss.pytorch.org, "Kullback Leibler (KL) divergence make just one output neuron activated", 2020.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

import harness
from harness.data import Rows, load


class SparseAutoencoder(nn.Module):
    """The posted network, with the posted sizes by default."""

    def __init__(self, features: int = 100, units: int = 4) -> None:
        super().__init__()
        # encoder
        self.enc1 = nn.Linear(in_features=features, out_features=40)
        self.enc2 = nn.Linear(in_features=40, out_features=20)
        self.enc3 = nn.Linear(in_features=20, out_features=units)
        # decoder
        self.dec1 = nn.Linear(in_features=units, out_features=20)
        self.dec2 = nn.Linear(in_features=20, out_features=40)
        self.dec3 = nn.Linear(in_features=40, out_features=features)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`[sample, feature]` to the code `[sample, unit]` and the reconstruction `[sample, feature]`."""
        # encoding
        x = F.relu(self.enc1(x))
        x = F.relu(self.enc2(x))
        x = F.relu(self.enc3(x))
        y = x  # encoded data
        # decoding
        x = F.relu(self.dec1(x))
        x = F.relu(self.dec2(x))
        x = F.relu(self.dec3(x))
        return y, x


criterion = nn.MSELoss()


def kl_divergence(rho: float, rho_hat: Tensor) -> Tensor:
    """Posted KL divergence: the mean is over units, so the sum has one term per sample."""
    rho_hat = torch.mean(torch.sigmoid(rho_hat), 1)
    target = torch.tensor([rho] * len(rho_hat)).to(rho_hat.device)
    return torch.sum(target * torch.log(target / rho_hat) + (1 - target) * torch.log((1 - target) / (1 - rho_hat)))


def sparse_loss(rho: float, x: Tensor, model: nn.Module) -> Tensor | float:
    """Posted penalty: loops over the children without the activations and adds the KL at the fourth."""
    model_children = list(model.children())
    values = x
    loss: Tensor | float = 0
    for i in range(len(model_children)):
        values = model_children[i](values)
        if i == 3:
            loss += kl_divergence(rho, values)
    return loss


def losses(model: nn.Module, batch: Tensor, rho: float) -> dict[str, Tensor]:
    """Return the two terms of the posted training loop, which multiplies the second by BETA, as this package does."""
    _, outputs = model(batch)
    return {"reconstruction": criterion(outputs, batch), "sparsity": sparse_loss(rho, batch, model)}


def data() -> Rows:
    """Natural patches of one photograph with their luminance: 0 (black) to 1 (white)."""
    return load("patches")[0]


def evaluation() -> Rows | None:
    """Patches of another photograph."""
    return load("patches")[1]


case = harness.Case(
    model=SparseAutoencoder,
    data=data,
    evaluation=evaluation,
    losses=losses,
    bottleneck="enc3",
    reconstruction="out:1",
    numbers={"rho": 0.05, "beta": 0.001},
    train={"epochs": 30, "batch_size": 64, "learning_rate": 0.01},
)
