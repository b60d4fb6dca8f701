"""One way of logging the members of a finished experiment into a new sqlite store, in a process of its own.

    python experiments/benchmarks/loggers.py NAME RESULTS_FOLDER

prints how many metric rows were written in how many seconds, in JSON; started by logging_rate.py.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from processes import peak_mb

from harness.results import MemberRecord, read_results
from harness.tracking import Tracker, member_metrics, store_uri

A_FEW = 5  # of so many members one is logged step by step: the rest would take as long again
WARM = 2  # members


def by_harness(tracker: Tracker, records: Sequence[MemberRecord]) -> int:
    """One run a member, with its parameters, tags and metrics."""
    tracker.log("speed", records)
    return sum(len(member_metrics(each)) for each in records)


def by_batches(tracker: Tracker, records: Sequence[MemberRecord]) -> int:
    """The same rows, 1000 at a time (the most it takes) into one run: MLflow's own ceiling on this store."""
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
    """One run a member, one `log_metrics` a step, as a plain loop does."""
    import mlflow

    mlflow.set_tracking_uri(tracker.uri)
    mlflow.set_experiment("steps")
    few = records[::A_FEW]
    for each in few:
        with mlflow.start_run():
            by_step: dict[int, dict[str, float]] = {}
            for name, value, _, step in member_metrics(each):
                by_step.setdefault(step, {})[name] = value
            for step, values in by_step.items():
                mlflow.log_metrics(values, step=step)
    return sum(len(member_metrics(each)) for each in few)


def main() -> None:
    """Log them; creating the store and the first two members are not counted."""
    records = read_results(Path(sys.argv[2])).records
    with tempfile.TemporaryDirectory() as place:
        tracker = Tracker(store_uri(None, Path(place)), Path(place))
        tracker.begin("speed")
        tracker.log("speed", records[:WARM])
        begun = time.perf_counter()
        rows = LOGGERS[sys.argv[1]](tracker, records[WARM:])
        seconds = time.perf_counter() - begun
    print(json.dumps({"rows": rows, "seconds": seconds, "peak_mb": peak_mb()}))


LOGGERS: dict[str, Callable[[Tracker, Sequence[MemberRecord]], int]] = {
    "harness": by_harness,
    "log_batch of 1000": by_batches,
    "log_metrics a step": by_steps,
}

if __name__ == "__main__":
    main()
