"""Metric rows per second into a store: this harness, MLflow's own ceiling, and what a plain loop does.

    python experiments/benchmarks/logging_rate.py [RESULTS_FOLDER]

The members are those of a finished experiment of 100; without a folder it is run first. Each way of logging is a process
of its own with a new sqlite store, and they take turns.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from end_to_end import run, written
from processes import ended
from rows import Row

LOGGER = Path(__file__).with_name("loggers.py")
NAMES = ("log_metrics a step", "log_batch of 1000", "harness")


def finished(folder: Path, epochs: int = 30) -> Path:
    """The results of 100 members, run in this folder."""
    file = written(folder, 100, epochs)
    run(file)
    return folder / "mlruns" / "results" / file.stem


def measured(results: Path, repetitions: int = 5) -> Iterator[Row]:
    """A row a way of logging."""
    rates: dict[str, list[float]] = {name: [] for name in NAMES}
    peaks: dict[str, float] = {}
    for _ in range(repetitions):
        for name in NAMES:
            told = json.loads(ended([sys.executable, str(LOGGER), name, str(results)]).output)
            rates[name].append(told["rows"] / told["seconds"])
            peaks[name] = max(peaks.get(name, 0), told["peak_mb"])
    for name in NAMES:
        yield Row("logging", "metric rows, sqlite", name, "rows/s", tuple(rates[name]), 100, peak_mb=peaks[name])


def main() -> None:
    """Print a line a row."""
    with tempfile.TemporaryDirectory() as place:
        results = Path(sys.argv[1]) if len(sys.argv) > 1 else finished(Path(place))
        for row in measured(results):
            print(row, flush=True)


if __name__ == "__main__":
    main()
