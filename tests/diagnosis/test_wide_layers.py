"""Wide layers: mapped files, batches and sparse tensors give what the matrix in memory gives, and copies are found."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from commands import within
from safetensors.torch import save_file
from scipy.stats import rankdata

from harness import diagnose
from harness.cli import diagnose as command
from harness.data import read_array, readers
from harness.diagnosis import copy_search, redundancy_large, spooling
from harness.diagnosis.copy_search import candidates
from harness.errors import HarnessError
from harness.measures.cell_ranks import cell_ranks


def layer(rows=300, units=40, dtype=torch.float32):
    """Sparse ReLU units: the first two are dead, the next two copies of the last ones."""
    code = torch.relu(torch.randn(rows, units) - 0.5).to(dtype)
    code[:, :2] = 0
    code[:, 2:4] = 3 * code[:, -2:]
    return code


@pytest.fixture
def mapped(monkeypatch):
    monkeypatch.setattr(readers, "MAPPED", 1)
    monkeypatch.setattr(spooling, "MAPPED", 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_mapped_file_has_the_values_and_is_not_written_to(tmp_path, mapped, dtype):
    path, values = tmp_path / "layer.npy", layer().numpy().astype(dtype)
    np.save(path, values)
    content = path.read_bytes()
    read = read_array(path)
    np.testing.assert_array_equal(read.numpy(), values, strict=True)
    read[0, 0] = 7.0
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["big-endian", "column by column", "whole numbers"])
def test_files_in_another_order_are_read_into_memory(tmp_path, mapped, kind):
    values = layer().numpy()
    stored = {"big-endian": values.astype(">f4"), "column by column": np.asfortranarray(values)}
    stored["whole numbers"] = np.arange(12).reshape(4, 3)
    np.save(tmp_path / "layer.npy", stored[kind])
    np.testing.assert_array_equal(read_array(tmp_path / "layer.npy").numpy(), stored[kind])


def test_a_large_file_is_not_held_in_memory(tmp_path):
    values = np.zeros((2**10, 2**15), np.float32)  # 128 MiB
    np.save(tmp_path / "layer.npy", values)
    del values
    tracemalloc.start()
    read = read_array(tmp_path / "layer.npy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read.shape == (2**10, 2**15)
    assert peak < 2**20


def test_safetensors_are_read_by_name(tmp_path):
    code = layer()
    save_file({"codes": code}, tmp_path / "one.safetensors")
    save_file({"codes": code, "more": code + 1}, tmp_path / "two.safetensors")
    save_file({"layer.weight": code}, tmp_path / "model.safetensors")
    assert torch.equal(read_array(tmp_path / "one.safetensors"), code)
    assert torch.equal(read_array(f"{tmp_path}/two.safetensors:more"), code + 1)
    with pytest.raises(HarnessError, match="holds 2 arrays"):
        read_array(tmp_path / "two.safetensors")
    with pytest.raises(HarnessError, match="holds a model's weights"):
        read_array(tmp_path / "model.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(HarnessError, match=r"cannot be read as \.safetensors"):
        read_array(tmp_path / "damaged.safetensors")
    assert within("diagnose", "one.safetensors", folder=tmp_path).returncode == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_batches_and_sparse_tensors_are_judged_as_the_matrix(mapped, dtype):
    code = layer(dtype=dtype)
    expected = diagnose(code).to_dict()
    assert diagnose(iter(code.split(64))).to_dict() == expected
    assert diagnose(batch for batch in code.split(7)).to_dict() == expected
    for sparse in (code.to_sparse(), code.to_sparse_csr()):
        assert diagnose(sparse).to_dict() == expected


def test_a_sparse_tensor_is_dense_in_blocks_only(mapped, monkeypatch):
    monkeypatch.setattr(spooling, "BLOCK", 1000)
    code = layer()
    assert torch.equal(spooling.spooled(code.to_sparse(), "activations"), code)
    assert {len(block) for block in spooling._dense_blocks(code.to_sparse())} == {6}
    empty = torch.zeros(9, 4).to_sparse()
    assert torch.equal(spooling.spooled(empty, "activations"), torch.zeros(9, 4))


def test_batches_of_arrays_and_of_whole_numbers_are_taken():
    counts = np.arange(60).reshape(20, 3) % 7
    assert diagnose(iter([counts[:5], counts[5:]])).to_dict() == diagnose(counts).to_dict()


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one batch"),
        ([torch.zeros(0, 3)], "at least one batch"),
        ([torch.zeros(3)], r"batches \[sample, unit\], got the shape \[3\]"),
        ([torch.zeros(2, 3), torch.zeros(2, 4)], "batches of 3 units .* got 4 units"),
        ([torch.zeros(2, 3), torch.zeros(2, 3).double()], "in torch.float64 in batch 1"),
        ([torch.zeros(2, 3, dtype=torch.bool)], "expected real numbers"),
    ],
)
def test_batches_that_are_no_matrix_are_refused(batches, message):
    with pytest.raises(HarnessError, match=message):
        diagnose(iter(batches))


@pytest.mark.parametrize("few_rows", [0, 1, 30, 200])
def test_ranks_by_counting_are_scipys(few_rows):
    cells = torch.floor(torch.randn(3, 5, 80) * torch.logspace(-1, 1, 5)[:, None]).double()
    expected = rankdata(cells.numpy(), axis=-1)
    most = np.array([[np.unique(line, return_counts=True)[1].max() for line in member] for member in cells.numpy()])
    expected[80 - most < few_rows] = 40.5
    np.testing.assert_array_equal(cell_ranks(cells, few_rows).numpy(), expected)
    assert cell_ranks(cells * 1000, few_rows) is None


def test_copies_in_a_wide_layer_are_those_of_the_comparison_of_all_pairs(monkeypatch):
    """One unit in ten is a copy, a third of them negative, some only in order."""
    code = torch.randn(400, 1500)
    code[:, 100:200] = code[:, 300:400] + 0.05 * torch.randn(400, 100)
    code[:, 200:250] = -code[:, 400:450]
    code[:, 250:260] = code[:, 260:270].exp()
    monkeypatch.setattr(redundancy_large, "WIDE", 10**9)
    thresholds = {"large_units": 100}
    expected = diagnosed(code, thresholds)
    monkeypatch.setattr(redundancy_large, "WIDE", 10)
    found = diagnosed(code, thresholds)
    assert len(expected.links) == 160
    assert found.to_dict() == expected.to_dict()


def diagnosed(code, thresholds):
    from harness import Thresholds

    return diagnose(code, thresholds=Thresholds(**thresholds))


def test_many_equal_units_are_candidates_of_the_first():
    sketch = torch.randn(1, 64).expand(500, 64) / 8
    sketch = sketch / sketch.norm(dim=-1, keepdim=True)
    first, best = candidates(sketch, 0.9)
    assert first.tolist() == [-1] + [0] * 499
    assert (best[1:] >= 0).all()


def test_units_that_are_not_compared_are_no_candidates():
    assert [partner.tolist() for partner in candidates(torch.zeros(5, 8), 0.9)] == [[-1] * 5] * 2


@pytest.mark.parametrize("correlation", [0.99, 0.995, 1.0])
def test_hardly_a_copy_is_left_out(correlation):
    """Of 1000 planted pairs among 6000 others, with the sketch's own scatter."""
    one = torch.randn(1000, copy_search.MORE_PLANES + 253)
    two = correlation * one + (1 - correlation**2) ** 0.5 * torch.randn_like(one)
    sketch = torch.nn.functional.normalize(torch.cat([one, two, torch.randn(6000, 256)]), dim=-1)
    close = (sketch[:1000] * sketch[1000:2000]).sum(-1) >= 0.98
    first, _ = candidates(sketch, 0.98)
    missed = int((first[1000:2000] != torch.arange(1000))[close].sum())
    assert missed <= 1


def test_a_table_made_in_parts_is_the_table(monkeypatch):
    import pandas as pd

    diagnosis = diagnose(layer(), labels=torch.arange(300) % 3)
    expected = diagnosis.to_frame()
    monkeypatch.setattr("harness.diagnosis.frame.AT_ONCE", 7)
    pd.testing.assert_frame_equal(diagnosis.to_frame(), expected)


def test_units_of_a_very_wide_layer_are_a_parquet_file_beside_the_document(tmp_path, monkeypatch):
    import pandas as pd

    code = layer()
    np.save(tmp_path / "wide.npy", code.numpy())
    monkeypatch.setattr(command, "MOST_UNITS", 39)
    done = within("diagnose", "wide.npy", "--json", folder=tmp_path)
    document = json.loads(done.stdout)
    assert document["units"] == []
    assert document["units_file"] == str(tmp_path / "wide.units.parquet")
    assert "40 units are in" in done.stderr
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "wide.units.parquet"), diagnose(code).to_frame())
    monkeypatch.setattr(command, "MOST_UNITS", 40)
    assert len(json.loads(within("diagnose", "wide.npy", "--json", folder=tmp_path).stdout)["units"]) == 40
