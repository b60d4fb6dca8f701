"""Wall time of `harness run` against the time that training alone takes, for 100, 1000 and 5000 members.

The experiment is the source case: penalties, biases, activations and betas in a full grid, 30 epochs, a store of its own
in a folder that is removed afterwards. "Training alone" trains the same members in the same stacks on as many processes,
and measures, judges, logs and reports nothing.

    python experiments/benchmarks/end_to_end.py --members 100 1000
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SEEDS = {100: 5, 1000: 25, 5000: 125}
WORKERS = 2


def experiment(members: int, epochs: int) -> str:
    """A grid of so many members: 20 variants of 5 seeds, or 40 variants of 25 or 125."""
    biases = "[default]" if members == 100 else "[default, zero]"
    return (
        f"name: end_to_end_{members}\ncase: forum\nfactors:\n  penalty: [as_posted, kl_sigmoid_bottleneck]\n"
        f"  bias_init: {biases}\n  activation: [relu, leaky_relu]\n  beta: [0.001, 0.003, 0.01, 0.03, 0.1]\n"
        f"seeds: {SEEDS[members]}\ntrain: {{epochs: {epochs}}}\n"
    )


def specs(file: Path) -> list[Any]:
    """The stacks of an experiment, as workers are told of them."""
    from harness.execution.spec import StackMember, StackSpec
    from harness.grid import load_experiment, stacks

    found = load_experiment(file)
    return [
        StackSpec(
            found.case_reference,
            found.data_reference,
            tuple(
                StackMember(f"{m.variant.name}{m.seed}", m.variant.name, dict(m.variant.levels), m.seed)
                for m in plan.members
            ),
            dict(found.train),
        )
        for plan in stacks(found)
    ]


def train_stack(spec: Any) -> float:
    """Train one stack and nothing else; the processor seconds that took."""
    import torch

    from harness.case import load_case
    from harness.data import split_of
    from harness.execution.study import treated
    from harness.training import stackability, train

    torch.set_num_threads(1)
    split = split_of(load_case(spec.case))
    begun = time.process_time()
    cases = [treated(spec, member.levels, split) for member in spec.members]
    stacking = stackability(cases[0], split.train.inputs)
    extra = stacking.filled(len(cases)) - len(cases)
    seeds = [member.seed for member in spec.members]
    for _ in train([*cases, *cases[-1:] * extra], [*seeds, *seeds[-1:] * extra], split, stacking):
        pass
    return time.process_time() - begun


def training_alone(file: Path) -> tuple[float, float]:
    """Wall and processor seconds of training alone, the workers being started already."""
    every = specs(file)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        list(pool.map(train_stack, every[:1] * WORKERS))  # libraries loaded
        begun = time.perf_counter()
        cpu = sum(pool.map(train_stack, every))
        return time.perf_counter() - begun, cpu


def whole(file: Path, folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and largest process (MB) of one run from nothing, then of a second on what is there."""
    program = "from harness.cli import main; main()"
    command = [sys.executable, "-c", program, "run", str(file), "--json", "--workers", str(WORKERS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(done.stdout)["failed"] == 0, done.stderr
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, after.ru_maxrss / 1024


def measured(sizes: list[int], epochs: int) -> Iterator[dict[str, Any]]:
    """One row a size."""
    for members in sizes:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            file = folder / "experiment.yaml"
            file.write_text(experiment(members, epochs))
            alone, alone_cpu = training_alone(file)
            seconds, cpu, memory = whole(file, folder)
            again, *_ = whole(file, folder)
        yield {
            "members": members,
            "training_alone": round(alone, 1),
            "run": round(seconds, 1),
            "overhead": round(seconds / alone - 1, 2),
            "training_cpu": round(alone_cpu, 1),
            "run_cpu": round(cpu, 1),
            "ms_per_member": round(1000 * seconds / members, 1),
            "driver_or_worker_mb": round(memory),
            "resume": round(again, 2),
        }


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 1000], choices=sorted(SEEDS))
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    for row in measured(options.members, options.epochs):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
