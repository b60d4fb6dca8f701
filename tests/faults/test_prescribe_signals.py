"""Ctrl-C and SIGTERM in the middle of a search: what is known is printed, and the same command goes on from it."""

import os
import signal
import subprocess
import sys

import pytest
from commands import CODE, ROOT
from dead_case import DEAD_FILE
from waiting import LONGEST

pytestmark = pytest.mark.service

WORDS = ("prescribe", "mine.py", "--budget", "30m", "--seeds", "8", "--try", "zero_bias,batchnorm")


def started(folder):
    """The command in a process group of its own, as a terminal has it."""
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *WORDS],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_search_that_is_stopped_says_what_it_knows_and_goes_on(tmp_path, number, code):
    (tmp_path / "mine.py").write_text(DEAD_FILE)
    search = started(tmp_path)
    for line in search.stderr:  # the screening has begun, so the examination is known
        if line.startswith("round"):
            break
    os.killpg(search.pid, number)
    out, error = search.communicate(timeout=LONGEST)
    assert search.returncode == code
    assert "Stopped before the proof" in out
    assert "mine fail as it is" in out
    assert "the same command goes on from them" in error
    assert "Traceback" not in error

    out, _ = started(tmp_path).communicate(timeout=LONGEST)
    assert "members were trained before" in out
    assert "works" in out.splitlines()[0]
