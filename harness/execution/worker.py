"""A worker process: reads stacks as lines of JSON, answers with lines of JSON, and records as bytes behind them.

Started by `new_worker` with the parent's process number, so that a user's script needs no main guard. Whatever the
author's code prints goes to standard error, and what it asks for is refused. What it forks has no part in the answers.
When the parent is gone, so is the worker.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import BinaryIO

from harness.execution.gc_control import raise_gc_threshold
from harness.execution.spec import spec_of
from harness.execution.stdin import take_stdin


def main() -> None:
    """Answer until the parent closes the line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # before torch loads: a parent that is killed in these seconds would be missed, and the stack trained to its end
    threading.Thread(target=_follow_the_parent, args=(int(sys.argv[1]),), daemon=True).start()
    stacks = take_stdin()
    raise_gc_threshold()
    import torch

    from harness.execution.program_batches import CaseCache
    from harness.execution.run_stack import run_stack
    from harness.execution.wire import dump_records
    from harness.training import gpu_is_lost

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _keep_from_children(stacks.fileno(), answers.fileno())
    known = CaseCache()
    for line in stacks:
        records = dump_records(run_stack(spec_of(line), lambda steps: _answer(answers, {"steps": steps}), known))
        _answer(answers, {"bytes": len(records)}, records)
        if gpu_is_lost():
            os._exit(1)  # the next stack has a new process


def _keep_from_children(*descriptors: int) -> None:
    """In a child that the author's code forks these lead nowhere: its answers are nobody's, and its end is no end of them."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.register_at_fork(after_in_child=lambda: [os.dup2(nothing, descriptor) for descriptor in descriptors])


def _follow_the_parent(parent: int) -> None:
    """Go when the parent is gone: a killed one says no word, and an epoch may be long."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def _answer(answers: BinaryIO, said: dict[str, int], content: bytes = b"") -> None:
    try:
        answers.write(json.dumps(said).encode() + b"\n" + content)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)
