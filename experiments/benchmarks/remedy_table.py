"""Which remedy can be applied to which kind of model: the table of docs/reference/remedies.md, made by trying each.

python experiments/benchmarks/remedy_table.py
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Case, HarnessError, load_case
from harness.data.rows import Rows, Split
from harness.remedies import apply_remedies
from harness.remedies.layout import build_model

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "remedies.md"
START, END = "<!-- table -->", "<!-- end of table -->"


class Convolutional(nn.Module):
    """8 x 8 pictures through two convolutions; the bottleneck is a convolution of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.code = nn.Conv2d(8, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 8, 2, stride=2)
        self.out = nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, pictures: Tensor) -> Tensor:
        code = torch.relu(self.code(torch.relu(self.first(pictures))))
        return self.out(torch.relu(self.up(code)))


class Variational(nn.Module):
    """mu and logvar, and a draw between them and the decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mu, self.logvar = nn.Linear(64, 32), nn.Linear(32, 4), nn.Linear(32, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 64))

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = F.relu(self.hidden(rows))
        mu, logvar = self.mu(hidden), self.logvar(hidden)
        return self.decoder(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


class Transformer(nn.Module):
    """8 tokens of 8 numbers, pooled into one code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.code, self.back = nn.Linear(64, 4), nn.Linear(4, 64)

    def forward(self, rows: Tensor) -> Tensor:
        tokens = self.encoder(rows.unflatten(1, (8, 8)))
        return self.back(F.relu(self.code(tokens.flatten(1))))


class Tied(nn.Module):
    """The decoder is the encoder's transpose; it has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(64, 4, bias=False)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        code = torch.sigmoid(self.code(rows))
        return code, code @ self.code.weight


class Keywords(nn.Module):
    """Called with keywords, answers with a mapping, takes its widths as keywords."""

    def __init__(self, features: int, units: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, 16), nn.ReLU(inplace=True), nn.Linear(16, units))
        self.decoder = nn.Linear(units, features)

    def forward(self, rows: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
        code = self.encoder(rows * scale).clamp(min=0)
        return {"code": code, "reconstruction": torch.sigmoid(self.decoder(code))}


def rows() -> Tensor:
    """Rows of 64 numbers in [0, 1]."""
    return torch.rand(80, 64, generator=torch.Generator().manual_seed(0))


def pictures() -> Tensor:
    """The same as pictures."""
    return rows().view(-1, 1, 8, 8)


def squared(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error of the only output."""
    return {"reconstruction": F.mse_loss(model(batch), batch)}


def variational(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """The evidence lower bound."""
    made, mu, logvar = model(batch)
    return {"reconstruction": F.mse_loss(made, batch), "kl": -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()}


def second(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error of the second output."""
    return {"reconstruction": F.mse_loss(model(batch)[1], batch)}


def named(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error of the output called reconstruction, of a model called with a keyword."""
    return {"reconstruction": F.mse_loss(model(batch, scale=0.5)["reconstruction"], batch)}


def cases() -> dict[str, Case]:
    """One case of each kind."""
    return {
        "posted network": replace(load_case("forum"), train={}),
        "convolutional": Case(Convolutional, pictures, squared, "code"),
        "VAE": Case(Variational, rows, variational, "mu", numbers={"beta": 1e-3}),
        "transformer": Case(Transformer, rows, squared, "code"),
        "tied weights": Case(Tied, rows, second, "code"),
        "keyword arguments": Case(Keywords, rows, named, "encoder.2"),
    }


REMEDIES: list[dict[str, str | float]] = [
    {"bias_init": "zero"},
    {"activation": "leaky_relu"},
    {"batchnorm": "on"},
    {"dropout": 0.2},
    {"output_activation": "linear"},
    {"output_activation": "sigmoid"},
    {"penalty": "none"},
    {"penalty": "none_sigmoid_bottleneck"},
    {"penalty": "kl_sigmoid_of_relu"},
    {"penalty": "kl_sigmoid_of_preactivation"},
    {"penalty": "kl_sigmoid_bottleneck"},
    {"penalty": "hard_count"},
    {"penalty": "l1"},
    {"penalty": "topk"},
    {"inputs": "centred"},
    {"units": 3},
    {"rho": 0.1},
    {"beta": 0.01},
    {"learning_rate": 0.01},
    {"batch_size": 16},
]


def attempt(case: Case, levels: dict[str, str | float]) -> str:
    """`applied`, once the treated model was built and its loss gave gradients; else why not."""
    batch = case.data()
    batch = batch.inputs if isinstance(batch, Rows) else batch
    split = Split(Rows(batch[:64]), Rows(batch[64:]), "table")
    try:
        treated = apply_remedies(case, levels, split)
        model = build_model(treated, 0, batch[:4])
        terms = treated.losses(model, batch[:16], **{name: treated.numbers[name] for name in treated.loss_keywords()})
    except HarnessError as error:
        return str(error).partition(": ")[2] or str(error)
    treated.total(terms, treated.numbers).backward()
    return "applied"


def table() -> str:
    """The whole table as Markdown, with the reasons below it."""
    kinds, reasons = cases(), {}
    lines = ["| remedy | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for levels in REMEDIES:
        cells = []
        for case in kinds.values():
            said = attempt(case, levels)
            note = reasons.setdefault(said, len(reasons) + 1) if said != "applied" else 0
            cells.append("applied" if said == "applied" else f"refused ({note})")
        name, level = next(iter(levels.items()))
        lines.append(f"| `{name}: {level}` | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{number}. {reason}" for reason, number in reasons.items())])


def main() -> None:
    """Write the table into the page."""
    text = PAGE.read_text()
    before, after = text.partition(START)[0], text.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
