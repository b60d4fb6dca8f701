"""Files of the parent run in a store: weights are sent once, and loaded from there they are the member's."""

from types import SimpleNamespace

import pytest

from harness.tracking.artifacts import log_artifacts


class Client:
    """A client of a server that stores artifacts elsewhere, or of a folder."""

    def __init__(self, location: str) -> None:
        self.location, self.logged = location, {}

    def get_run(self, run):
        return SimpleNamespace(info=SimpleNamespace(artifact_uri=self.location))

    def list_artifacts(self, run, folder):
        return [
            SimpleNamespace(path=path, file_size=size)
            for path, size in self.logged.items()
            if path.startswith(f"{folder}/")
        ]

    def log_artifact(self, run, file, folder=""):
        name = "/".join(filter(None, (folder, file.rsplit("/", 1)[1])))
        assert name not in self.logged or not folder, "sent twice"
        with open(file, "rb") as content:
            self.logged[name] = len(content.read())


@pytest.fixture
def files(tmp_path):
    (tmp_path / "report.html").write_text("page")
    (tmp_path / "a1.safetensors").write_bytes(b"12345")
    return [tmp_path / "report.html", tmp_path / "a1.safetensors"]


def test_a_server_gets_weights_once_and_the_report_each_time(files):
    client = Client("mlflow-artifacts:/1/2")
    log_artifacts(client, "run", files, 2)
    log_artifacts(client, "run", files, 2)
    assert client.logged == {"report.html": 4, "weights/a1.safetensors": 5}


def test_a_folder_has_the_weights_that_are_kept_and_no_others(files, tmp_path):
    folder = tmp_path / "store"
    client = Client(folder.as_uri())
    log_artifacts(client, "run", files, 1)
    assert (folder / "weights" / "a1.safetensors").read_bytes() == b"12345"
    (tmp_path / "b2.safetensors").write_bytes(b"67")
    log_artifacts(client, "run", [files[0], tmp_path / "b2.safetensors"], 1)
    assert [file.name for file in (folder / "weights").iterdir()] == ["b2.safetensors"]
    assert (folder / "report.html").read_text() == "page"


def test_without_files_nothing_is_asked():
    log_artifacts(None, "run", [], 1)
