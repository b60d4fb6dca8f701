"""How fast members train: a plain PyTorch loop, this harness, and JAX, side by side in one run.

    python experiments/benchmarks/throughput.py [--quick] [--output docs/throughput.json]

Model-steps per second: one member, one batch of 64, one optimiser step. Contenders take turns within each repetition,
so that a slow moment of the machine hits all of them; medians and the spread are printed. One process and one thread
each, unless a row says otherwise.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Case, load_case
from harness.data import split_of
from harness.data.rows import Rows, Split
from harness.remedies import treat
from harness.remedies.anatomy import build
from harness.training import stackability
from harness.training.stacked import Stacked
from harness.training.train import gathered

STACK = 64
BATCH = 64


@dataclass(frozen=True)
class Timed:
    """One contender at one size."""

    workload: str
    contender: str
    members: int
    rates: list[float]

    def row(self) -> dict[str, Any]:
        """Median, least and most model-steps per second."""
        return {
            "workload": self.workload,
            "contender": self.contender,
            "members": self.members,
            "median": round(statistics.median(self.rates), 1),
            "low": round(min(self.rates), 1),
            "high": round(max(self.rates), 1),
        }


def plain(case: Case, members: int, rows: Tensor) -> Callable[[int], int]:
    """A loop over models as a good user would write it; a few of them stand for many."""
    models = [build(case, seed, rows[:4]) for seed in range(min(members, 4))]
    optimisers = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in models]
    keywords = {name: case.numbers[name] for name in case.loss_keywords()}

    def work(steps: int) -> int:
        for step in range(steps):
            for model, optimiser in zip(models, optimisers, strict=True):
                batch = rows[(step * BATCH) % (len(rows) - BATCH) :][:BATCH]
                optimiser.zero_grad(set_to_none=True)
                case.total(case.losses(model, batch, **keywords), case.numbers).backward()
                optimiser.step()
        return steps * len(models)

    return work


def stacked(case: Case, members: int, rows: Tensor) -> Callable[[int], int]:
    """The harness: stacks of at most 64, filled up as in an experiment, one after the other in one process."""
    found = stackability(case, rows)
    assert found.rule is not None, found.reason
    most = STACK if found.shares else 1
    sizes = [most] * (members // most) + ([members % most] if members % most else [])
    few = sizes[:2] if len(sizes) > 2 else sizes  # the stacks are alike: two stand for all
    filled = [found.filled(size) for size in few]
    engines = [Stacked([case] * size, list(range(size)), found.rule, rows, found.fixed) for size in filled]
    orders = [torch.stack([torch.randperm(len(rows)) for _ in range(size)]) for size in filled]

    def work(steps: int) -> int:
        for engine, order in zip(engines, orders, strict=True):
            for step in range(steps):
                start = (step * BATCH) % (len(rows) - BATCH)
                engine.step(gathered(rows, order[:, start : start + BATCH]))
        return steps * sum(few)

    return work


def jax_scan(members: int, rows: Tensor) -> tuple[Callable[[int], int], float] | None:
    """The source network with KL on a sigmoid code in JAX: `vmap` over members, `scan` over steps, jitted."""
    try:
        import jax
        import jax.numpy as jnp
    except ImportError:
        return None
    sizes = [(100, 40), (40, 20), (20, 4), (4, 20), (20, 40), (40, 100)]
    few = min(members, 256)

    def forward(parameters: Any, batch: Any) -> tuple[Any, Any]:
        values, code = batch, None
        for index, (weight, bias) in enumerate(parameters):
            values = values @ weight + bias
            values = jax.nn.sigmoid(values) if index == 2 else jax.nn.relu(values)
            code = values if index == 2 else code
        return code, values

    def loss(parameters: Any, batch: Any) -> Any:
        code, made = forward(parameters, batch)
        mean = code.mean(0)
        kl = (0.05 * jnp.log(0.05 / mean) + 0.95 * jnp.log(0.95 / (1 - mean))).sum()
        return ((made - batch) ** 2).mean() + 1e-3 * kl

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        parameters, first, second, count = state
        value, gradient = jax.value_and_grad(loss)(parameters, batch)
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradient)
        move = lambda p, m, v: p - 1e-3 * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)  # noqa: E731
        return (jax.tree.map(move, parameters, first, second), first, second, count), value

    data = jnp.asarray(rows.numpy())
    batches = 42

    def epoch(state: Any, order: Any) -> Any:
        return jax.lax.scan(lambda s, index: step(s, data[index]), state, order)[0]

    run = jax.jit(jax.vmap(epoch))
    keys = jax.random.split(jax.random.PRNGKey(0), few)
    make = lambda key: [(jax.random.normal(key, size) * size[0] ** -0.5, jnp.zeros(size[1])) for size in sizes]  # noqa: E731
    parameters = jax.vmap(make)(keys)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, zeros, jnp.zeros(few))
    order = jax.vmap(lambda key: jax.random.permutation(key, len(rows))[: batches * BATCH].reshape(batches, BATCH))(
        keys
    )
    begun = time.perf_counter()
    jax.block_until_ready(run(state, order))
    compiling = time.perf_counter() - begun

    def work(steps: int) -> int:
        held, done = state, 0
        while done < steps:
            held = run(held, order)
            done += batches
        jax.block_until_ready(held)
        return done * few

    return work, compiling


class Convolutional(nn.Module):
    """A small convolutional autoencoder on 8 x 8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.code = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Linear(128, 8)
        self.up, self.out = nn.Linear(8, 128), nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = F.relu(self.first(rows.view(-1, 1, 8, 8))).flatten(1)
        return self.out(F.relu(self.up(F.relu(self.code(hidden)))).view(-1, 8, 4, 4)).flatten(1)


