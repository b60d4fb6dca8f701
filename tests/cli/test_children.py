"""What a case forks in a command answers to signals as any process of Python, and loses none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONGEST

PROGRAM = """
import os, signal
from harness.cli.signals import kill_now, install_handlers, spare_children

{before}
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, kill_now)
spare_children()
install_handlers("farewell")
child = os.fork()
if not child:
    {child}
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGTERM).__module__)
"""
WHILE_FORKING = "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))"
LATER = "os.kill(os.getpid(), signal.SIGTERM)"
ASKED = "os._exit(7 if signal.getsignal(signal.SIGINT) is signal.default_int_handler else 0)"


@pytest.mark.parametrize(
    ("before", "child", "status"),
    [(WHILE_FORKING, "pass", -15), ("", LATER, -15), ("", ASKED, 7)],
    ids=["at once", "later", "ctrl-c"],
)
def test_a_forked_child_ends_by_a_signal_and_its_parent_answers_as_before(before, child, status):
    code = PROGRAM.format(before=before, child=child)
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=LONGEST)
    assert done.stdout.splitlines() == [str(status), "set() harness.cli.signals"], done.stderr
