"""Whatever trains the stacks: a lost one is tried again and halved, and only the members that end their worker fail."""

import os
from concurrent.futures import Future
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.execution.executor import DIED, OTHERS, StackLost, results
from harness.execution.pool import run_stacks
from harness.execution.shipment import LARGEST, shipment
from harness.execution.spec import StackMember, StackSpec, failed_record
from harness.execution.wire import dump_records
from harness.experiment import run_experiment
from harness.experiment.cluster import check_on
from harness.prescription import prescribe

CASE = """
import harness
import beside.deeper
case = harness.Case(None, None, "0", None)
"""


class Answering:
    """An executor that answers at once, and loses every stack with one of its `deadly` members."""

    def __init__(self, deadly=(), error=None, answer=None):
        self.deadly, self.error, self.answer = set(deadly), error or StackLost(), answer
        self.asked, self.stopped = [], 0

    def submit(self, spec):
        keys = [member.key for member in spec.members]
        self.asked.append("".join(keys))
        future = Future()
        if self.deadly & set(keys):
            future.set_exception(self.error)
        else:
            records = [failed_record(member, "answered") for member in spec.members]
            future.set_result(dump_records(records) if self.answer is None else self.answer)
        return future

    def stop(self):
        self.stopped += 1


def stack(keys, case="forum"):
    return StackSpec(case, None, tuple(StackMember(key, "v", {}, 0) for key in keys))


def errors_of(executor, *specs):
    return {record.key: record.error for part in results(specs, executor) for record in part}


def test_members_that_end_their_worker_fail_alone():
    executor = Answering(deadly="c")
    errors = errors_of(executor, stack("abcd"), stack("ef"))
    assert errors == {**dict.fromkeys("abdef", "answered"), "c": DIED}
    assert executor.asked == ["abcd", "ef", "abcd", "ab", "cd", "c", "d"]
    assert executor.stopped == 1


def test_a_stack_that_took_too_long_is_halved_at_once():
    executor = Answering(deadly="a", error=StackLost("too long", halve=True))
    assert errors_of(executor, stack("abcd")) == {"a": "too long", **dict.fromkeys("bcd", "answered")}
    assert executor.asked == ["abcd", "ab", "cd", "a", "b"]


@pytest.mark.parametrize(("answer", "reason"), [(b"", DIED), (b"nothing\n", DIED), (b"[[], []]\n", OTHERS)])
def test_an_answer_that_is_none_counts_as_lost(answer, reason):
    assert errors_of(Answering(answer=answer), stack("ab")) == dict.fromkeys("ab", reason)


def test_an_error_of_the_executor_ends_the_run_and_stops_it():
    executor = Answering(deadly="a", error=HarnessError("another version"))
    with pytest.raises(HarnessError, match="another version"):
        errors_of(executor, stack("ab"))
    assert executor.stopped == 1


def test_a_stack_on_an_executor_is_cut_for_its_slots():
    executor = Answering()
    records = [
        record for part in run_stacks([stack("abcdefgh" * 8)], 4, steps=100_000, executor=executor) for record in part
    ]
    assert sorted(map(len, executor.asked)) == [16] * 4
    assert len(records) == 64


def test_a_case_travels_with_what_it_imports_and_its_data(tmp_path, monkeypatch):
    project, away = tmp_path / "project", tmp_path / "away"
    (project / "beside").mkdir(parents=True)
    for path, text in {
        "case.py": CASE,
        "beside/__init__.py": "",
        "beside/deeper.py": "number = 1",
        "beside/unused.py": "",
        "table.csv": "1",
        ".secret": "",
    }.items():
        (project / path).write_text(text)
    (tmp_path / "rows.npy").write_bytes(b"rows")
    packed, content = shipment(str(project / "case.py"), str(tmp_path / "rows.npy"))
    fetched = []

    def fetch():
        fetched.append(len(content))
        return content

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(away))
    away.mkdir()
    here = packed.unpacked(stack("a", case="elsewhere/case.py"), fetch)
    assert Path(here.data).read_bytes() == b"rows"
    folder = Path(here.case).parent
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == ["beside/__init__.py", "beside/deeper.py", "case.py", "table.csv"]
    assert packed.unpacked(stack("a"), fetch) == packed.unpacked(stack("a"), fetch)
    assert len(fetched) == 1
    assert [path.name for path in (away / f"harness-{os.getuid()}").iterdir()] == [packed.digest]
    assert shipment(str(project / "case.py"), str(tmp_path / "rows.npy")) == (packed, content)


def test_shipped_names_need_no_files():
    packed, content = shipment("forum", "patches")
    assert (packed.digest, content, packed.case, packed.data) == ("", b"", "forum", "patches")
    assert packed.unpacked(stack("a"), lambda: pytest.fail("nothing to fetch")) == stack("a")


def test_too_much_data_does_not_travel(tmp_path):
    with (tmp_path / "rows.npy").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(HarnessError, match="at most 2 GiB"):
        shipment("forum", str(tmp_path / "rows.npy"))


def test_what_a_cluster_cannot_do_is_refused(tmp_path, monkeypatch):
    check_on(None, here=True)
    check_on("ray", here=False)
    with pytest.raises(HarnessError, match="leave out --workers 0"):
        check_on("ray", here=True)
    (tmp_path / "x.yaml").write_text("name: x\ncase: forum\nfactors: {bias_init: [zero]}\nseeds: 1\ntrain: {epochs: 1}")
    with pytest.raises(HarnessError, match="expected 'ray' or an address such as 'ray://head:10001', got 'spark'"):
        run_experiment(tmp_path / "x.yaml", on="spark", root=tmp_path)
    with pytest.raises(HarnessError, match="got 'spark'"):
        prescribe("forum", on="spark", root=tmp_path)
    with pytest.raises(HarnessError, match="leave out --workers 0"):
        prescribe("forum", workers=0, on="ray", root=tmp_path)
    assert not (tmp_path / "mlruns").exists()


def test_what_a_cluster_needs_is_named(monkeypatch):
    installed = {"ray", "grpc"}
    monkeypatch.setattr("harness.experiment.cluster.find_spec", lambda name: name if name in installed else None)
    check_on("ray://head:10001", here=False)
    installed.remove("grpc")
    check_on("ray", here=False)
    with pytest.raises(HarnessError, match=r"pip install 'ray\[client\]'"):
        check_on("ray://head:10001", here=False)
    installed.remove("ray")
    with pytest.raises(HarnessError, match=r"pip install 'collapse-harness\[ray\]'"):
        check_on("ray", here=False)