class Wide(nn.Module):
    """100-400-64 and back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 64), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(64, 400), nn.ReLU(), nn.Linear(400, 100))

    def forward(self, rows: Tensor) -> Tensor:
        return self.decoder(self.encoder(rows))


def squared(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error."""
    return {"reconstruction": F.mse_loss(model(batch), batch)}


def workloads() -> dict[str, tuple[Case, Tensor]]:
    """What is trained: the source network and its relatives."""
    forum, digits = load_case("forum"), load_case("digits")
    split, small = split_of(forum), split_of(digits)
    rows, pictures = split.train.inputs, small.train.inputs
    own = Split(Rows(pictures), Rows(pictures), "digits")
    return {
        "source, KL on a sigmoid code": (treat(forum, {"penalty": "kl_sigmoid_bottleneck"}, split), rows),
        "source, as posted": (forum, rows),
        "source, BatchNorm": (treat(forum, {"penalty": "none", "batchnorm": "on"}, split), rows),
        "source, dropout": (treat(forum, {"penalty": "none", "dropout": 0.2}, split), rows),
        "digits": (treat(digits, {"penalty": "kl_sigmoid_bottleneck"}, own), pictures),
        "convolutional": (Case(Convolutional, lambda: pictures, squared, "code"), pictures),
        "wide 100-400-64": (Case(Wide, lambda: rows, squared, "encoder.2"), rows),
    }


def timed(contenders: dict[str, Callable[[int], int]], seconds: float, repetitions: int) -> dict[str, list[float]]:
    """Model-steps per second of each contender, taking turns."""
    steps = {}
    for name, work in contenders.items():
        work(25)  # warm: kernels chosen, operations written out
        begun = time.perf_counter()
        work(10)
        steps[name] = max(5, int(10 * seconds / (time.perf_counter() - begun)))
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, work in contenders.items():
            begun = time.perf_counter()
            done = work(steps[name])
            rates[name].append(done / (time.perf_counter() - begun))
    return rates


