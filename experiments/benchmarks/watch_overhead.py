"""Overhead of `harness.watch`: a plain loop, bare and watched, side by side in one process on one thread.

    OMP_NUM_THREADS=1 python experiments/benchmarks/watch_overhead.py --output docs/evidence/watch-overhead.md

Blocks of steps alternate between the loops; a ratio is the median over rounds of watched / bare processor time of one round.
Two bare loops side by side show the noise of the machine. Takes a minute on an idle machine; a block is as long as the
monitor keeps steps before it measures them, so that each block has one measurement.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import harness

Step = Callable[[torch.Tensor], None]


def source_network() -> tuple[nn.Module, Callable[[nn.Module, torch.Tensor], torch.Tensor], torch.Tensor]:
    """The posted autoencoder, 100-40-20-4-20-40-100, with its two terms, at batch 64."""
    case = harness.load_case("forum")

    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        terms = case.losses(model, batch, rho=0.05)
        return terms["reconstruction"] + 0.001 * terms["sparsity"]

    return case.model(), loss, torch.rand(6400, 100)


def deep_network() -> tuple[nn.Module, Callable[[nn.Module, torch.Tensor], torch.Tensor], torch.Tensor]:
    """24 linear layers of 1,024 units with ReLUs, at batch 64."""
    layers = [layer for _ in range(24) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    return nn.Sequential(*layers), lambda model, batch: F.mse_loss(model(batch), batch), torch.rand(640, 1024)


def step_of(model: nn.Module, loss: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def step(batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()

    return step


def ratios(
    build: Callable[[], tuple[nn.Module, Callable[[nn.Module, torch.Tensor], torch.Tensor], torch.Tensor]],
    watches: dict[str, tuple[str, int] | None],
    rounds: int,
    steps: int,
) -> dict[str, list[float]]:
    """Return the time of a step in microseconds of each loop, by round."""
    times: dict[str, list[float]] = {name: [] for name in watches}
    with ExitStack() as stack:
        loops: dict[str, Step] = {}
        for name, watch in watches.items():
            torch.manual_seed(0)
            model, loss, rows = build()
            if watch is not None:
                stack.enter_context(harness.watch(model, watch[0], every=watch[1], callback=lambda line: None))
            loops[name] = step_of(model, loss)
        batches, names = rows.split(64), list(loops)
        for turn in range(rounds + 1):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                start = time.process_time()
                for index in range(steps):
                    loops[name](batches[index % len(batches)])
                if turn:  # the first round warms up
                    times[name].append((time.process_time() - start) / steps * 1e6)
    return times


def rows_of(title: str, times: dict[str, list[float]]) -> list[str]:
    bare = times["bare"]
    lines = []
    for name, values in times.items():
        quotients = sorted(value / base for value, base in zip(values, bare, strict=True))
        low, high = quotients[len(quotients) // 4], quotients[3 * len(quotients) // 4]
        ratio = statistics.median(quotients)
        quotient = "1" if name == "bare" else f"{ratio:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"| {title} | {name} | {statistics.median(values):,.0f} | {quotient} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--deep-rounds", type=int, default=6)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = {"bare": None, "bare again": None, "every step": ("enc3", 1), "every 16 steps": ("enc3", 16)}
    deep = {"bare": None, "bare again": None, "one layer, every step": ("24", 1), "all 24, every step": ("*[02468]", 1)}
    lines = [
        "# Overhead of watching a training loop",
        "",
        "Made by `OMP_NUM_THREADS=1 python experiments/benchmarks/watch_overhead.py --output docs/evidence/watch-overhead.md`",
        f"with torch {torch.__version__} on one thread of {platform.machine()}. All loops alternate in one process. The ratio",
        "is the median over rounds of a watched loop to the bare loop of the same round, with the quartiles.",
        "",
        "| model, batch 64, SGD | watched | processor microseconds a step | ratio to bare |",
        "|---|---|---:|---|",
        *rows_of("source network, 100-40-20-4-20-40-100", ratios(source_network, source, options.rounds, 128)),
        *rows_of("MLP, 24 layers of 1,024", ratios(deep_network, deep, options.deep_rounds, 3)),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text)


if __name__ == "__main__":
    main()
