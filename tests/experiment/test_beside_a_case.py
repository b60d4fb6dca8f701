"""Modules beside a case's file: found as by `python case.py`, run anew with the case, and part of its results' key."""

import sys

import pytest
import torch

from harness.case import load_case
from harness.experiment import run_experiment
from harness.results import case_fingerprint

NET = """
import torch.nn.functional as F
from torch import nn

WIDTH = {width}


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 6)

    def forward(self, x):
        return self.dec(F.relu(self.enc(x)))
"""
CASE = """
import harness
import torch.nn.functional as F
from mynet import Autoencoder


def load():
    from parts.rows import rows

    return rows()


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}


case = harness.Case(model=Autoencoder, data=load, losses=losses, bottleneck="enc", train={"epochs": 1})
"""
ROWS = """
import torch

from . import seed


def rows():
    return torch.randn(50, 6, generator=torch.Generator().manual_seed(seed.SEED))
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "parts" / "rows.py").write_text(ROWS)
    (tmp_path / "parts" / "seed.py").write_text("SEED = 1\n")
    (tmp_path / "mynet.py").write_text(NET.format(width=3))
    (tmp_path / "other.py").write_text("nobody = 'imports this'\n")
    (tmp_path / "x.py").write_text(CASE)
    (tmp_path / "x.yaml").write_text("name: x\ncase: x.py\nfactors: {bias_init: [default]}\nseeds: 2\n")
    return tmp_path


@pytest.fixture(autouse=True)
def _path_as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [each for each in sys.modules if each.partition(".")[0] in ("mynet", "parts")]:
        del sys.modules[name]


def test_modules_beside_the_case_are_found_when_it_is_loaded_and_when_its_functions_are_called(folder):
    case = load_case(folder / "x.py")
    assert case.model().enc.out_features == 3
    assert torch.equal(case.data(), torch.randn(50, 6, generator=torch.Generator().manual_seed(1)))


def test_cases_of_two_folders_do_not_meet_in_a_module_of_one_name(folder, tmp_path_factory):
    second = tmp_path_factory.mktemp("second")
    (second / "mynet.py").write_text(NET.format(width=5))
    (second / "x.py").write_text(CASE)
    widths = [load_case(each / "x.py").model().enc.out_features for each in (folder, second, folder)]
    assert widths == [3, 5, 3]


def test_what_lies_in_an_environment_below_the_case_is_loaded_once(folder, monkeypatch):
    packages = folder / "env" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "far_away.py").write_text("")
    monkeypatch.syspath_prepend(packages)
    (folder / "y.py").write_text("import far_away\n" + CASE)
    load_case(folder / "y.py")
    assert sys.modules.pop("far_away").__file__ == str(packages / "far_away.py")


def test_the_folder_hides_no_module_once_the_case_is_loaded(folder):
    load_case(folder / "x.py")
    assert sys.path[0] != str(folder)
    assert sys.path[-1] == str(folder)
    load_case(folder / "x.py")
    assert sys.path.count(str(folder)) == 1


@pytest.mark.parametrize("file", ["x.py", "mynet.py", "parts/rows.py", "parts/seed.py", "parts/__init__.py"])
def test_the_key_sees_every_file_that_the_case_imports(folder, file):
    before = case_fingerprint(folder / "x.py")
    (folder / file).write_text((folder / file).read_text() + "# changed\n")
    assert case_fingerprint(folder / "x.py") != before


def test_the_key_sees_no_file_that_the_case_does_not_import_and_runs_none(folder):
    before = case_fingerprint(folder / "x.py")
    (folder / "other.py").write_text("changed = True\n")
    (folder / "harness.py").write_text("")
    assert case_fingerprint(folder / "x.py") == before
    (folder / "mynet.py").write_text("raise SystemExit('it was run')\n")
    assert case_fingerprint(folder / "x.py") != before


def test_a_case_may_build_on_a_shipped_one_from_anywhere(folder):
    (folder / "own.py").write_text("from harness.cases.forum import case\n")
    assert len(case_fingerprint(folder / "own.py")) == 16


@pytest.mark.long
def test_a_module_that_changed_is_trained_again(folder, stored):
    stored(folder)

    def run():
        outcome = run_experiment(folder / "x.yaml", workers=1, root=folder)
        return outcome.trained, [len(record.diagnosis["units"]) for record in outcome.records]

    assert run() == (2, [3, 3])
    assert run() == (0, [3, 3])
    (folder / "mynet.py").write_text(NET.format(width=14))
    assert run() == (2, [14, 14])
