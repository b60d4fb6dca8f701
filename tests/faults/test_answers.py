"""No answer but a store that shows what was logged is taken for success: `sync` ends with 3 and the reason.

Injected: refusals, errors, a page to log in, nothing, and a server that forgets what it said it had kept. Counted:
members that the server has, and those that the run says are logged.
"""

import json
import shutil

import pytest
import typer.testing
from answering import JSON, Remembering, serving, tags_of
from fault_injection import MEMBERS, RUNS, VARIANTS, prepared
from stored_members import record

from harness.cli.report import report
from harness.cli.run import run
from harness.cli.sync import sync
from harness.errors import HarnessError
from harness.experiment import run_experiment
from harness.tracking import Tracker

pytestmark = pytest.mark.many

LOGIN = b"<!doctype html><html><body>Please log in</body></html>"
HTML = {"Content-Type": "text/html"}
ANSWERS = {
    "401": ((401, JSON, b'{"error_code": "UNAUTHENTICATED", "message": "You are not authenticated"}'), "authenticated"),
    "401 of a proxy": ((401, HTML, b"<html>who are you</html>"), "error code 401"),
    "403": ((403, JSON, b'{"error_code": "PERMISSION_DENIED", "message": "not yours"}'), "PERMISSION_DENIED"),
    "403 of a proxy": ((403, HTML, b""), "error code 403"),
    "404": ((404, HTML, b"<html>nothing here</html>"), "404"),
    "429": ((429, JSON, b"{}"), "429"),
    "500": ((500, HTML, b"oops"), "500"),
    "a page to log in": ((200, HTML, LOGIN), "not in a valid JSON format"),
    "another page": ((302, {"Location": "/login"}, b""), "redirect"),
    "nothing": ((200, JSON, b""), "got an empty answer"),
    "an empty document": ((200, JSON, b"{}"), "got an empty answer"),
    "another document": ((200, JSON, b'{"status": "ok", "experiment": {"name": "x"}}'), "got an empty answer"),
    "a list": ((200, JSON, b"[]"), "not in a valid JSON format"),
    "no content": ((204, JSON, b""), ""),
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, empty_store):
    folder = prepared(tmp_path_factory.mktemp("finished"), store=empty_store)
    assert run_experiment(folder / "disturbed.yaml", workers=0, root=folder).logged == MEMBERS
    return folder


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """A project with results, in which commands run."""
    shutil.copytree(finished, tmp_path / "here", ignore=shutil.ignore_patterns(".origin*"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def remembering(tmp_path):
    return Remembering(tmp_path / "artifacts")


def command(function, *arguments):
    """A command in this process: exit code, what it printed, and what it said of errors."""
    application = typer.Typer()
    application.command()(function)
    done = typer.testing.CliRunner().invoke(application, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.long
def test_a_finished_experiment_asks_the_server_once_and_is_logged_again_where_it_was_deleted(folder, remembering):
    def again():
        remembering.calls.clear()
        return run_experiment(folder / "disturbed.yaml", workers=0, tracking_uri=uri)

    with serving(remembering) as uri:
        assert again().logged == MEMBERS
        assert (again().notes, remembering.calls) == ((), ["experiments/get-by-name"])
        remembering.faults["experiments/get-by-name"] = (503, HTML, b"busy")
        outcome = again()
        assert (outcome.trained, outcome.logged) == (0, MEMBERS)
        assert "no answer; it had all members when they were logged" in outcome.notes[0]
        del remembering.faults["experiments/get-by-name"]
        remembering.experiments.clear()
        remembering.runs.clear()
        assert (again().trained, len(remembering.members())) == (0, MEMBERS)


def test_a_server_has_the_data_set_at_the_parent_and_the_summaries_alone(folder, remembering, monkeypatch):
    used = []
    monkeypatch.setattr(
        remembering, "runs_log_inputs", lambda run_id, **asked: used.append(run_id) or {}, raising=False
    )
    with serving(remembering) as uri:
        run_experiment(folder / "disturbed.yaml", workers=0, tracking_uri=uri)
    kinds = {tags_of(run)["harness.kind"] for name, run in remembering.runs.items() if name in used}
    assert kinds == {"experiment", "summary"}
    assert len(set(used)) == 1 + VARIANTS


@pytest.mark.parametrize(("answer", "reason"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_is_no_success_is_the_reason_why_nothing_is_logged(tmp_path, answer, reason):
    with serving(lambda *request: answer) as uri:
        tracker = Tracker(uri, tmp_path)
        with pytest.raises(HarnessError) as refused:
            tracker.project("trial", [record(0)], note="the answer")
        with pytest.raises(HarnessError):
            tracker.confirmed("trial", [record(0)])
    assert str(refused.value).startswith(f"MLflow store {uri}: ")
    assert reason in str(refused.value)
    assert "the results are safe under mlruns/results, `harness sync` logs them later" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["401", "403 of a proxy", "a page to log in", "nothing"])
@pytest.mark.long
def test_sync_is_not_level_and_a_run_says_what_is_logged(folder, name):
    answer, reason = ANSWERS[name]
    with serving(lambda *request: answer) as uri:
        code, out, error = command(sync, "disturbed.yaml", "--tracking-uri", uri)
        assert code == 3
        assert "are up to date" not in out
        assert reason in error
        assert len(error.strip().splitlines()) == 1
        outcome = run_experiment(folder / "disturbed.yaml", tracking_uri=uri, workers=0)
    assert (outcome.to_dict()["done"], outcome.logged) == (MEMBERS, 0)
    assert any("harness sync" in note for note in outcome.notes)


def test_a_server_that_keeps_everything_is_level(folder, remembering):
    with serving(remembering) as uri:
        for _ in range(2):
            code, out, error = command(sync, "disturbed.yaml", "--tracking-uri", uri)
            assert (code, error) == (0, "")
            assert out.endswith("disturbed.yaml: MLflow and report are up to date\n")
        assert len(remembering.members()) == MEMBERS
        assert len(remembering.runs) == RUNS
        code, out, _ = command(run, "disturbed.yaml", "--tracking-uri", uri, "--json", "--workers", "0")
    assert code == 0
    assert [json.loads(out)[name] for name in ("done", "logged", "notes")] == [MEMBERS, MEMBERS, []]


LIES = {
    "numbers": ("runs/log-batch", 0),
    "runs that are ended": ("runs/update", 0),
    "what it has": ("runs/search", 0),
}


@pytest.mark.long
@pytest.mark.parametrize(("path", "logged"), LIES.values(), ids=LIES)
def test_a_server_that_says_so_and_forgets_is_found_out(folder, remembering, path, logged):
    remembering.faults[path] = (200, JSON, b"{}")
    with serving(remembering) as uri:
        code, out, error = command(sync, "disturbed.yaml", "--tracking-uri", uri)
        assert code == 3
        assert f"it shows {logged} of {MEMBERS} members after all of them were logged" in error
        assert "are up to date" not in out
        assert run_experiment(folder / "disturbed.yaml", tracking_uri=uri, workers=0).logged == logged
        del remembering.faults[path]
        for _ in range(2):
            assert command(sync, "disturbed.yaml", "--tracking-uri", uri)[0] == 0
    assert len(remembering.members()) == MEMBERS
    assert len(remembering.runs) == RUNS


@pytest.mark.long
@pytest.mark.parametrize("kept", [1, 3])
def test_the_members_that_a_server_kept_before_it_refused_are_counted(folder, remembering, kept):
    asked = []

    def refuse(request):
        asked.append(request["run_id"])
        return (403, JSON, b'{"error_code": "PERMISSION_DENIED"}') if len(asked) > kept else None

    remembering.faults["runs/log-batch"] = refuse
    with serving(remembering) as uri:
        outcome = run_experiment(folder / "disturbed.yaml", tracking_uri=uri, workers=0)
        assert outcome.logged == kept == len(remembering.members())
        assert any("PERMISSION_DENIED" in note for note in outcome.notes)
        del remembering.faults["runs/log-batch"]
        assert run_experiment(folder / "disturbed.yaml", tracking_uri=uri, workers=0).logged == MEMBERS
    assert len(remembering.runs) == RUNS


@pytest.mark.long
def test_members_are_logged_though_the_report_cannot_be(folder, remembering):
    (remembering.artifacts.parent / "artifacts").write_text("a file, where a folder is needed")
    with serving(remembering) as uri:
        code, _, error = command(sync, "disturbed.yaml", "--tracking-uri", uri)
        assert code == 3
        assert "the results are safe" in error
        outcome = run_experiment(folder / "disturbed.yaml", tracking_uri=uri, workers=0)
    assert outcome.logged == MEMBERS == len(remembering.members())
    assert any("harness sync" in note for note in outcome.notes)


@pytest.mark.long
def test_a_parent_run_that_is_not_finished_is_not_level(folder, remembering):
    remembering.faults["runs/update"] = lambda request: (
        (200, JSON, b"{}") if remembering.runs[request["run_id"]]["info"]["run_name"] == "disturbed" else None
    )
    with serving(remembering) as uri:
        code, _, error = command(sync, "disturbed.yaml", "--tracking-uri", uri)
    assert code == 3
    assert "it does not show the experiment's parent run as finished" in error


@pytest.mark.long
@pytest.mark.parametrize(("status", "code"), [(401, 3), (None, 0)], ids=["refused", "kept"])
def test_a_report_that_could_not_be_logged_is_code_3(folder, remembering, status, code):
    refused = (status, JSON, b'{"error_code": "UNAUTHENTICATED"}')
    with serving((lambda *request: refused) if status else remembering) as uri:
        found, out, error = command(report, "disturbed.yaml", "--tracking-uri", uri)
    assert found == code
    assert out.strip().endswith("report.html")
    assert ("UNAUTHENTICATED" in error) == (code == 3)


def test_the_store_that_was_removed_is_made_again(folder):
    (folder / "mlruns" / "mlflow.db").unlink()
    outcome = run_experiment(folder / "disturbed.yaml", workers=0)
    assert (outcome.trained, outcome.logged, (folder / "mlruns" / "mlflow.db").is_file()) == (0, MEMBERS, True)
