"""Time and memory of a wide layer that is read from a file, in a process of its own.

    OMP_NUM_THREADS=1 python experiments/benchmarks/wide_layer.py --rows 10000 --units 100000
    OMP_NUM_THREADS=1 python experiments/benchmarks/wide_layer.py --rows 256 --units 1000000

Sparse ReLU units in float32, one in a hundred dead, one in a hundred a copy. The file is written block by block, then
diagnosed as `harness diagnose FILE` does. Memory beside the mapped file: the largest anonymous part of the resident memory,
looked at 20 times a second (`/proc/self/status`, Linux).
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from harness import diagnose
from harness.cli.diagnose import MOST_UNITS
from harness.data import read_array

ON_A_QUARTER = 0.6745
BLOCK = 500  # units


def write(path: Path, rows: int, units: int) -> None:
    """Write a layer whose first hundredth is dead and whose second is twice the third."""
    generator = torch.Generator().manual_seed(0)
    layer = np.lib.format.open_memmap(path, "w+", np.float32, (rows, units))
    few = units // 100
    for start in range(few, units, BLOCK):
        width = min(BLOCK, units - start)
        block = torch.relu(torch.randn(rows, width, generator=generator) - ON_A_QUARTER)
        layer[:, start : start + width] = block.numpy()
    for start in range(few, 2 * few, BLOCK):
        end = min(start + BLOCK, 2 * few)
        layer[:, start:end] = 2 * layer[:, start + few : end + few]
    layer.flush()


class Memory:
    """The largest anonymous memory of this process while it is watched, GiB."""

    def __init__(self) -> None:
        self.peak, self._ended = 0.0, threading.Event()

    def __enter__(self) -> "Memory":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, int(status.split("RssAnon:")[1].split()[0]) / 2**20)


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None, help="for the file, rows x units x 4 bytes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "layer.npy"
        write(path, arguments.rows, arguments.units)
        with Memory() as memory:
            wall, processor = time.perf_counter(), time.process_time()
            diagnosis = diagnose(read_array(path))
            judged = time.process_time() - processor
            if arguments.units > MOST_UNITS:
                diagnosis.to_frame().to_parquet(Path(folder) / "units.parquet")
                form = "units as parquet"
            else:
                form = f"JSON of {len(json.dumps(diagnosis.to_dict())) / 1e6:.0f} MB"
        print(
            f"{arguments.rows} x {arguments.units}, file {path.stat().st_size / 2**30:.2f} GiB:"
            f" {judged:.1f} s of processor, {time.perf_counter() - wall:.1f} s in all, with the {form};"
            f" at most {memory.peak:.2f} GiB; {diagnosis.verdict}, {diagnosis.live_units} live"
        )


if __name__ == "__main__":
    main()
