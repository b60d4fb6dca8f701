"""Time and memory of one large layer: sparse ReLU units in float32, one in a hundred dead, one in a hundred a copy.

    OMP_NUM_THREADS=1 python experiments/benchmarks/large_layer.py --rows 10000 --units 20000 --reference labels

prints one line; `--reference none` and `--reference factor` are the others.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor

from harness import diagnose

ON_A_QUARTER = 0.6745
AT_ONCE = 500


def layer(rows: int, units: int, generator: torch.Generator) -> Tensor:
    """Sparse units; the first hundredth dead, the second twice what the third is."""
    code = torch.empty(rows, units)
    for start in range(0, units, AT_ONCE):  # the layer alone in memory, so that the peak is the diagnosis's
        wide = min(AT_ONCE, units - start)
        code[:, start : start + wide] = torch.relu(torch.randn(rows, wide, generator=generator) - ON_A_QUARTER)
    few = units // 100
    code[:, :few] = 0
    code[:, few : 2 * few] = 2 * code[:, 2 * few : 3 * few]
    return code


def peak() -> float:
    """The most memory that this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--reference", choices=REFERENCES, default="none")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    code, more = layer(asked.rows, asked.units, generator), REFERENCES[asked.reference](asked.rows, generator)
    before, wall, processor = peak(), time.time(), time.process_time()
    found = diagnose(code, **more)
    print(
        f"{asked.rows} rows x {asked.units} units, reference {asked.reference}: {time.time() - wall:.1f} s,"
        f" {time.process_time() - processor:.1f} s of processor; memory {before:.2f} GiB before, {peak():.2f} at most;"
        f" {found.verdict}, {found.live_units} live, {len(str(found))} characters printed"
    )


REFERENCES: dict[str, Callable[[int, torch.Generator], dict[str, object]]] = {
    "none": lambda rows, generator: {},
    "labels": lambda rows, generator: {"labels": torch.randint(0, 10, (rows,), generator=generator)},
    "factor": lambda rows, generator: {"factors": {"it": torch.randn(rows, generator=generator)}},
}

if __name__ == "__main__":
    main()
