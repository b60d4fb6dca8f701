"""Files as users have them, whole and broken: read exactly, or refused with the reason."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import read_array
from harness.errors import HarnessError

VALUES = np.arange(12.0).reshape(4, 3)


def written(folder, kind: str) -> str:
    path = folder / f"a.{kind}"
    if kind == "npy":
        np.save(path, VALUES)
    elif kind == "npz":
        np.savez(path, VALUES)
    elif kind == "pt":
        torch.save(torch.tensor(VALUES), path)
    elif kind == "csv":
        pd.DataFrame(VALUES, columns=list("abc")).to_csv(path)
    else:
        pd.DataFrame(VALUES, columns=list("abc")).to_parquet(path)
    return str(path)


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "csv", "parquet"])
def test_the_same_array_comes_out_of_every_kind_of_file(tmp_path, kind):
    found = read_array(written(tmp_path, kind))
    assert found.dtype == torch.float64
    assert np.array_equal(found.numpy(), VALUES)


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", "int8", "uint16", "bool", "longdouble"])
def test_every_kind_of_number_is_read(tmp_path, dtype):
    np.save(tmp_path / "a.npy", VALUES.astype(dtype))
    assert np.array_equal(read_array(tmp_path / "a.npy").numpy(), VALUES.astype(dtype))


def test_half_precision_of_a_tensor_file_is_kept(tmp_path):
    torch.save(torch.ones(2, 2, dtype=torch.bfloat16), tmp_path / "a.pt")
    assert read_array(tmp_path / "a.pt").dtype == torch.bfloat16


def test_nan_is_read_as_it_is_because_a_matrix_with_it_is_judged(tmp_path):
    (tmp_path / "a.csv").write_text("1,2\n,nan\n3,4\n")
    assert read_array(tmp_path / "a.csv").isnan().tolist() == [[False, False], [True, True], [False, False]]


@pytest.mark.parametrize("text", ["1;2\n3;4\n", "1\t2\n3\t4\n", "x,y\n1,2\n3,4\n", "\ufeffx,y\n1,2\n3,4\n"])
def test_csv_with_other_separators_and_headers(tmp_path, text):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert read_array(tmp_path / "a.csv").tolist() == [[1, 2], [3, 4]]


def test_an_archive_of_several_arrays_needs_a_name(tmp_path):
    np.savez(tmp_path / "a.npz", codes=VALUES, other=VALUES + 1)
    assert read_array(f"{tmp_path}/a.npz:other")[0, 0] == 1
    with pytest.raises(HarnessError, match=r"holds 2 arrays \(codes, other\); name one, as in a.npz:codes"):
        read_array(tmp_path / "a.npz")
    with pytest.raises(HarnessError, match="no array is called 'code'; did you mean 'codes'"):
        read_array(f"{tmp_path}/a.npz:code")


def test_a_dict_of_tensors_needs_a_name_too(tmp_path):
    torch.save({"codes": torch.ones(2, 2), "step": torch.zeros(1)}, tmp_path / "a.pt")
    assert read_array(f"{tmp_path}/a.pt:codes").shape == (2, 2)
    with pytest.raises(HarnessError, match="holds 2 arrays"):
        read_array(tmp_path / "a.pt")


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('a pickle was run')",))


def test_no_pickle_is_ever_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", np.array([Hostile()], dtype=object))
    torch.save(Hostile(), tmp_path / "c.pt")
    (tmp_path / "d.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("a.npy", "b.npz", "c.pt", "d.pt"):
        with pytest.raises(HarnessError, match=r"holds Python objects \(a pickle\)"):
            read_array(tmp_path / name)


def test_a_tensor_file_without_tensors_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(HarnessError, match="expected a tensor or a dict of tensors, got a list"):
        read_array(tmp_path / "a.pt")


def test_columns_of_words_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("x,name\n1,bob\n")
    with pytest.raises(HarnessError, match="these columns hold something else: name"):
        read_array(tmp_path / "a.csv")


def test_a_column_whose_name_has_lines_is_named_in_one(tmp_path):
    file = tmp_path / "codes.csv"
    file.write_text('a,"b\nc\n1",d\n1,x,2\n')
    with pytest.raises(HarnessError, match=r"these columns hold something else: b c 1; leave them out$"):
        read_array(file)


def test_a_header_that_promises_more_than_the_file_holds_allocates_nothing(tmp_path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 100)})
    (tmp_path / "a.npy").write_bytes(stream.getvalue())
    with pytest.raises(HarnessError, match="its header declares 800000000000000 bytes"):
        read_array(tmp_path / "a.npy")


def test_words_in_an_array_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array(["a", "b"]))
    with pytest.raises(HarnessError, match="expected numbers, got an array of <U1"):
        read_array(tmp_path / "a.npy")


def test_a_missing_file_and_an_unknown_kind_are_told_apart(tmp_path):
    with pytest.raises(HarnessError, match=r"nowhere.npy: no such file"):
        read_array(tmp_path / "nowhere.npy")
    with pytest.raises(HarnessError, match=r"no kind of file is called '.cvs'; did you mean '.csv'"):
        read_array(tmp_path / "a.cvs")


class Own:
    """What a user pickles: a class of his own."""


FILES = {
    "cut_off.pt": r"cannot be read as .pt \(RuntimeError: .*central directory\): truncated.*torch.save\(tensor, path\) writes",
    "words.pt": r"cannot be read as .pt \(.*\): truncated, or of another format\?",
    "state.pt": r"holds a model's weights \(weight, bias\), expected rows",
    "checkpoint.pt": "got a dict of other objects: epoch, model$",
    "own.pt": "holds Python objects",
    "pickled.pt": "holds Python objects",
    "scripted.pt": "holds Python objects",
    "nothing.pt": "holds no array$",
    "nothing.npz": "holds no array$",
    "cut_off.npz": r"cannot be read as .npz \(BadZipFile",
    "ragged.csv": "Expected 2 fields in line 3, saw 3",
    "blank.csv": "holds no rows of numbers$",
    "header.csv": "holds no rows of numbers$",
    "no_rows.parquet": "holds no rows of numbers$",
    "folder.pt": "a folder, not a file$",
    **{f"empty.{kind}": "the file is empty$" for kind in ("npy", "npz", "pt", "csv", "parquet")},
}


@pytest.fixture(scope="module")
def wrong_files(tmp_path_factory):
    folder, linear = tmp_path_factory.mktemp("wrong"), torch.nn.Linear(2, 3)
    for name in FILES:
        (folder / name).touch() if name.startswith("empty") else None
    for kind in ("pt", "npz"):
        whole = _bytes_of(folder, kind)
        (folder / f"cut_off.{kind}").write_bytes(whole[: len(whole) // 2])
    (folder / "words.pt").write_text("epoch 1\n")
    torch.save(linear.state_dict(), folder / "state.pt")
    torch.save({"epoch": 3, "model": linear.state_dict()}, folder / "checkpoint.pt")
    torch.save(Own(), folder / "own.pt")
    (folder / "pickled.pt").write_bytes(pickle.dumps(np.ones(3), protocol=4))
    torch.jit.script(linear).save(folder / "scripted.pt")
    torch.save({}, folder / "nothing.pt")
    np.savez(folder / "nothing.npz")
    (folder / "ragged.csv").write_text("1,2\n1\n1,2,3\n")
    (folder / "blank.csv").write_text("\n\n")
    (folder / "header.csv").write_text("a,b\n")
    pd.DataFrame({"a": []}).to_parquet(folder / "no_rows.parquet")
    (folder / "folder.pt").mkdir()
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_is_told_in_one_sentence_and_no_warning(wrong_files, name, recwarn):
    with pytest.raises(HarnessError, match=FILES[name]) as told:
        read_array(wrong_files / name)
    assert [str(each.message) for each in recwarn] == []
    assert str(told.value).startswith(f"{wrong_files / name}: ")
    assert str(told.value).count(name) == 1
    assert "\n" not in str(told.value)


def test_a_weight_that_is_named_is_read(wrong_files):
    assert read_array(f"{wrong_files}/state.pt:weight").shape == (3, 2)


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "csv", "parquet"])
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(tmp_path, kind, data):
    whole = bytearray((tmp_path / "w").read_bytes() if (tmp_path / "w").exists() else _bytes_of(tmp_path, kind))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path / f"damaged.{kind}"
    damaged.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        assert isinstance(read_array(damaged), torch.Tensor)
    except HarnessError as error:
        assert str(damaged) in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "csv", "parquet"])
@settings(max_examples=40)
@given(noise=st.binary(max_size=400))
def test_noise_is_refused_or_read_as_numbers(tmp_path, kind, noise):
    (tmp_path / f"n.{kind}").write_bytes(noise)
    try:
        read_array(tmp_path / f"n.{kind}")
    except HarnessError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_an_archive_with_other_things_in_it_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(HarnessError, match=r"a.npz: "):
        read_array(tmp_path / "a.npz")


def _bytes_of(folder, kind: str) -> bytes:
    content = Path(written(folder, kind)).read_bytes()
    (folder / "w").write_bytes(content)
    return content
