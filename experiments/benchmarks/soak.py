"""Thousands of members with a kill every minute: is anything lost, does memory grow?

    python experiments/benchmarks/soak.py --members 5000 --kill-every 60

The kills end when every member is on disk: logging what is left and the report of thousands of members take longer
than a minute. Prints one JSON document: members, kills, wall time, records, the store's runs and rows, and the largest
resident memory of the driver and of a worker in each run. A folder that has a part of it is gone on with.
"""

import argparse
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

VARIANTS = 20
EXPERIMENT = """
name: soak
case: forum
factors:
  penalty: [none, as_posted, kl_sigmoid_of_relu, kl_sigmoid_bottleneck, l1]
  activation: [relu, leaky_relu]
  batchnorm: [off, on]
seeds: {seeds}
train: {{epochs: {epochs}, batch_size: 64}}
"""


def main() -> None:
    """Run, kill, run again until it is done, and count."""
    wanted = argparse.ArgumentParser(description=__doc__)
    wanted.add_argument("--members", type=int, default=5000)
    wanted.add_argument("--epochs", type=int, default=3)
    wanted.add_argument("--kill-every", type=float, default=60.0, help="seconds")
    wanted.add_argument("--folder", type=Path, default=None)
    chosen = wanted.parse_args()
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    seeds = -(-chosen.members // VARIANTS)
    (folder / "soak.yaml").write_text(EXPERIMENT.format(seeds=seeds, epochs=chosen.epochs))
    started, memory = time.monotonic(), []
    while not _ended(folder, chosen.kill_every, memory, seeds * VARIANTS):
        pass
    print(json.dumps(_counted(folder, seeds * VARIANTS, len(memory) - 1, time.monotonic() - started, memory), indent=1))


def _ended(folder: Path, seconds: float, memory: list[dict[str, float]], members: int) -> bool:
    """One run, killed after so many seconds if members are missing; whether it came to its end."""
    seconds = math.inf if _done(folder) == members else seconds
    code = "import sys; sys.argv = ['harness', 'run', 'soak.yaml', '--json']; from harness.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2].resolve())}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    deadline, largest = time.monotonic() + seconds, {"driver": 0.0, "worker": 0.0}
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
        for name, found in _resident(process.pid).items():
            largest[name] = max(largest[name], found)
    memory.append(largest)
    if process.poll() is not None:
        if process.returncode:
            sys.exit(f"a run ended by itself with {process.returncode}")
        return True
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    print(f"killed after {seconds:.0f} s: {_done(folder)} members on disk, {largest}", file=sys.stderr, flush=True)
    return False


def _resident(driver: int) -> dict[str, float]:
    """Megabytes of the driver and of its largest worker (Linux)."""
    children = []
    for thread in Path(f"/proc/{driver}/task").glob("*/children"):
        with suppress(OSError):
            children += thread.read_text().split()
    return {"driver": _megabytes(str(driver)), "worker": max((_megabytes(each) for each in children), default=0.0)}


def _megabytes(process: str) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def _done(folder: Path) -> int:
    from harness.results import read_records

    return len(read_records(folder / "mlruns" / "results" / "soak")[0])


def _counted(
    folder: Path, members: int, kills: int, seconds: float, memory: list[dict[str, float]]
) -> dict[str, object]:
    from harness.results import read_records

    records, damaged = read_records(folder / "mlruns" / "results" / "soak")
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as connection:
        alive = "FROM runs WHERE lifecycle_stage = 'active'"
        runs = connection.execute(f"SELECT count(*) {alive}").fetchone()[0]
        running = connection.execute(f"SELECT count(*) {alive} AND status = 'RUNNING'").fetchone()[0]
        rows = connection.execute("SELECT count(*) FROM metrics").fetchone()[0]
    return {
        "members": members,
        "records": len(records),
        "damaged": damaged,
        "kills": kills,
        "seconds": round(seconds),
        "runs": runs,
        "runs_wanted": members + 1,
        "running": running,
        "metric_rows": rows,
        "store_megabytes": round((folder / "mlruns" / "mlflow.db").stat().st_size / 1e6, 1),
        "memory_megabytes": memory,
    }


if __name__ == "__main__":
    main()
