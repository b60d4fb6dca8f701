"""Dead units of eleven codes of known truth: by the definitions of public tools, and by this package.

    OMP_NUM_THREADS=1 python experiments/benchmarks/dead_unit_counters.py --output docs/evidence/dead-unit-counters.md

The definitions are written here from the documentation and the source of each release; nothing of them is copied. A tool that
counts in each batch gets batches of 64 rows, and its mean over batches is shown. Takes some seconds.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import harness

ROWS, UNITS, BATCH = 2048, 4, 64


def zero_values(code: Tensor) -> float:
    """torchmortem 0.1.1: share of the values, not of the units, with |z| < 1e-6; above one half, "units are dead"."""
    return float((code.abs() < 1e-6).double().mean())


def small_maximum(code: Tensor) -> float:
    """traintools 0.6.2: share of units whose largest |z| is below 1e-3."""
    return float((code.abs().amax(0) < 1e-3).double().mean())


def zero_on_all_rows(code: Tensor) -> float:
    """torchdiag 0.1.0: share of units with |z| <= 0 on all rows of one pass."""
    return float((code.abs() <= 0).all(0).double().mean())


def zero_in_a_batch(code: Tensor) -> float:
    """monitorch 0.1.0.7: share of units without a |z| > 1e-8 in a batch, mean over batches."""
    return float(
        torch.stack([((batch.abs() > 1e-8).sum(0) == 0).double().mean() for batch in code.split(BATCH)]).mean()
    )


def small_sum_in_a_batch(code: Tensor) -> float:
    """neuraldbg 1.3.2: share of units whose sum of |z| over a batch is below 1e-9, mean over batches."""
    return float(torch.stack([(batch.abs().sum(0) < 1e-9).double().mean() for batch in code.split(BATCH)]).mean())


COUNTERS: dict[str, Callable[[Tensor], float]] = {
    "torchmortem": zero_values,
    "traintools": small_maximum,
    "torchdiag": zero_on_all_rows,
    "monitorch": zero_in_a_batch,
    "neuraldbg": small_sum_in_a_batch,
}


def normal(generator: torch.Generator, units: int = UNITS) -> Tensor:
    return torch.randn(ROWS, units, generator=generator)


def with_zeros(unit: Tensor) -> Tensor:
    return torch.cat([unit.reshape(ROWS, 1), torch.zeros(ROWS, UNITS - 1)], 1)


CODES: dict[str, tuple[Callable[[torch.Generator], Tensor], str, str]] = {
    "sparse ReLU, each unit on 25 % of the rows": (lambda g: (normal(g) - 0.6745).relu(), "relu", "0"),
    "each unit on 1 % of the rows": (lambda g: (normal(g) - 2.3263).relu(), "relu", "0"),
    "one constant unit, three zero": (lambda g: with_zeros(torch.full((ROWS,), 0.7)), "relu", "3, and none informs"),
    "one unit 5 + 0.001 x, three zero": (lambda g: with_zeros(5 + 0.001 * normal(g, 1)), "relu", "3"),
    "one informative unit, three zero": (lambda g: with_zeros(normal(g, 1).relu()), "relu", "3"),
    "four different constant units": (
        lambda g: torch.tensor([0.2, 0.5, 1.0, 3.0]).repeat(ROWS, 1), "relu", "none is zero, none informs"),
    "all zero": (lambda g: torch.zeros(ROWS, UNITS), "relu", "4"),
    "four sigmoids saturated at 1": (lambda g: torch.sigmoid(200 + normal(g)), "sigmoid", "none is zero, none informs"),
    "four copies of one unit": (lambda g: normal(g, 1).relu().repeat(1, UNITS), "relu", "0, one informs"),
    "sigmoid code 0.5 +- 0.1": (lambda g: 0.5 + 0.1 * normal(g).clamp(-3, 3), "sigmoid", "0"),
    "leaky ReLU, three units never above zero": (
        lambda g: torch.nn.functional.leaky_relu(normal(g) - torch.tensor([0.0, 9.0, 9.0, 9.0]), 0.01), "leaky_relu",
        "0, three are below the threshold"),
}  # fmt: skip


def table() -> list[str]:
    lines = [f"| code, {ROWS} rows, {UNITS} units | dead in truth | {' | '.join(COUNTERS)} | this package |"]
    lines.append("|---|---|" + "---:|" * len(COUNTERS) + "---|")
    for name, (make, activation, truth) in CODES.items():
        code = make(torch.Generator().manual_seed(0))
        shares = " | ".join(f"{counter(code):.0%}" for counter in COUNTERS.values())
        diagnosis = harness.diagnose(code, activation=activation)
        verdicts: dict[str, int] = {}
        for unit in diagnosis.units:
            verdicts[str(unit.verdict)] = verdicts.get(str(unit.verdict), 0) + 1
        units = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        lines.append(f"| {name} | {truth} | {shares} | {diagnosis.verdict}: {units} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    definitions = [f"- {counter.__doc__}" for counter in COUNTERS.values()]
    text = "\n".join(
        [
            "# What counters of dead units say",
            "",
            "Made by `OMP_NUM_THREADS=1 python experiments/benchmarks/dead_unit_counters.py --output docs/evidence/dead-unit-counters.md`.",
            "The same activations for all, of known truth. The definitions, with the defaults of each release:",
            "",
            *definitions,
            "",
            *table(),
            "",
            "A share of zero values is no share of dead units: a healthy sparse code has as many zeros as a dead one. A count in",
            "each batch calls a unit dead that fires on one row in a hundred. A unit that is constant above zero carries no",
            "information and is counted by none of them.",
        ]
    )
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
