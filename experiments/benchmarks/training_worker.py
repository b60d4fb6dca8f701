"""One process of one contender, told over a pipe what to train and when; started by training_speed.py.

The first line is the task, in JSON. It prepares, warms up, and answers with how many threads it works; at each further line
it works for so many seconds as the task says, and answers what was done.
"""

import json
import sys
import time

from processes import peak_mb
from ready import Ready


def prepared(workload: str, contender: str, members: int, share: int, shares: int) -> Ready:
    """The contender with its share of the members; no library is loaded that it does not need."""
    if contender == "JAX":
        from jax_contender import vmapped

        return vmapped(members)
    from contenders import LIMITS, share_of

    return LIMITS[workload]() if workload in LIMITS else share_of(workload, contender, members, share, shares)


def measured(ready: Ready, seconds: float) -> dict[str, float]:
    """Work until the time is over, at least one piece."""
    begun, used, done = time.perf_counter(), time.process_time(), 0.0
    while not done or time.perf_counter() - begun < seconds:
        done += ready.work(ready.steps)
    return {"done": done, "cpu": time.process_time() - used, "peak_mb": peak_mb()}


def main() -> None:
    """Answer a line with a line."""
    task = json.loads(sys.stdin.readline())
    seconds = task.pop("seconds")
    ready = prepared(**task)
    measured(ready, seconds)  # kernels chosen, operations written out
    print(json.dumps({"threads": ready.threads, "compile_seconds": ready.compile_seconds}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measured(ready, seconds)), flush=True)


if __name__ == "__main__":
    main()