def measured(sizes: list[int], seconds: float, repetitions: int) -> Iterator[Timed]:
    """Every workload at every size."""
    for index, (name, (case, rows)) in enumerate(workloads().items()):
        for members in sizes if index == 0 else [sizes[0], STACK]:
            contenders = {"plain loop": plain(case, members, rows), "harness": stacked(case, members, rows)}
            compared = jax_scan(members, rows) if index == 0 else None
            if compared is not None:
                contenders["JAX"], compiling = compared
                print(f"  JAX compiled {members} members in {compiling:.1f} s", file=sys.stderr)
            for contender, rates in timed(contenders, seconds, repetitions).items():
                found = Timed(name, contender, members, rates)
                print(found.row(), file=sys.stderr, flush=True)
                yield found


def two_processes(seconds: float) -> float:
    """Model-steps per second of two worker processes with one thread each, on the first workload."""
    code = (
        "import sys, time; sys.path.insert(0, 'experiments/benchmarks')\n"
        "import torch; torch.set_num_threads(1)\n"
        "from throughput import STACK, stacked, workloads\n"
        "case, rows = next(iter(workloads().values())); work = stacked(case, STACK, rows); work(25)\n"
        "print('ready', flush=True); sys.stdin.readline(); begun = time.perf_counter(); done = 0\n"
        f"while time.perf_counter() - begun < {seconds}: done += work(10)\n"
        "print(done / (time.perf_counter() - begun))\n"
    )
    command = [sys.executable, "-c", code]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        worker.stdout.readline()  # type: ignore[union-attr]
    return sum(float(worker.communicate("go\n")[0].splitlines()[-1]) for worker in workers)


def structures(count: int, each: int, seconds: float) -> dict[str, float]:
    """Many structures with few members each, where stacking helps least."""
    forum = load_case("forum")
    split = split_of(forum)
    cases = [treat(replace(forum, train={}), {"penalty": "none", "units": 2 + index}, split) for index in range(count)]
    works = {
        "plain loop": [plain(case, each, split.train.inputs) for case in cases],
        "harness": [stacked(case, each, split.train.inputs) for case in cases],
    }
    rates = {}
    for name, parts in works.items():
        begun = time.perf_counter()
        done = sum(work(max(30, int(40 * seconds))) for work in parts)
        rates[name] = done / (time.perf_counter() - begun)
    return rates


def machine() -> dict[str, Any]:
    """What the machine can do with one thread: matrix products and copies."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    begun = time.perf_counter()
    for _ in range(10):
        a @ b
    gemm = 10 * 2 * 1024**3 / (time.perf_counter() - begun) / 1e9
    source, target = torch.randn(1 << 25), torch.empty(1 << 25)
    begun = time.perf_counter()
    for _ in range(5):
        target.copy_(source)
    copies = 5 * 2 * source.numel() * 4 / (time.perf_counter() - begun) / 1e9
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "gemm_gflops_one_thread": round(gemm, 1),
        "copy_gb_per_s_one_thread": round(copies, 1),
    }


def main() -> None:
    """Measure, print one table, write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repetitions")
    parser.add_argument("--output", type=Path, default=Path("mlruns/throughput.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [1, 64] if options.quick else [1, 4, 16, 64, 256, 1024]
    seconds, repetitions = (0.3, 3) if options.quick else (0.7, 5)
    rows = [each.row() for each in measured(sizes, seconds, repetitions)]
    found = {
        "machine": machine(),
        "training": rows,
        "two_processes_64_members_each": round(two_processes(3 * seconds), 1),
        "structures_40_with_4_members": {k: round(v, 1) for k, v in structures(40, 4, seconds).items()},
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1))
    print_table(found)


def print_table(found: dict[str, Any]) -> None:
    """The table, with each contender beside the plain loop of its row."""
    print(f"{'workload':32} {'members':>7} {'contender':>11} {'steps/s':>9} {'low':>9} {'high':>9} {'x plain':>8}")
    base: dict[tuple[str, int], float] = {}
    for row in found["training"]:
        key = (row["workload"], row["members"])
        base.setdefault(key, row["median"])
        numbers = f"{row['median']:9.0f} {row['low']:9.0f} {row['high']:9.0f} {row['median'] / base[key]:8.1f}"
        print(f"{row['workload']:32} {row['members']:7} {row['contender']:>11} {numbers}")
    for name, value in found.items():
        if name != "training":
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
