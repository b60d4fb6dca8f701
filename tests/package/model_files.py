"""Model files as users have them, each with what `harness init` should find in it."""

HEADER = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n"

FUNCTIONAL = (
    HEADER
    + """
class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(20, 40), nn.Linear(40, 4), nn.Linear(4, 20)

    def forward(self, x):
        code = F.relu(self.fc2(F.relu(self.fc1(x))))
        return self.fc3(code), code
"""
)
PARTS = (
    HEADER
    + """
class Encoder(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 2, 3, 2, 1), nn.Sigmoid())


class Decoder(nn.Sequential):
    def __init__(self):
        super().__init__(nn.ConvTranspose2d(2, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 1, 2, 2))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()

    def forward(self, images):
        return self.decoder(self.encoder(images))
"""
)
VAE = (
    HEADER
    + """
class Vae(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.body, self.mu, self.logvar = nn.Linear(12, width), nn.Linear(width, 3), nn.Linear(width, 3)
        self.decoder = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 12))

    def forward(self, x):
        hidden = F.relu(self.body(x))
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        return {"output": self.decoder(z), "mu": mu, "logvar": logvar}


def load_data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(300, 3, generator=generator) @ torch.randn(3, 12, generator=generator)
"""
)
CLASSIFIER = (
    HEADER
    + """
def build(hidden=6):
    return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 5))
"""
)
TOKENS = (
    HEADER
    + """
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.body, self.head = nn.Embedding(50, 16), nn.Linear(16, 4), nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head(F.gelu(self.body(self.table(tokens).mean(1))))
"""
)

# name -> text, bottleneck, activation, shape of a row, random rows to be replaced
FILES = {
    "functional": (FUNCTIONAL, "fc2", "relu", [20], True),
    "parts": (PARTS, "encoder.2", "sigmoid", [1, 32, 32], True),
    "vae": (VAE, "mu", "none", [12], False),
    "classifier": (CLASSIFIER, "2", "relu", [30], True),
    "tokens": (TOKENS, "body", "gelu", [16], True),
}
