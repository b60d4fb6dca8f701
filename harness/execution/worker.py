"""Worker process: reads stacks and calls as lines of JSON, and answers with lines of JSON followed by the bytes of records.

`new_worker` starts it with the parent's process id, so that a user's script needs no main guard. Output of the author's
code goes to standard error, and its reads of standard input raise an error. Its forked children cannot write answers. The
worker ends when its parent does.
"""

import json
import os
import signal
import sys
import threading
import time
from typing import Any, BinaryIO

from harness.execution.gc_control import raise_gc_threshold
from harness.execution.spec import spec_of
from harness.execution.stdin import take_stdin


def main() -> None:
    """Answer until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    # before torch loads, which takes seconds in which the parent may be killed
    threading.Thread(target=_exit_with_parent, args=(int(sys.argv[1]),), daemon=True).start()
    stacks = take_stdin()
    raise_gc_threshold()
    import torch

    from harness.execution.calls import answered, is_call
    from harness.execution.process_state import kept_process_state
    from harness.execution.program_batches import CaseCache
    from harness.execution.run_stack import run_stack
    from harness.execution.wire import dump_records
    from harness.training import gpu_is_lost

    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _hide_from_children(stacks.fileno(), answers.fileno())
    cache = CaseCache()
    for line in stacks:
        _answer(answers, {"steps": 0})  # the time limit of the stack begins here
        with kept_process_state():
            if is_call(line):
                _answer(answers, answered(line))
            else:
                records = dump_records(
                    run_stack(spec_of(line), lambda steps: _answer(answers, {"steps": steps}), cache)
                )
                _answer(answers, {"bytes": len(records)}, records)
        if gpu_is_lost():
            os._exit(1)  # the next stack gets a new process


def _hide_from_children(*descriptors: int) -> None:
    """Redirect these descriptors to null in every forked child."""
    null = os.open(os.devnull, os.O_RDWR)
    os.register_at_fork(after_in_child=lambda: [os.dup2(null, descriptor) for descriptor in descriptors])


def _exit_with_parent(parent: int) -> None:
    """End this process when the parent has ended; a killed parent sends no message."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def _answer(answers: BinaryIO, message: dict[str, Any], content: bytes = b"") -> None:
    try:
        answers.write(json.dumps(message).encode() + b"\n" + content)
        answers.flush()
    except BrokenPipeError:
        os._exit(0)
