"""Settings that a case changes end with its stack."""

import os
from pathlib import Path

import pytest
import torch

from harness.execution.process_state import kept_process_state
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec

CASE = """
import os, torch
from torch import nn
import harness

def losses(model, batch, scale=1.0):
    {loss}
    return {{"reconstruction": ((model(batch) - batch) ** 2).mean()}}

def model():
    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6))

def data():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))

case = harness.Case(model, data, losses, "0", numbers={{"scale": 1.0}}, train={{"epochs": 1, "batch_size": 16}})
"""


def trained(folder: Path, name: str, loss: str):
    file = folder / f"{name}.py"
    file.write_text(CASE.format(loss=loss))
    return run_stack(StackSpec(str(file), None, tuple(StackMember(f"k{seed}", "v", {}, seed) for seed in range(2))))


def test_settings_of_torch_and_the_working_directory_are_restored(tmp_path):
    before = os.getcwd()
    with kept_process_state():
        os.chdir(tmp_path)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        torch.set_num_threads(torch.get_num_threads() + 1)
    assert os.getcwd() == before
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_device() == torch.device("cpu")
    assert torch.overrides._get_current_function_mode_stack() == []  # a set device would slow every call of torch
    assert torch.is_grad_enabled()
    assert torch.get_num_threads() == 1


def test_a_working_directory_that_was_deleted_is_no_error(tmp_path):
    before = os.getcwd()
    (tmp_path / "gone").mkdir()
    try:
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with kept_process_state():
            os.chdir(before)
    finally:
        os.chdir(before)


def test_a_default_dtype_that_a_loss_sets_does_not_reach_the_next_stack(tmp_path):
    loud = trained(tmp_path, "loud", "torch.set_default_dtype(torch.float64)")
    assert torch.get_default_dtype() == torch.float32
    assert [record.status for record in loud] == ["ok", "ok"]
    quiet = trained(tmp_path, "quiet", "pass")
    assert [repr(record.history) for record in loud] == [repr(record.history) for record in quiet]


def test_a_stack_whose_data_cannot_be_read_again_is_failed_members_and_no_error(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(CASE.format(loss="pass").replace("def data():", "def data():\n    raise OSError('gone')"))
    records = run_stack(StackSpec(str(file), None, (StackMember("k", "v", {}, 0),)))
    assert [record.status for record in records] == ["failed"]
    assert "gone" in str(records[0].error)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_the_reason_of_a_failed_member_can_be_stored_whatever_the_case_says(tmp_path, text):
    from harness.results import read_records, write_stack

    records = trained(tmp_path, "own", f"raise ValueError({text!a})")
    write_stack(tmp_path, records)
    assert {record.error for record in read_records(tmp_path)[0]} == {records[0].error}
    assert "\\ud" in str(records[0].error)
