"""False alarms on healthy codes and misses on planted faults: what the diagnosis says of codes whose truth is known.

    python experiments/benchmarks/false_alarms.py

writes docs/false-alarms.md. `--draws 20` and `--numbers 2e6` make it shorter.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import diagnose
from harness.capture import ACTIVATIONS
from harness.diagnosis import Diagnosis
from harness.measures.intervals import wilson

PAGE = Path(__file__).parents[2] / "docs" / "false-alarms.md"
ROWS = (50, 200, 1000, 5000, 20000)
UNITS = (4, 64, 1024)
AT_ONCE = 4_000_000
LARGEST_DRAW = 20  # times the numbers of a cell: sizes of which one draw is more are left out
UNDECIDED = {"never_fired", "rare_insufficient", "not_testable"}
LIMITS = {"rank_not_testable", "nonlinear_redundancy_not_searched"}
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


@dataclass
class Tally:
    """Counts over draws."""

    layers: int = 0
    wrong_layers: int = 0
    units: int = 0
    wrong_units: int = 0
    undecided: int = 0
    examples: set[str] = field(default_factory=set)

    def add(self, found: Diagnosis, right: frozenset[str]) -> None:
        wrong = [unit for unit in found.units if unit.verdict not in right | UNDECIDED or _false_flags(unit.flags)]
        undecided = sum(unit.verdict in UNDECIDED for unit in found.units)
        # a layer whose only lack is units on which the rows cannot decide is undecided, not wrong
        layer = (found.verdict != "healthy" and (bool(wrong) or not undecided)) or bool(set(found.flags) - LIMITS)
        self.layers, self.wrong_layers = self.layers + 1, self.wrong_layers + layer
        self.units, self.wrong_units = self.units + len(found.units), self.wrong_units + len(wrong)
        self.undecided += undecided
        self.examples |= {str(unit.verdict) for unit in wrong} | (
            {str(found.verdict), *found.flags} - LIMITS if layer else set()
        )


def _false_flags(flags: Sequence[str]) -> bool:
    return any(flag.startswith(("duplicate_of", "stochastic", "always_on", "unused")) for flag in flags)


def healthy_rows(draws: int, numbers: float) -> Iterator[str]:
    """Lines of the table of false alarms."""
    began = time.time()
    yield "| code | population | rows | units | draws | wrong layers | wrong units | undecided units |"
    yield "|---|---|---:|---:|---:|---|---|---:|"
    for name, kind in HEALTHY.items():
        for rows in ROWS:
            for units in UNITS:
                done = max(1, min(draws, int(numbers / (rows * units))))
                if rows * units > LARGEST_DRAW * numbers:
                    continue
                print(f"{time.time() - began:6.0f} s {name} {rows} x {units}", file=sys.stderr, flush=True)
                tally = _tally(kind, rows, units, done)
                wrong = f" ({', '.join(sorted(tally.examples))})" if tally.examples else ""
                yield (
                    f"| {name} | {kind.truth} | {rows} | {units} | {done} | {_rate(tally.wrong_layers, tally.layers)}"
                    f"{wrong} | {_rate(tally.wrong_units, tally.units)} | {tally.undecided / tally.units:.2%} |"
                )


def _tally(kind: Healthy, rows: int, units: int, draws: int) -> Tally:
    tally, generator = Tally(), torch.Generator().manual_seed(rows * 10000 + units)
    step = max(1, AT_ONCE // (rows * units))
    for start in range(0, draws, step):
        code = kind.draw(torch.randn(min(step, draws - start), rows, units, generator=generator))
        for found in diagnose(code, kind.activation, members=True):
            tally.add(found, kind.units)
    return tally


def planted_rows(draws: int, numbers: float) -> Iterator[str]:
    """Lines of the table of misses."""
    yield "| fault | population | rows | draws | missed |"
    yield "|---|---|---:|---:|---|"
    for name, fault in PLANTED.items():
        for rows in ROWS:
            generator = torch.Generator().manual_seed(rows)
            done = max(1, min(draws, int(numbers / (rows * 8))))
            code, more = fault.draw(generator, done, rows)
            judged = diagnose(code, fault.activation, members=True, **more)
            missed = sum(not fault.found(each) for each in judged)
            yield f"| {name} | {fault.truth} | {rows} | {done} | {_rate(missed, done)} |"


def _rate(count: int, total: int) -> str:
    low, high = wilson(count, total)
    return f"{count}/{total} [{float(low):.4f}, {float(high):.4f}]"


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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--draws", type=int, default=200, help="draws a cell")
    arguments.add_argument(
        "--numbers", type=float, default=4e6, help="most numbers a cell: large cells get fewer draws"
    )
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    began = time.time()
    false_alarms, misses = (
        list(healthy_rows(asked.draws, asked.numbers)),
        list(planted_rows(asked.draws, asked.numbers)),
    )
    command = f"python experiments/benchmarks/false_alarms.py --draws {asked.draws} --numbers {asked.numbers:g}"
    minutes = f"{(time.time() - began) / 60:.0f} minutes on one core"
    PAGE.write_text(
        TEXT.format(command=command, minutes=minutes, alarms="\n".join(false_alarms), misses="\n".join(misses))
    )


TEXT = """# False alarms and misses

Made by `{command}` ({minutes}).

Every generator states what holds in the population. A verdict is *wrong* when it contradicts that; it is *undecided*
when it says that the rows do not decide (`never_fired`, `rare_insufficient`, `not_testable`): of a unit that is on for
1 % of the rows, 50 rows show nothing three times in five, and that is the right answer. A layer is wrong when its
verdict rests on a wrong unit, or on no unit at all, or when it carries a flag that the population does not bear out.
Rates with Wilson's 95 % interval. Cells of many numbers have fewer draws than the others
(the column says how many), and sizes of which a single draw is twenty times as many are left out; units of a draw are
independent, so the rate of wrong units is known well there too.

## Healthy codes

{alarms}

A unit on for 1 % of the rows never fires on 400 rows once in 56 draws: `dead` is claimed from 368 rows on, where the
95 % bound of its frequency falls below 1 %, so that a frequency of exactly 1 % is the worst case of that claim.

## Planted faults

Layers of 8 units; the other units are healthy.

{misses}

Few rows miss what they cannot show: noise on 50 rows does not prove that nothing repeats, and the layer is called
`healthy` with every unit flagged `stochastic`; "dead" is said from 368 rows on, and `never_fired` below them counts as
found here.
"""

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

if __name__ == "__main__":
    main()
