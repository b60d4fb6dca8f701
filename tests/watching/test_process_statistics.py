"""Two processes that train one DistributedDataParallel model: counts add up, and rank 0 alone writes."""

import os
import socket
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import harness


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))
    with torch.no_grad():
        model[0].bias[2] = -1000.0
    return model


def rows():
    return torch.randn(1280, 6, generator=torch.Generator().manual_seed(3))


def work(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        model = nn.parallel.DistributedDataParallel(build().train())
        lines = []
        with harness.watch(model, "0", callback=lines.append, steps_per_epoch=5, gradients=True) as monitor:
            for _ in range(2):
                for batch in rows()[rank::2].split(128):
                    loss = (model(batch) - batch).square().mean()
                    monitor.terms(reconstruction=loss)
                    loss.backward()
        page = monitor.report(Path(folder) / "page")
        monitor.history().to_pickle(Path(folder) / f"history{rank}.pkl")
        units = monitor.units()
        facts = {"rows": int(units["rows"].iloc[0]), "judged": monitor.diagnosis().rows, "page": page.exists()}
        facts |= {"dead": [unit.index for unit in monitor.diagnosis().units if unit.verdict == "dead"]}
        torch.save({**facts, "lines": lines}, Path(folder) / f"facts{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.mark.service
def test_two_processes_add_up_in_rank_0(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"facts{rank}.pt") for rank in (0, 1))
    assert first["rows"] == 2 * 1280
    assert second["rows"] == 1280
    assert first["dead"] == [2]
    assert first["judged"] >= 1000
    assert first["page"]
    assert second["lines"] == []
    with torch.no_grad():
        values = torch.relu(build()[0](torch.cat([rows()[rank::2][:128] for rank in (0, 1)]))).double()
    history = pandas.read_pickle(tmp_path / "history0.pkl")
    frame = history[history["step"] == 1]
    np.testing.assert_allclose(frame["activation_frequency"], (values > 0).double().mean(0))
    np.testing.assert_allclose(frame["mean"], values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(frame["sd"], values.std(0, correction=0), rtol=1e-6)
    one = build()
    both = torch.cat([rows()[rank::2][:128] for rank in (0, 1)])
    raw = one[0](both)
    loss = (one[2](torch.relu(raw)) - both).square().mean()
    gradient = torch.autograd.grad(loss, raw)[0].norm(dim=0)
    np.testing.assert_allclose(frame["gradient/reconstruction"], gradient, rtol=1e-5)
