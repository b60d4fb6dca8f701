"""A password in the address of a store is in nothing that is printed, written or shown by `ps`."""

import json
import shlex
import shutil
import sys
import traceback

import pytest
from commands import harness, within
from ports import free_port
from stored_members import record

from harness.cli import ui
from harness.cli.run import _show
from harness.credentials import masked, without_secrets
from harness.errors import HarnessError
from harness.experiment import run_experiment, sync
from harness.experiment.state import store_name
from harness.tracking import Tracker, move_paths

pytestmark = pytest.mark.many

SECRETS = ("hunter2%40x", "hunter2@x", "hunter2")
UNREACHABLE = {
    "a server": "http://ann:hunter2%40x@127.0.0.1:9",
    "a token alone": "https://hunter2%40x@127.0.0.1:9",
    "a token in a query": "http://127.0.0.1:9/?token=hunter2%40x",
    "a database": "postgresql://ann:hunter2%40x@127.0.0.1:9/db",
    "a password in a query": "postgresql://127.0.0.1:9/db?user=ann&password=hunter2%40x",
    "no store at all": "nonsense://ann:hunter2%40x@127.0.0.1:9/db",
}
MASKED = {
    "postgresql://ann:hunter2@host/db": "postgresql://ann:***@host/db",
    "postgresql+psycopg2://ann:p@ss/w?x#y@host:1/db": "postgresql+psycopg2://ann:***@host:1/db",
    "postgresql://ann:12/34@host/db": "postgresql://ann:***@host/db",
    "postgresql://ann@host/db": "postgresql://ann@host/db",
    "sqlite+pysqlcipher://:secret@/x.db": "sqlite+pysqlcipher://:***@/x.db",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret": "mssql+pyodbc:///?odbc_connect=***",
    "http://ann:p@ss@host/path": "http://ann:***@host/path",
    "http://ann:pa/ss@host": "http://ann:***@host",
    "https://token@host": "https://***@host",
    "https://host/?password=a&Access_Token=b&page=2#api_key=c": "https://host/?password=***&Access_Token=***&page=2#api_key=***",
    "http://ann:@host": "http://ann:@host",
    "http://host:5000/#/a@b": "http://host:5000/#/a@b",
    "http://[::1]:5000/a@b": "http://[::1]:5000/a@b",
    "http://host/a@b:c": "http://host/a@b:c",
    "sqlite:////home/ann:b@c/mlflow.db": "sqlite:////home/ann:b@c/mlflow.db",
    "databricks://profile": "databricks://profile",
    "folder/a:b@c": "folder/a:b@c",
}


@pytest.fixture(scope="module")
def once(tmp_path_factory, stored):
    """An experiment that ran, into a store of its own."""
    folder = stored(tmp_path_factory.mktemp("once"))
    (folder / "x.yaml").write_text(
        "name: x\ncase: forum\nfactors: {bias_init: [default]}\nseeds: 1\ntrain: {epochs: 1}\n"
    )
    run_experiment(folder / "x.yaml", workers=0, root=folder)
    return folder


