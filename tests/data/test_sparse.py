"""Sparse matrices from files are judged as the dense ones, without being dense in memory; damaged ones are refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import torch
from commands import within

from harness.data import read_array
from harness.diagnosis import diagnose, spool
from harness.errors import HarnessError

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
CODE = torch.relu(torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) - 0.5)
CODE[:, 0] = 0
SCIPY = ("csr_matrix", "csc_matrix", "coo_matrix", "bsr_matrix", "dia_matrix", "csr_array", "coo_array")
TORCH = {
    "coo": lambda code: code.to_sparse(),
    "rows alone": lambda code: code.to_sparse(1),
    "csr": lambda code: code.to_sparse_csr(),
    "csc": lambda code: code.to_sparse_csc(),
    "bsr": lambda code: code.to_sparse_bsr((2, 2)),
    "bsc": lambda code: code.to_sparse_bsc((2, 2)),
}


@pytest.fixture(autouse=True)
def mapped(monkeypatch):
    monkeypatch.setattr(spool, "MAPPED", 1)


def written(folder, kind):
    if kind in SCIPY:
        file = folder / "code.npz"
        scipy.sparse.save_npz(file, getattr(scipy.sparse, kind)(CODE.numpy()))
        return file
    torch.save(TORCH[kind](CODE), folder / "code.pt")
    return folder / "code.pt"


@pytest.mark.parametrize("kind", [*SCIPY, *TORCH])
def test_every_sparse_layout_is_judged_as_the_dense_matrix(tmp_path, kind, recwarn):
    file = written(tmp_path, kind)
    values = read_array(file, keep_sparse=True)
    assert not [warning for warning in recwarn if "invariant" in str(warning.message)]
    assert values.layout == torch.sparse_coo
    assert torch.equal(read_array(file), CODE)  # as labels or inputs, it is dense
    assert diagnose(values).to_dict() == diagnose(CODE).to_dict()


@pytest.mark.parametrize("kind", ["csr_matrix", "csr"])
def test_the_command_never_makes_it_dense_in_memory(tmp_path, kind, monkeypatch):
    file = written(tmp_path, kind)
    monkeypatch.setattr(torch.Tensor, "to_dense", lambda *_: pytest.fail("dense in memory"))
    done = within("diagnose", file, "--json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads(done.stdout)["verdict"] == diagnose(CODE).verdict


def test_one_array_of_the_archive_is_still_read_by_its_name(tmp_path):
    file = written(tmp_path, "csr_matrix")
    assert read_array(f"{file}:data").shape == (int((CODE > 0).sum()),)


def test_values_that_stand_twice_are_added(tmp_path):
    scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.coo_matrix(([1.0, 2.0], ([0, 0], [1, 1])), (2, 2)))
    assert read_array(tmp_path / "a.npz").tolist() == [[0.0, 3.0], [0.0, 0.0]]


OUTSIDE = "expected a sparse matrix with indices inside of its shape: "
LIES = {
    ("csr_matrix", "indices", 10**6): OUTSIDE + "indices must be < 8",
    ("csr_matrix", "indices", -3): OUTSIDE + "indices must be >= 0",
    ("csr_matrix", "indptr", 10**9): OUTSIDE,
    ("csc_matrix", "indices", 10**6): OUTSIDE + "indices must be < 60",
    ("coo_matrix", "col", 10**6): OUTSIDE + "axis 1 index 1000000 exceeds matrix dimension 8",
    ("coo_matrix", "row", -3): OUTSIDE + "negative axis 0 index",
    ("bsr_matrix", "indices", 10**6): OUTSIDE,
    ("csc_matrix", "shape", 10**12): OUTSIDE,
    ("csr_matrix", "shape", 10**12): "declares a sparse matrix of",
    (
        "coo_matrix",
        "shape",
        10**12,
    ): "declares a sparse matrix of .* GiB with its zeros, and .* save fewer rows or units",
}


@pytest.mark.parametrize(("kind", "entry", "value"), LIES)
def test_an_archive_that_lies_is_refused_in_one_sentence(tmp_path, kind, entry, value):
    file = written(tmp_path, kind)
    arrays = dict(np.load(file))
    arrays[entry] = arrays[entry].astype(np.int64)
    arrays[entry].reshape(-1)[-1] = value
    np.savez(file, **arrays)
    refused(file, LIES[kind, entry, value])


def test_an_archive_that_lacks_a_part_or_holds_a_pickle_is_refused(tmp_path):
    file = written(tmp_path, "csr_matrix")
    arrays = dict(np.load(file))
    np.savez(file, **{name: array for name, array in arrays.items() if name != "indptr"})
    refused(file, "cannot be read as .npz")
    np.savez(file, **{**arrays, "data": np.array([{}], dtype=object)})
    refused(file, r"holds Python objects \(a pickle\)")


FALSE_TENSORS = {
    "coo": lambda: torch.sparse_coo_tensor([[0, 99], [0, 1]], torch.ones(2), (4, 3), check_invariants=False),
    "csr": lambda: torch.sparse_csr_tensor(
        torch.tensor([0, 1, 2, 2, 2]), torch.tensor([0, 99]), torch.ones(2), (4, 3), check_invariants=False
    ),
    "csc": lambda: torch.sparse_csc_tensor(
        torch.tensor([0, 1, 2, 2]), torch.tensor([0, 99]), torch.ones(2), (4, 3), check_invariants=False
    ),
}


@pytest.mark.parametrize("kind", FALSE_TENSORS)
def test_a_sparse_tensor_with_indices_outside_of_its_shape_is_refused(tmp_path, kind):
    torch.save(FALSE_TENSORS[kind](), tmp_path / "code.pt")
    refused(tmp_path / "code.pt", OUTSIDE)


@pytest.mark.parametrize("kind", ["coo_matrix", "coo"])
def test_a_shape_larger_than_memory_is_refused_and_a_smaller_one_read(tmp_path, monkeypatch, kind):
    file, size = written(tmp_path, kind), CODE.numel() * CODE.element_size()
    monkeypatch.setattr("harness.data.readers.check_fits", lambda size: None)  # of the archive
    monkeypatch.setattr("harness.data.memory.free_memory", lambda: size - 1)
    with pytest.raises(HarnessError, match=r"declares a sparse matrix of 0.0 GiB with its zeros"):
        read_array(file, keep_sparse=True)
    monkeypatch.setattr("harness.data.memory.free_memory", lambda: size)
    assert read_array(file, keep_sparse=True).shape == CODE.shape


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(monkeypatch):
    size = CODE.numel() * CODE.element_size()
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda folder: SimpleNamespace(free=size))
    diagnose(CODE.to_sparse())
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda folder: SimpleNamespace(free=size - 1))
    with pytest.raises(HarnessError, match=r"activations: a sparse matrix takes .* GiB of .* are free; give TMPDIR"):
        diagnose(CODE.to_sparse())


def refused(file, message):
    for keep_sparse in (True, False):
        with pytest.raises(HarnessError, match=message) as error:
            read_array(file, keep_sparse=keep_sparse)
        assert str(error.value).startswith(f"{file}: ")
        assert "\n" not in str(error.value)
