"""An interrupted command is out in five seconds, whatever it waits for."""

import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONGEST

from harness.cli.signals import LATEST
from harness.experiment.publisher import PATIENCE

WAITING = """
import os, signal, threading
from harness.cli import signals
signals.LATEST = {latest}
signals.install_handlers("bye")
try:
    os.kill(os.getpid(), {number})
    threading.Event().wait()
except signals.Interrupted:
    {then}
"""


def stopped(**parts):
    """Exit code and words of a process that interrupts itself."""
    code, folder = WAITING.format(**parts), Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=LONGEST)
    return done.returncode, done.stderr


def test_a_store_that_does_not_answer_leaves_a_second_to_leave_in():
    assert PATIENCE <= LATEST - 1 <= 4 - 1


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_what_waits_for_ever_after_an_interrupt_is_ended_all_the_same(number, code):
    assert stopped(latest=0.1, number=number, then="threading.Event().wait()") == (code, "bye\n")


def test_what_is_done_before_leaves_in_order():
    assert stopped(latest=LONGEST, number=15, then="print('in order', file=__import__('sys').stderr)") == (
        0,
        "in order\n",
    )