@pytest.fixture
def finished(once, tmp_path, monkeypatch):
    """A copy of it; servers are given up at once."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copytree(once, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".origin*"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_nowhere(text):
    assert not [secret for secret in SECRETS if secret.lower() in text.lower()], text


def assert_in_no_file(folder):
    for path in folder.rglob("*"):
        assert_nowhere(path.name)
        if path.is_file():
            content = path.read_bytes().lower()
            assert not [secret for secret in SECRETS if secret.encode() in content], path


@pytest.mark.parametrize("uri", MASKED)
def test_what_is_secret_in_an_address_is_masked_and_nothing_else(uri):
    assert masked(uri) == MASKED[uri]
    assert masked(masked(uri)) == masked(uri)


@pytest.mark.parametrize(
    ("uri", "text", "shown"),
    [
        ("http://a:hunter2%40x@h", "cannot open http://a:hunter2%40x@h/api", "cannot open http://a:***@h/api"),
        ("http://a:hunter2%40x@h", "'hunter2@x', hunter2%40X, HUNTER2%40x", "'***', ***, ***"),
        ("http://a:b%2Fc%20d@h", "b/c d, b%2fc+d, b%2Fc%20d", "***, ***, ***"),
        ('http://a:p"w\u00e4@h', 'p"w\u00e4 p\\"w\\u00e4 p%22w%C3%A4', "*** *** ***"),
        ("pg://a:pw@h/db?user=a@b", "password 'pw' for a@b", "password '***' for a@b"),
        ("http://h", "the proxy http://me:mine@proxy:1 and http://h", "the proxy http://me:***@proxy:1 and http://h"),
        ("http://h", "no such host", "no such host"),
    ],
)
def test_texts_lose_every_spelling_of_a_secret(uri, text, shown):
    assert without_secrets(text, uri, {}) == shown


def test_texts_lose_what_the_environment_has_for_a_store():
    variables = {"MLFLOW_TRACKING_PASSWORD": "hunter2", "MLFLOW_TRACKING_TOKEN": "abc", "HOME": "/root"}
    assert without_secrets("hunter2 ABC /root", "http://h", variables) == "*** *** /root"


@pytest.mark.parametrize("uri", UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_store_that_cannot_be_reached_is_named_without_its_password(finished, uri, capfd):
    outcome = run_experiment(finished / "x.yaml", workers=0, root=finished, tracking_uri=uri)
    notes = [*outcome.notes, *sync(finished / "x.yaml", uri, root=finished)]
    assert len(notes) == 2
    assert all(note.startswith(f"MLflow store {masked(uri)}: ") for note in notes)
    _show(outcome, finished / "x.yaml", uri)
    with pytest.raises(HarnessError) as mended:
        move_paths(uri)
    said = capfd.readouterr()
    assert f" ui {finished / 'x.yaml'} --tracking-uri {shlex.quote(masked(uri))}" in " ".join(said.out.split())
    for text in (*notes, str(mended.value), json.dumps(outcome.to_dict()), said.out, said.err):
        assert_nowhere(text)
    assert_in_no_file(finished)


def test_the_address_in_the_environment_is_masked_as_well(finished, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", UNREACHABLE["a server"])
    outcome = run_experiment(finished / "x.yaml", workers=0, root=finished)
    (note,) = outcome.notes
    _show(outcome, finished / "x.yaml", None)
    assert note.startswith("MLflow store http://ann:***@127.0.0.1:9: ")
    for text in (note, *capfd.readouterr()):
        assert_nowhere(text)
    assert_in_no_file(finished)


def test_another_password_is_no_other_store():
    assert store_name("http://ann:one@host") == store_name("http://ann:two@host") != store_name("http://ann:one@other")


def test_a_traceback_shows_no_cause_that_has_the_password(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for uri, shows in ((UNREACHABLE["a server"], False), ("http://127.0.0.1:9", True)):
        with pytest.raises(HarnessError) as caught:
            Tracker(uri, tmp_path).project("x", [record(0)], note="")
        told = "".join(traceback.format_exception(caught.value))
        assert_nowhere(told)
        assert ("direct cause" in told) == shows


def test_the_interface_of_a_server_is_named_without_its_password(capsys):
    for name in ("a server", "a database"):
        with pytest.raises(HarnessError) as error:
            ui.ui("x", free_port(), UNREACHABLE[name])
        assert str(error.value).startswith(f"MLflow store {masked(UNREACHABLE[name])}: ")
        assert_nowhere(str(error.value))
    assert capsys.readouterr().out == ""


def test_what_the_interface_says_is_masked(monkeypatch, capsys):
    program = "import os, sys; print(os.environ['MLFLOW_BACKEND_STORE_URI']); sys.exit('no hunter2@x ' + str(sys.argv))"
    monkeypatch.setattr(ui, "server_command", lambda port: [sys.executable, "-c", program])
    assert ui._serve(UNREACHABLE["a database"], 5000) == 1
    assert capsys.readouterr().err == "postgresql+psycopg://ann:***@127.0.0.1:9/db\nno *** ['-c']\n"


def test_a_command_prints_no_password(finished):
    words = ("run x.yaml --json", "sync x.yaml", "report x", "sync --repair")
    for command, said in ((harness, words[0]), *((within, said) for said in words[1:])):
        done = command(*said.split(), "--tracking-uri", UNREACHABLE["a token in a query"], folder=finished)
        assert "token=***" in done.stdout + done.stderr
        assert_nowhere(done.stdout + done.stderr)
    assert_in_no_file(finished)
