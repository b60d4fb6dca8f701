"""What members left behind survives the disk, or is noticed."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import LONGEST

from harness.errors import HarnessError
from harness.results import MemberRecord, member_key, read_records, read_results, slug, write_manifest, write_stack
from harness.results.files import write_atomic
from harness.results.snapshot_schedule import log_spaced


def record(key="k0", seed=0, **changes):
    values = {
        "key": key,
        "variant": "as_posted bn=on",
        "levels": {"penalty": "as_posted", "dropout": 0.2, "units": 4},
        "seed": seed,
        "verdict": "healthy",
        "flags": ["duplicates"],
        "units": 2,
        "live_units": 2,
        "r2": 0.25,
        "pca_r2": [0.1, 0.2],
        "losses": {"total": 0.1},
        "history": {"step": [0.0, 42.0], "loss/total": [1.0, math.nan]},
        "unit_history": {"mean": [[1.0, 2.0], [3.0, math.inf]]},
        "died_at": [None, 42],
        "diagnosis": {"verdict": "healthy", "units": [{"mean": None}]},
        "examples": {"shape": [2]},
        "seconds": 1.5,
        "logged_at": 1000,
    }
    return MemberRecord(**{**values, **changes})


def test_records_come_back_as_they_were(tmp_path):
    written = [record(), record("k1", 1, status="failed", error="no", r2=None, history={}, unit_history={}, verdict="")]
    write_stack(tmp_path, written)
    found, damaged = read_records(tmp_path)
    assert repr(found) == repr(written)  # repr: NaN is not equal to itself
    assert damaged == []


def test_a_damaged_file_is_noticed_and_not_read(tmp_path):
    path = write_stack(tmp_path, [record()])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert read_records(tmp_path) == ([], [path.name])


def test_half_a_file_is_noticed(tmp_path):
    path = write_stack(tmp_path, [record()])
    path.write_bytes(path.read_bytes()[:100])
    assert read_results(tmp_path).damaged == (path.name,)


def test_of_two_records_with_one_key_the_later_counts(tmp_path):
    write_stack(tmp_path, [record(), record("k1")])
    write_stack(tmp_path, [record(verdict="redundant", logged_at=2000)])
    found = {each.key: each for each in read_records(tmp_path)[0]}
    assert found["k0"].verdict == "redundant"
    assert len(found) == 2


def test_only_the_wanted_records_are_read(tmp_path):
    write_stack(tmp_path, [record(), record("k1")])
    assert [each.key for each in read_records(tmp_path, ["k1"])[0]] == ["k1"]


def test_a_manifest_comes_back(tmp_path):
    write_manifest(tmp_path, {"name": "x"})
    assert read_results(tmp_path).manifest == {"schema_version": 1, "name": "x"}


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "below", b"x")


NUMBERS, TRAIN = (
    {"rho": 0.05, "beta": 0.001},
    {"epochs": 3, "batch_size": 64, "learning_rate": 1e-3, "snapshot_every": 1},
)


def key(levels=(), seed=0, numbers=NUMBERS, train=TRAIN, data="d", case="c"):
    return member_key(dict(levels), seed, numbers, train, data, case)


@pytest.mark.parametrize(
    "same",
    [
        {"levels": {"bias_init": "default", "dropout": 0.0, "batchnorm": "off", "penalty": "as_posted"}},
        {"levels": {"rho": 0.05}},
        {"levels": {"epochs": 3, "learning_rate": 0.001}},
        {"train": {**TRAIN, "device": "cpu"}},
    ],
)
def test_a_level_that_changes_nothing_changes_no_key(same):
    assert key(**same) == key()


@pytest.mark.parametrize(
    "other",
    [
        {"levels": {"bias_init": "zero"}},
        {"levels": {"rho": 0.1}},
        {"levels": {"beta": "matched"}},
        {"levels": {"epochs": 4}},
        {"levels": {"units": 4}},
        {"seed": 1},
        {"data": "e"},
        {"case": "x"},
        {"numbers": {**NUMBERS, "beta": 0.1}},
        {"train": {**TRAIN, "snapshot_every": 2}},
    ],
)
def test_whatever_changes_a_result_changes_its_key(other):
    assert key(**other) != key()


@pytest.mark.parametrize("name", ["../../etc", "a/b", "<b>x</b>", "a\nb", "\u202eabc", "", "x" * 300, ".", "con nul"])
def test_a_name_stays_inside_its_folder(name, tmp_path):
    folder = slug(name)
    assert (tmp_path / folder).resolve().parent == tmp_path
    assert folder.replace("-", "").replace("_", "").isalnum()


def test_names_that_differ_have_folders_that_differ():
    assert len({slug(name) for name in ("a b", "a-b", "a/b", "a_b", "ä b")}) == 5


def test_few_snapshots_keep_both_ends():
    assert log_spaced([0, 5, 10], 8) == {0, 5, 10}
    chosen = log_spaced(list(range(0, 1001, 10)), 8)
    assert {0, 1000} <= chosen
    assert len(chosen) <= 8


def test_results_are_read_without_threads_that_the_end_of_the_process_would_abort(tmp_path):
    """Threads of Arrow hold what was read for a moment longer, and a process that ends then is aborted."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom harness.results import MemberRecord, read_records, stored_keys, "
        "write_stack\nfolder = Path(sys.argv[1])\n"
        "write_stack(folder, [MemberRecord(str(seed), 'v', {}, seed) for seed in range(100)])\n"
        "before = set(os.listdir('/proc/self/task'))\n"
        "print(len(read_records(folder)[0]), len(stored_keys(folder)), set(os.listdir('/proc/self/task')) - before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True, timeout=LONGEST
    )
    assert done.stdout.split(maxsplit=2) == ["100", "1", "set()\n"], done.stderr


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"verdict": "full_collapse"}, True),
        ({"verdict": "near_collapse"}, True),
        ({"verdict": "mean_output", "flags": ["mean_output"]}, True),
        ({"verdict": "partial_collapse", "flags": ["constant_output"]}, True),
        ({"verdict": "healthy", "flags": ["worse_than_mean"]}, True),
        ({"status": "diverged", "verdict": "healthy"}, True),
        ({"verdict": "healthy", "flags": []}, False),
        ({"verdict": "partial_collapse", "flags": ["duplicates", "dead_outputs"]}, False),
        ({"status": "failed", "verdict": ""}, None),
    ],
)
def test_failed_is_collapsed_or_no_better_than_the_mean_or_diverged(changes, failed):
    values = {"key": "k", "variant": "v", "levels": {}, "seed": 0}
    assert MemberRecord(**{**values, **changes}).failed is failed
