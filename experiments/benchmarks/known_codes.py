"""Codes whose truth is stated: healthy ones, layers with a planted fault, units and references of known information."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.capture import ACTIVATIONS
from harness.diagnosis import Diagnosis

Code = tuple[Tensor, dict[str, Any]]


@dataclass(frozen=True)
class Healthy:
    """A healthy code: independent units, each a function of its input.

    Args:
        truth: what holds in the population. draw: `(normal [draw, row, unit]) -> code`. activation: its name.
        units: verdicts that are right, beside those that say that the rows do not decide.
    """

    truth: str
    draw: Callable[[Tensor], Tensor]
    activation: str
    units: frozenset[str] = frozenset({"alive"})


@dataclass(frozen=True)
class Planted:
    """A fault in a layer of 8 units.

    Args:
        truth: what holds in the population. draw: `(generator, draws, rows) -> code, keywords of diagnose`.
        found: whether a diagnosis names the fault.
    """

    truth: str
    draw: Callable[[torch.Generator, int, int], Code]
    found: Callable[[Diagnosis], bool]
    activation: str = "relu"


@dataclass(frozen=True)
class Referred:
    """Units of which the first may share something with a reference; the other three share nothing.

    Args:
        truth: what holds in the population. reference: `(generator, rows) -> [sample]`. first: `(reference, noise
            [draw, sample]) -> [draw, sample]`, the first unit; None for one that shares nothing either.
    """

    truth: str
    reference: Callable[[torch.Generator, int], Tensor]
    first: Callable[[Tensor, Tensor], Tensor] | None = None


def _normal(generator: torch.Generator, draws: int, rows: int, units: int = 8) -> Tensor:
    return torch.randn(draws, rows, units, generator=generator)


def _with_unit(code: Tensor, unit: Tensor | float) -> Tensor:
    code[..., 0] = unit
    return code


def _rounding(generator: torch.Generator, draws: int, rows: int) -> Code:
    """A bias, as a sum of 100 float32 terms of size 1 that cancel, added up in another order for every row."""
    code = torch.relu(_normal(generator, draws, rows) - 0.5)
    terms = torch.randn(100, generator=generator)
    terms = torch.cat([terms, -terms]) + 0.01
    for draw in range(draws):
        order = torch.rand(rows, 200, generator=generator).argsort(-1)
        code[draw, :, 0] = terms[order].cumsum(-1)[:, -1]
    scale = torch.ones(draws, 8)
    scale[:, 0] = float(terms.abs().sum())
    return code, {"scale": scale}


def _noise(generator: torch.Generator, draws: int, rows: int) -> Code:
    first, second = _normal(generator, draws, rows), _normal(generator, draws, rows)
    return torch.relu(first), {"repeat": torch.relu(second)}


def _low_rank(generator: torch.Generator, draws: int, rows: int) -> Code:
    mixing = torch.randn(draws, 2, 8, generator=generator)
    return _normal(generator, draws, rows, 2) @ mixing + 0.05 * _normal(generator, draws, rows), {}


def _mean_output(generator: torch.Generator, draws: int, rows: int) -> Code:
    inputs = torch.randn(rows, 20, generator=generator)
    made = inputs.mean(0).expand(draws, rows, 20) + 0.02 * torch.randn(draws, rows, 20, generator=generator)
    return torch.relu(_normal(generator, draws, rows)), {"inputs": inputs, "reconstruction": made}


def _dead_outputs(generator: torch.Generator, draws: int, rows: int) -> Code:
    inputs = torch.randn(rows, 20, generator=generator)
    made = (inputs + 0.3 * torch.randn(draws, rows, 20, generator=generator)) * (torch.arange(20) >= 2)
    return torch.relu(_normal(generator, draws, rows)), {"inputs": inputs, "reconstruction": made}


def _one_nan(generator: torch.Generator, draws: int, rows: int) -> Code:
    code = torch.relu(_normal(generator, draws, rows))
    code[:, 3, 0] = float("nan")
    return code, {}


def _half_normal_healthy(name: str) -> Healthy:
    return Healthy("normal pre-activations", ACTIVATIONS[name], name)


def _classes(count: int) -> Callable[[torch.Generator, int], Tensor]:
    return lambda generator, rows: torch.randint(0, count, (rows,), generator=generator)


def _quantity(generator: torch.Generator, rows: int) -> Tensor:
    return torch.randn(rows, generator=generator, dtype=torch.float64)


RARE = frozenset({"alive", "rare"})
HEALTHY: dict[str, Healthy] = {
    "sparse ReLU": Healthy("each unit on for 25 %", lambda x: torch.relu(x - 0.6745), "relu"),
    "rare ReLU": Healthy("each unit on for 1 %", lambda x: torch.relu(x - 2.3263), "relu", RARE),
    **{name: _half_normal_healthy(name) for name in ACTIVATIONS if name not in ("relu", "none")},
    "linear": Healthy("normal units", ACTIVATIONS["none"], "none"),
    "narrow sigmoid": Healthy(".5 +- .1", lambda x: 0.5 + 0.1 * x, "sigmoid"),
    "neighbours": Healthy("each unit at .5 with two others", lambda x: 0.5**0.5 * (x + x.roll(1, -1)), "none"),
}

PLANTED: dict[str, Planted] = {
    "dead unit": Planted(
        "one unit 0",
        lambda g, d, n: (_with_unit(torch.relu(_normal(g, d, n)), 0.0), {}),
        lambda found: found.units[0].verdict in ("dead", "never_fired") and found.verdict == "partial_collapse",
    ),
    "all dead": Planted(
        "every unit 0", lambda g, d, n: (torch.zeros(d, n, 8), {}), lambda found: found.verdict == "full_collapse"
    ),
    "rounding noise": Planted(
        "one unit is a bias, with the rounding of its sum",
        _rounding,
        lambda found: found.units[0].verdict == "constant_on",
    ),
    "pinned at the target": Planted(
        "one sigmoid at .05",
        lambda g, d, n: (_with_unit(torch.sigmoid(_normal(g, d, n)), 0.05), {"target": 0.05}),
        lambda found: found.units[0].verdict == "constant_at_target",
        "sigmoid",
    ),
    "nearly constant": Planted(
        "one unit 1 +- .0005",
        lambda g, d, n: (_with_unit(x := _normal(g, d, n), 1 + 5e-4 * torch.tanh(x[..., 0])), {}),
        lambda found: found.units[0].verdict == "near_constant",
        "none",
    ),
    "copies": Planted(
        "four units and their copies",
        lambda g, d, n: (torch.relu(_normal(g, d, n, 4)).repeat(1, 1, 2), {}),
        lambda found: found.verdict == "redundant",
    ),
    "few dimensions": Planted(
        "8 units of 2 dimensions (some copies by chance)",
        _low_rank,
        lambda found: found.verdict in ("dimensional_collapse", "redundant"),
        "none",
    ),
    "fresh noise": Planted("nothing repeats", _noise, lambda found: found.verdict == "full_collapse"),
    "one NaN": Planted(
        "one value of one unit",
        _one_nan,
        lambda found: found.verdict == "invalid" and all(unit.verdict == "alive" for unit in found.units[1:]),
    ),
    "mean output": Planted(
        "the mean, .02 of noise",
        _mean_output,
        lambda found: found.output is not None and found.output.verdict == "mean_output",
    ),
    "dead outputs": Planted(
        "2 of 20 features 0",
        _dead_outputs,
        lambda found: found.output is not None and found.output.verdict == "dead_outputs",
    ),
}

REFERRED: dict[str, Referred] = {
    "label, independent": Referred("4 classes; 0 nats", _classes(4)),
    "label of 10 classes, independent": Referred("0 nats", _classes(10)),
    "factor, independent": Referred("normal; 0 nats", _quantity),
    "label, planted": Referred(
        "2 classes, N(0, 1) or N(2, 1); .3368 nats", _classes(2), lambda label, noise: 2.0 * label + noise
    ),
    "factor, planted": Referred(
        "normal, correlation .5; .1438 nats", _quantity, lambda factor, noise: 0.5 * factor + 0.75**0.5 * noise
    ),
    "factor, planted, weak": Referred(
        "normal, correlation .2; .0204 nats", _quantity, lambda factor, noise: 0.2 * factor + 0.96**0.5 * noise
    ),
}
