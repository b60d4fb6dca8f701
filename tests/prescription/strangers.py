"""Case files as different people write them, for the tests of the printed diffs."""

HEAD = """import torch
import torch.nn.functional as F
from torch import nn

import harness


def data():
    return torch.randn(200, 12, generator=torch.Generator().manual_seed(0))


"""
LOSS = """

def losses(model, batch):
    code, output = model(batch)
    return {"reconstruction": F.mse_loss(output, batch), "l1": code.abs().mean()}


"""
PLAIN_LOSS = """

def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}


"""

FUNCTIONAL = (
    HEAD
    + """class Net(nn.Module):
    def __init__(self, width=10):
        super().__init__()
        self.first = nn.Linear(12, width)
        self.code = nn.Linear(width, 4)
        self.back = nn.Linear(4, 12)

    def forward(self, x):
        hidden = F.relu(self.first(x))
        code = F.relu(self.code(hidden))
        return code, torch.sigmoid(self.back(code))
"""
    + LOSS
    + 'case = harness.Case(Net, data, losses, bottleneck="code", numbers={"beta": 0.01})\n'
)

NESTED = (
    HEAD
    + """class Net(nn.Module):
    def __init__(self): super().__init__(); self.a, self.b, self.c = nn.Linear(12, 10), nn.Linear(10, 4), nn.Linear(4, 12)
    def forward(self, x): z = F.relu(self.b(F.relu(self.a(x)))); return z, F.relu(self.c(z))
"""
    + LOSS
    + 'case = harness.Case(model=Net, data=data, losses=losses, bottleneck="b")\n'
)

SEQUENTIAL = (
    HEAD
    + """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(12, 10),
            nn.ReLU(inplace=True),
            nn.Linear(10, 4),
            nn.ReLU(inplace=True),
        )
        self.decoder = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 12), nn.Sigmoid())

    def forward(self, x):
        code = self.encoder(x)
        return code, self.decoder(code)
"""
    + LOSS
    + 'case = harness.Case(model=Net, data=data, losses=losses, bottleneck="encoder.2", train={"epochs": 4})\n'
)

FACTORY = (
    HEAD
    + """def build():
    return nn.Sequential(
        nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 12), nn.Sigmoid()
    )
"""
    + PLAIN_LOSS
    + 'case = harness.Case(model=build, data=data, losses=losses, bottleneck="2")\n'
)

SHARED_ACTIVATION = (
    HEAD
    + """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()
        self.down = nn.Linear(12, 10)
        self.neck = nn.Linear(10, 4)
        self.up = nn.Linear(4, 12)

    def forward(self, x):
        x = self.act(self.down(x))
        code = self.act(self.neck(x))
        return code, torch.tanh(self.up(code))
"""
    + LOSS
    + 'case = harness.Case(model=Net, data=data, losses=losses, bottleneck="neck")\n'
)

METHODS = """import harness, torch
from torch.nn import Linear, Module
from torch.nn.functional import mse_loss

def data():
    return torch.randn(200, 12, generator=torch.Generator().manual_seed(0))

class Net(Module):
    def __init__(self):
        super().__init__()
        self.lin1 = Linear(12, 10)
        self.lin2 = Linear(10, 4)
        self.lin3 = Linear(4, 12)

    def encode(self, x):
        return self.lin2(self.lin1(x).relu()).relu()

    def forward(self, x):
        z = self.encode(x)
        return z, self.lin3(z).sigmoid()

def losses(model, batch):
    code, output = model(batch)
    return {"reconstruction": mse_loss(output, batch), "l1": code.abs().mean()}

case = harness.Case(model=Net, data=data, losses=losses, bottleneck="lin2", numbers={"beta": 1e-2})
"""

CONVOLUTION = (
    """import torch
import torch.nn.functional as F
import torch.nn as nn
from harness import Case


def data():
    return torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Encoder(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.fc = nn.Linear(96, units)

    def forward(self, images):
        x = torch.relu(self.conv(images))
        return torch.relu(self.fc(x.flatten(1)))


class Net(nn.Module):
    def __init__(self, units=5):
        super().__init__()
        self.encoder = Encoder(units)
        self.decoder = nn.Linear(units, 64)

    def forward(self, images):
        code = self.encoder(images)
        return code, torch.sigmoid(self.decoder(code)).view(-1, 1, 8, 8)
"""
    + LOSS
    + 'case = Case(model=Net, data=data, losses=losses, bottleneck="encoder.fc", numbers={"beta": 0.1}, train={})\n'
)

VAE = (
    HEAD
    + """class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(12, 16)
        self.mu = nn.Linear(16, 3)
        self.logvar = nn.Linear(16, 3)
        self.decoder = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 12), nn.Sigmoid())

    def forward(self, x):
        h = F.relu(self.body(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (logvar / 2).exp() if self.training else mu
        return self.decoder(z), mu, logvar


def losses(model, x, beta):
    y, mu, logvar = model(x)
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
    return {"reconstruction": F.mse_loss(y, x), "kl": beta * kl}


case = harness.Case(
    model=VAE,
    data=data,
    losses=losses,
    bottleneck="mu",
    posterior="logvar",
    reconstruction="out:0",
    numbers={"beta": 1.0},
)
"""
)

LOOP = (
    HEAD
    + """class Net(nn.Module):
    def __init__(self, sizes=(12, 10, 8, 4)):
        super().__init__()
        layers = []
        for before, after in zip(sizes, sizes[1:]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        self.decoder = nn.Linear(sizes[-1], sizes[0])

    def forward(self, x):
        code = self.encoder(x)
        return code, self.decoder(code).relu()
"""
    + LOSS
    + 'case = harness.Case(model=Net, data=data, losses=losses, bottleneck="encoder.4")\n'
)

PARTS_IN_THE_LOSS = (
    HEAD
    + """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4))
        self.decoder = nn.Linear(4, 12)

    def forward(self, x):
        return self.decoder(F.relu(self.encoder(x)))


def losses(model, batch):
    code = F.relu(model.encoder(batch))
    return {"reconstruction": F.mse_loss(model.decoder(code), batch), "l1": code.abs().mean()}


case = harness.Case(model=Net, data=data, losses=losses, bottleneck="encoder.2", numbers={"beta": 0.01})
"""
)

CHILDREN_IN_A_LOOP = (
    HEAD
    + """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Linear(12, 4)
        self.dec = nn.Linear(4, 12)

    def forward(self, x):
        code = F.relu(self.enc(x))
        return code, F.relu(self.dec(code))


def losses(model, batch):
    values = batch
    for layer in model.children():
        values = layer(values)
    return {"reconstruction": F.mse_loss(model(batch)[1], batch), "size": values.abs().mean()}


case = harness.Case(model=Net, data=data, losses=losses, bottleneck="enc")
"""
)

STRANGERS = {
    "functional": FUNCTIONAL,
    "nested": NESTED,
    "sequential": SEQUENTIAL,
    "factory": FACTORY,
    "shared_activation": SHARED_ACTIVATION,
    "methods": METHODS,
    "convolution": CONVOLUTION,
    "vae": VAE,
    "loop": LOOP,
    "parts_in_the_loss": PARTS_IN_THE_LOSS,
    "children_in_a_loop": CHILDREN_IN_A_LOOP,
}
