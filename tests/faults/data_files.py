"""Data files as `diagnose` gets them: whole, broken, hostile. Each is answered or refused in one sentence."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
import torch

ROWS = np.random.default_rng(0).normal(size=(40, 4))
Writer = Callable[[Path], object]
OUTSIDE = {"format": b"coo", "shape": (4, 4), "data": [1.0], "row": [9], "col": [9]}  # of a sparse matrix


class Hostile:
    """A pickle that runs code."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was run')",))


def text(content: str) -> Writer:
    return lambda file: file.write_text(content, encoding="utf-8")


def raw(content: bytes) -> Writer:
    return lambda file: file.write_bytes(content)


def array(values: object, **options: object) -> Writer:
    return lambda file: np.save(file, np.asarray(values), **options)


def tensor(values: object) -> Writer:
    return lambda file: torch.save(values, file)


def table(**columns: object) -> Writer:
    return lambda file: pq.write_table(pa.table(columns), file)


def cut(write: Writer, share: float) -> Writer:
    def shortened(file: Path) -> None:
        write(file)
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])

    return shortened


def header(shape: tuple[int, ...], descr: str = "<f8", body: bytes = b"") -> bytes:
    """A `.npy` file whose header declares this shape."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + body


def zipped(**entries: bytes) -> Writer:
    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(f"{name}.npy", content)

    return write


def lines(rows: np.ndarray, separator: str = ",") -> str:
    return "\n".join(separator.join(map(repr, row.tolist())) for row in rows) + "\n"


def itself(file: Path) -> None:
    file.symlink_to(file)


DATA_FILES: dict[str, Writer] = {
    "whole.npy": array(ROWS),
    "whole.pt": tensor(torch.tensor(ROWS)),
    "whole.csv": text(lines(ROWS)),
    "whole.parquet": table(**{f"u{unit}": ROWS[:, unit] for unit in range(4)}),
    "whole.npz": lambda file: np.savez(file, codes=ROWS),
    "whole.safetensors": raw(struct.pack("<Q", 2) + b"{}"),
    "empty.npy": raw(b""),
    "empty.pt": raw(b""),
    "empty.csv": raw(b""),
    "empty.parquet": raw(b""),
    "empty.npz": raw(b""),
    "garbage.npy": raw(b"garbage" * 99),
    "garbage.pt": raw(b"garbage" * 99),
    "garbage.csv": raw(bytes(range(256)) * 9),
    "garbage.parquet": raw(b"garbage" * 99),
    "garbage.npz": raw(b"garbage" * 99),
    "garbage.safetensors": raw(b"garbage" * 99),
    "cut.npy": cut(array(ROWS), 0.5),
    "cut.pt": cut(tensor(torch.tensor(ROWS)), 0.5),
    "cut.parquet": cut(table(a=ROWS[:, 0]), 0.5),
    "cut.npz": cut(lambda file: np.savez(file, codes=ROWS), 0.5),
    "cut.csv": cut(text(lines(ROWS)), 0.5),
    "a_folder.npy": Path.mkdir,
    "a_link_to_itself.npy": itself,
    "objects.npy": array(np.array([Hostile()], dtype=object), allow_pickle=True),
    "objects.pt": tensor(Hostile()),
    "a_pickle.pt": raw(pickle.dumps(Hostile())),
    "a_pickle.npy": raw(pickle.dumps(Hostile())),
    "objects.npz": lambda file: np.savez(file, np.array([Hostile()], dtype=object)),
    "words.npy": array(["a", "b"]),
    "words.csv": text("a,b\nx,y\n"),
    "words.parquet": table(a=["x", "y"]),
    "dates.npy": array(np.array(["2026-01-01"], dtype="datetime64[D]")),
    "complex.npy": array(ROWS * 1j),
    "booleans.npy": array(ROWS > 0),
    "whole_numbers.npy": array((ROWS * 10).astype(np.int64)),
    "huge_header.npy": raw(header((10**12, 100))),
    "negative_header.npy": raw(header((-4, 4))),
    "overflowing_header.npy": raw(header((2**62, 2**62))),
    "huge_header.npz": zipped(codes=header((10**9, 100))),
    "zeros_of_64_MB.npz": zipped(codes=header((2**17, 64), body=bytes(2**26))),
    "expanded_32_GB.pt": tensor(torch.zeros(1).expand(2**28, 32)),
    "sparse_32_GB.pt": tensor(torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (2**28, 32))),
    "sparse.npz": lambda file: scipy.sparse.save_npz(file, scipy.sparse.csr_matrix(ROWS)),
    "sparse_outside.npz": lambda file: np.savez(file, **OUTSIDE),
    "sparse_outside.pt": tensor(torch.sparse_coo_tensor([[9], [9]], torch.ones(1), (4, 4), check_invariants=False)),
    "wide.csv": text(",".join(["0"] * 500_001) + "\n"),
    "wide_words.csv": text(",".join(["x"] * 50_000) + "\n"),
    "one_long_line.csv": text("1" * 1_000_000),
    "open_quote.csv": text('a,"b\n1,2\n' * 99),
    "uneven.csv": text("1,2\n1,2,3\n1\n"),
    "nulls.csv": raw(b"1,2\n\x00,3\n"),
    "line_ends.csv": raw(b"1,2\r3,4\r\n5,6\n"),
    "utf16.csv": raw("a,b\n1,2\n".encode("utf-16")),
    "blank.csv": text("\n" * 99),
    "no_rows.csv": text("a,b\n"),
    "no_rows.npy": array(np.zeros((0, 4))),
    "no_units.npy": array(np.zeros((4, 0))),
    "one_number.npy": array(3.0),
    "one_row.npy": array(ROWS[:1]),
    "one_unit.npy": array(ROWS[:, :1]),
    "five_axes.npy": array(np.zeros((2, 2, 2, 2, 2))),
    "nan.npy": array(np.full((40, 4), np.nan)),
    "infinite.npy": array(np.full((40, 4), np.inf)),
    "largest.npy": array(np.full((40, 4), np.finfo(np.float64).max)),
    "smallest.npy": array(ROWS * 5e-324),
    "half.npy": array(ROWS.astype(np.float16)),
    "long_double.npy": array(ROWS.astype(np.longdouble)),
    "big_endian.npy": array(ROWS.astype(">f8")),
    "fortran.npy": array(np.asfortranarray(ROWS)),
    "a_list.pt": tensor([1, 2]),
    "a_dict.pt": tensor({"a": torch.tensor(ROWS), "b": torch.tensor(ROWS)}),
    "weights.pt": tensor({"enc.weight": torch.tensor(ROWS), "enc.bias": torch.zeros(4)}),
    "bfloat16.pt": tensor(torch.tensor(ROWS).bfloat16()),
    "meta.pt": tensor(torch.empty(40, 4, device="meta")),
    "nested.parquet": table(a=[[1.0, 2.0], [3.0]]),
    "missing.parquet": table(a=[1.0, None], b=[None, 2.0]),
    "no_columns.parquet": table(),
    "an_array_named.npz": zipped(codes=header((40, 4), body=ROWS.tobytes()), others=header((1,), body=bytes(8))),
    "a_name_with_dots.npz": zipped(**{"../../x": header((40, 4), body=ROWS.tobytes())}),
    "no_ending": raw(b"1,2\n"),
    "unknown.xyz": raw(b"1,2\n"),
}
