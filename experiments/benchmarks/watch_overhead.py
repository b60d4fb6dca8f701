"""Overhead of `harness.watch`: one model trained by one plain loop, in blocks with and without a monitor.

    OMP_NUM_THREADS=1 python experiments/benchmarks/watch_overhead.py --output docs/evidence/watch-overhead.md

Bare and watched blocks alternate, and train the same model with the same optimizer: the place of the weights in memory,
which differs from copy to copy, has no part in a ratio. Leaving the monitor, with the measurement of all that it keeps, is
inside the time of a block; in a long run it is rarer. A ratio is the median over rounds of watched / bare processor time of
neighboring blocks, with an interval from the bootstrap of the rounds. Bare blocks in place of the watched ones show the noise.
"""

import argparse
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
    build: Callable[[], Task], watches: dict[str, tuple[str, int] | None], rounds: int, steps: int
) -> dict[str, list[tuple[float, float]]]:
    """Return the microseconds of a step in a bare block and in its neighbor under each watch, by round."""
    torch.manual_seed(0)
    model, loss, rows = build()
    batches, optimizer = rows.split(64), torch.optim.SGD(model.parameters(), 1e-3)

    def block(monitor: Any) -> float:
        with monitor:
            start = time.process_time()
            for index in range(steps):
                optimizer.zero_grad()
                loss(model, batches[index % len(batches)]).backward()
                optimizer.step()
            monitor.__exit__(None, None, None)
            return (time.process_time() - start) / steps * 1e6

    monitors = {
        name: nullcontext() if watch is None else harness.watch(model, watch[0], watch[1], callback=lambda line: None)
        for name, watch in watches.items()
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in watches}
    for turn in range(rounds + 2):
        for name, monitor in monitors.items():
            if turn % 2:
                bare, watched = block(nullcontext()), block(monitor)
            else:
                watched, bare = block(monitor), block(nullcontext())
            if turn >= 2:  # the first rounds warm up and find the layers' codes
                times[name].append((bare, watched))
    return times


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
        *rows_of("source network, 100-40-20-4-20-40-100", times_of(source_network, source, options.rounds, 128)),
        *rows_of("MLP, 24 layers of 1,024", times_of(deep_network, deep, options.deep_rounds, 8)),
    ]
    command = "OMP_NUM_THREADS=1 python experiments/benchmarks/watch_overhead.py"
    settings = f"--rounds {options.rounds} --deep-rounds {options.deep_rounds} --output docs/evidence/watch-overhead.md"
    head = [
        "# Overhead of watching a training loop",
        "",
        f"Made by `{command} {settings}`",
        f"with torch {torch.__version__} on one thread of {platform.machine()} with {os.cpu_count()} processors, whose load was",
        f"{load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end (this process is 1.0 of it). Bare and watched blocks of",
        "128 steps (8 of the MLP) alternate on one model in one process. Leaving the monitor, which measures all that is kept, is",
        "inside the time of each watched block. The ratio is the median over the rounds of watched to bare processor time, with a",
        "95 % bootstrap interval; the rows `nothing` are bare blocks in the place of the watched ones, and show the noise.",
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
