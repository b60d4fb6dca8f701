"""Small files that declare more than memory holds are refused before anything is unpacked."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from harness.data.memory import check_fits, free_memory
from harness.data.readers import read_array
from harness.errors import HarnessError

MIB = 2**20
DECLARED = 64 * MIB


def npz(file):
    """64 MiB of zeros in 64 KB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**17, 64)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("codes.npy", "w") as entry:
        entry.write(header.getvalue())
        for _ in range(64):
            entry.write(bytes(MIB))


def parquet(file):
    column = pa.array(np.zeros(2**17))
    pq.write_table(pa.table({f"u{unit}": column for unit in range(64)}), file, compression="zstd")


def expanded(file):
    torch.save(torch.zeros(1).expand(2**18, 64), file)


def sparse(file):
    torch.save(torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (2**18, 64)), file)


def compressed(file):
    """A tensor whose archive was packed again, compressed."""
    buffer = io.BytesIO()
    torch.save(torch.zeros(2**18, 64), buffer)
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))


BOMBS = {"npz": npz, "parquet": parquet, "expanded.pt": expanded, "sparse.pt": sparse, "compressed.pt": compressed}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_file_that_declares_more_than_memory_holds_is_refused(tmp_path, monkeypatch, kind):
    file = tmp_path / f"bomb.{kind}"
    BOMBS[kind](file)
    assert file.stat().st_size < MIB
    monkeypatch.setattr("harness.data.memory.free_memory", lambda: 3 * DECLARED - MIB)
    with pytest.raises(HarnessError, match=r"holds 0\.1 GiB of numbers when unpacked, which take 0\.2 GiB of memory"):
        read_array(file)


@pytest.mark.parametrize("kind", ["npz", "parquet", "expanded.pt", "sparse.pt"])
def test_the_same_file_is_read_where_memory_holds_it(tmp_path, monkeypatch, kind):
    file = tmp_path / f"bomb.{kind}"
    BOMBS[kind](file)
    monkeypatch.setattr("harness.data.memory.free_memory", lambda: 4 * DECLARED)
    rows = read_array(file)
    assert rows.numel() * rows.element_size() == DECLARED


def test_free_memory_is_between_nothing_and_what_the_machine_has():
    free = free_memory()
    with open("/proc/meminfo") as file:
        total = 1024 * int(file.readline().split()[1])
    assert free is not None
    assert 0 < free <= total
    check_fits(1)


def test_a_machine_that_does_not_tell_its_memory_refuses_nothing(monkeypatch):
    monkeypatch.setattr("harness.data.memory.free_memory", lambda: None)
    check_fits(2**60)


@pytest.mark.parametrize("header", [False, True])
def test_a_wide_table_is_read_as_pandas_reads_it(tmp_path, header):
    rows = np.random.default_rng(0).normal(size=(3, 3000))
    names = ",".join(f"u{unit}" for unit in range(3000)) + "\n"
    lines = "\n".join(",".join(map(repr, row.tolist())) for row in rows)
    (tmp_path / "wide.csv").write_text((names if header else "") + lines + "\n")
    assert np.array_equal(read_array(tmp_path / "wide.csv").numpy(), rows)


def test_a_wide_table_with_an_empty_cell_has_a_missing_number(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(["0.5", "", *["1.5"] * 3000]) + "\n")
    row = read_array(tmp_path / "wide.csv").numpy()[0]
    assert np.isnan(row[1])
    assert (row[0], row[2:].tolist()) == (0.5, [1.5] * 3000)


def test_one_row_of_half_a_million_columns_is_answered_within_seconds_of_the_processor(tmp_path):
    from waiting import processor_seconds

    (tmp_path / "wide.csv").write_text(",".join(["0"] * 500_001) + "\n")
    assert processor_seconds(lambda: read_array(tmp_path / "wide.csv"), enough=10.0) < 10.0
