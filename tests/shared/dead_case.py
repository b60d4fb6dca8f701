"""A case in a file whose units are dead at initialization: biases of -40."""

DEAD_FILE = (
    "import torch, harness\nimport torch.nn.functional as F\nfrom torch import nn\n"
    "class Model(nn.Module):\n"
    "    def __init__(self):\n"
    "        super().__init__()\n"
    "        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(4, 8)\n"
    "        nn.init.constant_(self.encoder.bias, -40.0)\n"
    "    def forward(self, batch):\n"
    "        return self.decoder(F.relu(self.encoder(batch)))\n"
    "def losses(model, batch):\n"
    "    return {'reconstruction': F.mse_loss(model(batch), batch)}\n"
    "def data():\n"
    "    return torch.randn(640, 8, generator=torch.Generator().manual_seed(0))\n"
    "case = harness.Case(Model, data, losses, 'encoder', train={'epochs': 10, 'learning_rate': 0.01})\n"
)
