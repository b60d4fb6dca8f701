"""How fast members train on a GPU, in one process: a plain PyTorch loop there and on one core, this harness, and JAX.

    python experiments/benchmarks/gpu_speed.py [--quick] [--output mlruns/gpu.json]

Model-steps per second, as in training_speed.py: one member, one batch of 64, one step of Adam, float32 without TF32. The
harness trains all members as one stack, filled up as in an experiment. Contenders take turns within each repetition.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

os.environ |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_DEFAULT_MATMUL_PRECISION": "highest"}

import torch
from contenders import plain, stacked
from machine import facts
from ready import EPOCH, Ready
from rows import Row
from training_worker import measured as worked
from workloads import SOURCE, WORKLOADS

SIZES = (1, 64, 256, 1024, 4096)
COMPARED = (64, 1024)  # with JAX: it takes a while to be ready
STACKING = [name for name in WORKLOADS if "structures" not in name]


def on_the_gpu(workload: str, members: int) -> Ready:
    """One stack of all members."""
    found = WORKLOADS[workload]()
    return waited_for(stacked(found.cases[0], members, found.rows.cuda(), largest=members))


def alone(workload: str, device: str) -> Ready:
    """One model in a plain loop."""
    found = WORKLOADS[workload]()
    return waited_for(plain(found.cases[0], 1, found.rows.to(device)))


def waited_for(ready: Ready) -> Ready:
    """The same, an epoch at a time, and done when the GPU is."""

    def work(steps: int) -> float:
        done = ready.work(steps)
        torch.cuda.synchronize()
        return done

    return replace(ready, work=work, steps=EPOCH)


def in_jax(members: int) -> Ready:
    """The source network there; JAX takes the GPU by itself."""
    from jax_contender import vmapped

    return vmapped(members)


def heats() -> Iterator[tuple[str, int, dict[str, Callable[[], Ready]]]]:
    """What takes turns at what: the harness at every size, and what it is compared with."""
    for workload, members in product(STACKING, SIZES):
        yield workload, members, dict(contenders(workload, members))
    for members in COMPARED if find_spec("jax") else ():
        harness, jax = (partial(make, members) for make in (partial(on_the_gpu, SOURCE), in_jax))
        yield SOURCE, members, {"harness, GPU": harness, "JAX, GPU": jax}


def contenders(workload: str, members: int) -> Iterator[tuple[str, Callable[[], Ready]]]:
    """The harness, and beside it what does not depend on the size, once."""
    if members == 1:
        yield "plain loop, one core", lambda: alone(workload, "cpu")
        yield "plain loop, GPU", lambda: alone(workload, "cuda")
    if members == 64:
        found = WORKLOADS[workload]()
        yield "harness, one core", lambda: stacked(found.cases[0], 64, found.rows)
    yield "harness, GPU", lambda: on_the_gpu(workload, members)


def rate(ready: Ready, seconds: float) -> float:
    """Model-steps per second."""
    begun = time.perf_counter()
    return worked(ready, seconds)["done"] / (time.perf_counter() - begun)


def measured(quick: bool) -> Iterator[Row]:
    """All heats."""
    seconds, repetitions = (0.1, 3) if quick else (0.3, 5)
    for workload, members, makers in heats():
        torch.cuda.reset_peak_memory_stats()
        ready = {name: make() for name, make in makers.items()}
        for each in ready.values():
            each.work(2 * EPOCH)  # kernels chosen, operations written out
        rates = [[rate(each, seconds) for each in ready.values()] for _ in range(repetitions)]
        peak = torch.cuda.max_memory_allocated() / 1e6
        for name, values in zip(ready, zip(*rates, strict=True), strict=True):
            mb = peak if name == "harness, GPU" else None
            compiled = ready[name].compile_seconds
            more = {} if compiled is None else {"compile_seconds": round(compiled, 1)}
            yield Row("training", workload, name, "model-steps/s", values, members, peak_mb=mb, more=more)


def main() -> None:
    """A line a row; the JSON holds what there is so far."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter repetitions")
    parser.add_argument("--output", type=Path, default=Path("mlruns/gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU here")
    torch.set_num_threads(1)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for row in measured(options.quick):
        print(row, flush=True)
        rows.append(row)
        whole = {**facts(rows), "gpu": torch.cuda.get_device_name(), "rows": [each.document() for each in rows]}
        options.output.write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
