"""Train the members of an experiment in the stacks that `harness run` would train, and nothing else.

    python experiments/benchmarks/training_alone.py EXPERIMENT.yaml WORKERS

prints the wall seconds since the workers have loaded their libraries and the most memory of one of them, in JSON.
Nothing is measured, judged, logged or reported.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from processes import peak_mb

from harness.case import load_case
from harness.data import split_of
from harness.execution.program_batches import treated_case
from harness.execution.spec import StackMember, StackSpec
from harness.grid import load_experiment, stacks
from harness.training import check_vmap_support, train


def specs(file: Path) -> list[StackSpec]:
    """The stacks of an experiment, as workers are told of them."""
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


def train_stack(spec: StackSpec) -> float:
    """Train one stack; the most memory of this process so far."""
    torch.set_num_threads(1)
    assert isinstance(spec.case, str)
    split = split_of(load_case(spec.case))
    cases = [treated_case(spec, member.levels, split) for member in spec.members]
    stacking = check_vmap_support(cases[0], split.train.inputs)
    extra = stacking.filled(len(cases)) - len(cases)
    seeds = [member.seed for member in spec.members]
    for _ in train([*cases, *cases[-1:] * extra], [*seeds, *seeds[-1:] * extra], split, stacking):
        pass
    return peak_mb()


def load(_: object) -> None:
    """What a worker has to load before it trains."""
    import torch.func  # noqa: F401


def main() -> None:
    """Train them all."""
    every, workers = specs(Path(sys.argv[1])), int(sys.argv[2])
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(load, range(workers)))
        begun = time.perf_counter()
        found = list(pool.map(train_stack, every))
        seconds = time.perf_counter() - begun
    print(json.dumps({"loaded_seconds": seconds, "peak_mb": max(found)}))


if __name__ == "__main__":
    main()
