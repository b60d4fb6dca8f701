"""Overhead of `harness.watch`: a model and its watched copy, trained by one plain loop in turns.

    OMP_NUM_THREADS=1 python experiments/benchmarks/watch_overhead.py --output docs/evidence/watch-overhead.md

Single steps of the bare and of the watched model alternate, so that both meet the same speed of the machine. The first
steps, in which the monitor finds the layers' codes and the length of an epoch, are not timed. Leaving the monitor, which
measures all that it keeps, is timed with the steps. A ratio is the median over rounds, each with new copies, of watched /
bare processor time, with an interval from the bootstrap of the rounds. A second bare copy in place of the watched one
shows the noise: the place of the weights in memory differs from copy to copy.
"""

import argparse
import copy
import os
import platform
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import harness

# untimed and timed steps of a round
STEPS, DEEP_STEPS = (528, 512), (20, 16)
Task = tuple[nn.Module, Callable[[nn.Module, torch.Tensor], torch.Tensor], torch.Tensor]


def source_network() -> Task:
    """The posted autoencoder, 100-40-20-4-20-40-100, with its two terms, at batch 64."""
    case = harness.load_case("forum")

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        terms = case.losses(model, batch, rho=0.05)
        return terms["reconstruction"] + 0.001 * terms["sparsity"]

    return case.model(), loss, torch.rand(6400, 100)


def deep_network() -> Task:
    """24 linear layers of 1,024 units with ReLUs, at batch 64."""
    layers = [layer for _ in range(24) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    return nn.Sequential(*layers), lambda model, batch: F.mse_loss(model(batch), batch), torch.rand(640, 1024)


def times_of(
    build: Callable[[], Task], watches: dict[str, tuple[str, int] | None], rounds: int, warm_up: int, steps: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the microseconds of a step of a bare model and of its watched copy under each watch, by round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in watches}
    for turn in range(rounds):
        for name, watch in watches.items():
            torch.manual_seed(turn)
            model, loss, rows = build()
            pair = [model, copy.deepcopy(model)]
            batches, steppers = rows.split(64), [stepper(copied, loss) for copied in pair]
            monitor: Any = (
                nullcontext()
                if watch is None
                else harness.watch(pair[1], watch[0], watch[1], callback=lambda line: None)
            )
            seconds = [0.0, 0.0]
            with monitor:
                for index in range(warm_up + steps):
                    if index == warm_up:
                        seconds = [0.0, 0.0]
                    for which in (0, 1) if index % 2 else (1, 0):
                        start = time.process_time()
                        steppers[which](batches[index % len(batches)])
                        seconds[which] += time.process_time() - start
                start = time.process_time()
            seconds[1] += time.process_time() - start
            times[name].append((seconds[0] / steps * 1e6, seconds[1] / steps * 1e6))
    return times


def stepper(
    model: nn.Module, loss: Callable[[nn.Module, torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], None]:
    """Return a training step of a model with an optimizer of its own."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def step(batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()

    return step


def rows_of(title: str, times: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Return a line of the table for each watch."""
    lines = []
    for name, pairs in times.items():
        bare, watched = np.array(pairs).T
        ratios = watched / bare
        draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
        low, high = np.quantile(np.median(draws, -1), [0.025, 0.975])
        added = np.median(watched - bare)
        lines.append(
            f"| {title} | {name} | {np.median(bare):,.0f} | {added:+,.1f} | {np.median(ratios):.3f} [{low:.3f}, {high:.3f}] |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--deep-rounds", type=int, default=20)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    source = {"nothing": None, "every step": ("enc3", 1), "every 16 steps": ("enc3", 16)}
    deep = {
        "nothing": None,
        "one layer, every step": ("24", 1),
        "one layer, every 16 steps": ("24", 16),
        "all 24, every step": ("*[02468]", 1),
        "all 24, every 16 steps": ("*[02468]", 16),
    }
    lines = [
        *rows_of("source network, 100-40-20-4-20-40-100", times_of(source_network, source, options.rounds, *STEPS)),
        *rows_of("MLP, 24 layers of 1,024", times_of(deep_network, deep, options.deep_rounds, *DEEP_STEPS)),
    ]
    command = "OMP_NUM_THREADS=1 python experiments/benchmarks/watch_overhead.py"
    settings = f"--rounds {options.rounds} --deep-rounds {options.deep_rounds} --output docs/evidence/watch-overhead.md"
    head = [
        "# Overhead of watching a training loop",
        "",
        f"Made by `{command} {settings}`",
        f"with torch {torch.__version__} on one thread of {platform.machine()} with {os.cpu_count()} processors, whose load was",
        f"{load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end (this process is 1.0 of it). Single steps of a model and of",
        f"its watched copy alternate in one process; {STEPS[1]} steps a round ({DEEP_STEPS[1]} of the MLP) are timed, after {STEPS[0]} ({DEEP_STEPS[0]}) in",
        "which the monitor finds the layers' codes and counts epochs. Leaving the monitor, which measures all that is kept, is timed with them. The",
        "ratio is the median over the rounds, each with new copies, of watched to bare processor time, with a 95 % bootstrap",
        "interval; in the rows `nothing` the copy is not watched either: they show the noise.",
        "",
        "| model, batch 64, SGD | watched | bare, microseconds a step | added | ratio |",
        "|---|---|---:|---:|---|",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
