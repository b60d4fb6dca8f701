"""What stands around training: metric rows per second into a store, and how long commands take to start.

Logging: members of a finished experiment through the harness's tracker, against MLflow's own `log_batch` of 1000 rows (the
most it takes at once) and against `log_metrics` once a step, as a plain loop does; each into a new sqlite store.

    python experiments/benchmarks/logging_and_start.py [RESULTS_FOLDER]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from harness.results import MemberRecord, read_results
from harness.tracking import Tracker, member_metrics, store_uri

MEMBERS = 100
PLANNED = """name: planned
case: forum
factors:
  penalty: [as_posted, kl_sigmoid_bottleneck]
  bias_init: [default, zero]
  activation: [relu, leaky_relu]
  beta: [0.001, 0.003, 0.01, 0.03, 0.1]
seeds: 125
"""


def by_harness(tracker: Tracker, records: Sequence[MemberRecord]) -> int:
    """One run a member, with its parameters, tags and metrics."""
    tracker.log("speed", records)
    return sum(len(member_metrics(each)) for each in records)


def by_batches(tracker: Tracker, records: Sequence[MemberRecord]) -> int:
    """The same rows, 1000 at a time into one run: no tool on this store is faster."""
    from mlflow.entities import Metric

    experiment = tracker.client.create_experiment("batches")
    run = tracker.client.create_run(experiment).info.run_id
    rows = [
        Metric(f"{number}/{name}", value, stamp, step)
        for number, each in enumerate(records)
        for name, value, stamp, step in member_metrics(each)
    ]
    for start in range(0, len(rows), 1000):
        tracker.client.log_batch(run, metrics=rows[start : start + 1000])
    return len(rows)


def by_steps(tracker: Tracker, records: Sequence[MemberRecord]) -> int:
    """One run a member, one `log_metrics` a step."""
    import mlflow

    mlflow.set_tracking_uri(tracker.uri)
    mlflow.set_experiment("steps")
    logged = 0
    for each in records[: MEMBERS // 5]:
        with mlflow.start_run():
            by_step: dict[int, dict[str, float]] = {}
            for name, value, _, step in member_metrics(each):
                by_step.setdefault(step, {})[name] = value
            for step, values in by_step.items():
                mlflow.log_metrics(values, step=step)
                logged += len(values)
    return logged


def rows_per_second(log: Callable[[Tracker, Sequence[MemberRecord]], int], records: Sequence[MemberRecord]) -> float:
    """Into a store of its own, the time of creating it not counted."""
    with tempfile.TemporaryDirectory() as place:
        tracker = Tracker(store_uri(None, Path(place)), Path(place))
        tracker.begin("speed")
        tracker.log("speed", records[:2])  # warm: statements compiled
        begun = time.perf_counter()
        return log(tracker, records[2:]) / (time.perf_counter() - begun)


def seconds(program: str, arguments: Sequence[str], folder: Path, repetitions: int = 5) -> float:
    """Median wall time of one command, after one that fills the disk's cache."""
    found = []
    for _ in range(repetitions + 1):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", program, *arguments], cwd=folder, capture_output=True, check=True)
        found.append(time.perf_counter() - begun)
    return round(statistics.median(found[1:]), 2)


def starts() -> dict[str, float]:
    """Seconds of each command, interpreter included."""
    command = "from harness.cli import main; main()"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "planned.yaml").write_text(PLANNED)
        return {
            "python -c pass": seconds("pass", [], folder),
            "import torch": seconds("import torch", [], folder),
            "import harness": seconds("import harness", [], folder),
            "harness --help": seconds(command, ["--help"], folder),
            "harness plan, 5000 members": seconds(command, ["plan", "planned.yaml"], folder),
        }


def main() -> None:
    """Measure in turns and print one JSON a line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("mlruns/results/quickstart")
    records = read_results(folder).records[: MEMBERS + 2]
    rates: dict[str, list[float]] = {}
    for _ in range(3):
        for name, log in (("harness", by_harness), ("log_batch of 1000", by_batches), ("log_metrics a step", by_steps)):
            # a process each: MLflow keeps connections to stores that are gone
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                rates.setdefault(name, []).append(round(pool.submit(rows_per_second, log, records).result()))
    rows = sum(len(member_metrics(each)) for each in records) / len(records)
    print(json.dumps({"metric_rows_per_second": rates, "rows_per_member": round(rows, 1)}))
    print(json.dumps({"seconds": starts()}))


if __name__ == "__main__":
    main()
