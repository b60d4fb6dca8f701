"""How long commands take to start, the interpreter included.

    python experiments/benchmarks/start_up.py

The plan is of 5000 members; resuming asks `harness run` for a finished experiment of 100. Commands take turns.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from end_to_end import written
from logging_rate import finished
from processes import HARNESS, Ended, cores, ended, largest
from rows import Row


def commands(folder: Path) -> dict[str, tuple[list[str], int | None]]:
    """What is started, and of how many members it is; the folder holds the finished experiment."""
    planned = written(folder, 5000, 30)
    again = ["run", str(folder / "members_100.yaml"), "--workers", str(cores())]
    return {
        "python -c pass": ([sys.executable, "-c", "pass"], None),
        "import torch": ([sys.executable, "-c", "import torch"], None),
        "import harness": ([sys.executable, "-c", "import harness"], None),
        "harness --help": ([*HARNESS, "--help"], None),
        "harness plan": ([*HARNESS, "plan", str(planned)], 5000),
        "harness run again": ([*HARNESS, *again], 100),
    }


def measured(folder: Path, repetitions: int = 5) -> Iterator[Row]:
    """A row a command, after one round that fills the disk's cache."""
    every = commands(folder)
    found: dict[str, list[Ended]] = {name: [] for name in every}
    for _ in range(repetitions + 1):
        for name, (command, _) in every.items():
            found[name].append(ended(command, folder))
    for name, (_, members) in every.items():
        done = found[name][1:]
        seconds = tuple(each.seconds for each in done)
        yield Row("start-up", "from the shell", name, "s", seconds, members, peak_mb=largest(done))


def main() -> None:
    """Print a line a row."""
    with tempfile.TemporaryDirectory() as place:
        finished(Path(place))
        for row in measured(Path(place)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
