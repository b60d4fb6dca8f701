"""Ctrl-C and SIGTERM in the middle of a search: what is known is printed, and the same command goes on from it."""

import os
import signal
import subprocess
import sys

import pytest
from commands import CODE, ROOT
from waiting import LONGEST

pytestmark = pytest.mark.service

DEAD = """
import torch
import torch.nn.functional as F
from torch import nn
import harness


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(8, 4), nn.Linear(4, 8)
        nn.init.constant_(self.encoder.bias, -40.0)

    def forward(self, batch):
        return self.decoder(F.relu(self.encoder(batch)))


def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(640, 3, generator=generator) @ torch.randn(3, 8, generator=generator)


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}


case = harness.Case(Autoencoder, rows, losses, "encoder", train={"epochs": 3, "learning_rate": 0.01})
"""
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
    (tmp_path / "mine.py").write_text(DEAD)
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
