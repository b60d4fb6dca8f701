"""A full disk, a file-size limit: one clear sentence, nothing half written, and the next run goes on.

Injected: no file may grow beyond a limit (RLIMIT_FSIZE), a folder that is a file, a disk of 1 MB, a disk
and a home that only can be read (these need root).
"""

import json
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from disturbed import MEMBERS, assert_same, command, finished, left_behind, prepared, told
from waiting import LONGEST

from harness.errors import HarnessError
from harness.results import read_records
from harness.results.files import write_atomic


def limited(size: int, code: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A process whose files cannot grow beyond `size` bytes."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # half a module would stay behind in the caches
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        timeout=LONGEST,
    )


def test_a_file_that_does_not_fit_is_not_there_at_all(tmp_path):
    code = (
        "from pathlib import Path; from harness.results.files import write_atomic\n"
        "from harness.errors import HarnessError\n"
        "try: write_atomic(Path('x.parquet'), b'x' * 5000)\n"
        "except HarnessError as error: print(error)"
    )
    done = limited(1000, code, tmp_path)
    assert "x.parquet: cannot be written: File too large; free disk space" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.service
def test_a_store_that_cannot_grow_costs_no_result(tmp_path, empty_store, undisturbed):
    """The store of 1.4 MB cannot take one page more; results and report are smaller than that."""
    folder = prepared(tmp_path, store=empty_store)
    code = (
        "from harness.experiment import run_experiment\n"
        "import json; print(json.dumps(run_experiment('disturbed.yaml', workers=0).to_dict()))"
    )
    done = limited((folder / "mlruns" / "mlflow.db").stat().st_size, code, folder)
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["done"] == MEMBERS
    assert any("harness sync" in note for note in outcome["notes"])
    assert finished(folder)["notes"] == []
    assert_same(left_behind(folder), undisturbed)


@pytest.mark.service
def test_results_that_cannot_be_written_end_the_run_with_one_sentence(tmp_path, empty_store):
    folder = prepared(tmp_path, store=empty_store)
    code = (
        "from harness.experiment import run_experiment\nfrom harness.errors import HarnessError\n"
        "try: run_experiment('disturbed.yaml', workers=0)\n"
        "except HarnessError as error: print(error)"
    )
    done = limited(4096, code, folder)
    assert "cannot be written: File too large" in done.stdout
    assert read_records(folder / "mlruns" / "results" / "disturbed") == ([], [])
    assert not list(folder.rglob(".*.new"))


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match="cannot be written"):
        write_atomic(tmp_path / "file" / "x", b"")


@contextmanager
def small_disk(place: Path, size: str):
    """A disk in memory; skips where nobody may mount one."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, timeout=LONGEST).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=LONGEST)


def remounted(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True, timeout=LONGEST)


@pytest.mark.service
def test_a_full_disk_is_survived_and_the_run_goes_on_when_there_is_room(tmp_path, undisturbed):
    with small_disk(tmp_path / "disk", "1m") as disk:
        folder = prepared(disk)
        out, error = told(command(folder))
        assert "Traceback" not in error
        assert "No space left" in error + out or "disk is full" in error + out
        remounted(disk, "size=64m")
        assert finished(folder)["done"] == MEMBERS
        assert_same(left_behind(folder), undisturbed)


@pytest.mark.service
def test_a_folder_that_only_can_be_read_is_one_sentence(tmp_path):
    with small_disk(tmp_path / "disk", "64m") as disk:
        folder = prepared(disk)
        remounted(disk, "ro")
        process = command(folder)
        out, error = told(process)
        assert process.returncode == 2
        assert out == ""
        assert "cannot be written (Read-only file system); run in a folder that can be" in error
        assert len(error.strip().splitlines()) == 1


@pytest.mark.service
def test_a_home_that_only_can_be_read_makes_no_difference(tmp_path, empty_store, undisturbed):
    (tmp_path / "here").mkdir()
    with small_disk(tmp_path / "home", "1m") as home:
        remounted(home, "ro")
        folder = prepared(tmp_path / "here", store=empty_store)
        outcome = finished(folder, HOME=str(home), MPLCONFIGDIR="", XDG_CACHE_HOME="", XDG_CONFIG_HOME="")
        assert (outcome["done"], outcome["notes"]) == (MEMBERS, [])
        assert_same(left_behind(folder), undisturbed)
