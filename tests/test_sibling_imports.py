"""Files beside a case that are named like other modules: the case may import them while its file runs, nobody else."""

import gc
import importlib
import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from waiting import LONGEST

from harness.case import load_case
from harness.errors import HarnessError
from harness.sibling_imports import PREFIX

NAMES = ("copy", "csv", "json", "logging", "random", "torch", "types", "pandas", "bottleneck", "numexpr")
CASE = """
{top}
import harness

def model(): {model}
def data(): {data}
def losses(model, batch): pass

case = harness.Case(model, data, losses, "0")
"""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    own = [name for name in sys.modules if name.startswith(PREFIX)]
    for name in ("helper", "painting", "colorsys", *own):
        sys.modules.pop(name, None)


def case(folder, name="own", top="", model="pass", data="pass"):
    (folder / f"{name}.py").write_text(CASE.format(top=top, model=model, data=data))
    return load_case(folder / f"{name}.py")


def unloaded(monkeypatch, name):
    """A module of the standard library is as if it had not been imported yet."""
    monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A folder full of modules that say when they are run."""
    folder = tmp_path_factory.mktemp("crowded")
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'run')!r}, 'a').write('{name} ')\n")
    (folder / "own.py").write_text(CASE.format(top="", model="pass", data="pass"))
    return folder


def test_no_library_that_loads_later_takes_a_file_beside_a_case_for_a_package(crowded):
    """pandas looks for `bottleneck` and `numexpr`, and fails where they are none of their versions."""
    code = "from harness import load_case; load_case('own.py'); import pandas, csv, random; print(pandas.__name__)"
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=crowded, env=variables, capture_output=True, text=True, timeout=LONGEST)
    assert done.stdout == "pandas\n", done.stderr
    assert not (crowded / "run").exists()


def test_a_case_finds_what_lies_beside_it_first_and_others_find_pythons_own(tmp_path, monkeypatch):
    unloaded(monkeypatch, "colorsys")
    (tmp_path / "colorsys.py").write_text("MINE = 3\n")
    found = case(tmp_path, top="from colorsys import MINE", model="import colorsys; return MINE, colorsys.__file__")
    mine, file = found.model()
    assert mine == 3
    assert file == importlib.import_module("colorsys").__file__ != str(tmp_path / "colorsys.py")


def test_a_library_that_a_case_imports_finds_pythons_own(tmp_path, monkeypatch):
    unloaded(monkeypatch, "colorsys")
    (tmp_path / "colorsys.py").write_text("raise ImportError('mine')\n")
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "painting.py").write_text("from colorsys import rgb_to_hsv\n")
    monkeypatch.syspath_prepend(libraries)
    case(tmp_path, top="import painting")
    unloaded(monkeypatch, "colorsys")
    with pytest.raises(HarnessError, match="ImportError: mine"):
        case(tmp_path, top="import colorsys")


def test_a_plain_folder_beside_a_case_hides_no_module(tmp_path, monkeypatch):
    unloaded(monkeypatch, "colorsys")
    (tmp_path / "colorsys").mkdir()
    case(tmp_path, top="from colorsys import rgb_to_hsv")


def test_a_folder_that_somebody_put_on_the_path_stays_where_it_is(tmp_path, monkeypatch):
    unloaded(monkeypatch, "colorsys")
    (tmp_path / "colorsys.py").write_text("MINE = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert case(tmp_path, model="import colorsys; return colorsys.MINE").model() == 3


def test_a_module_that_was_loaded_before_stays_and_the_sentence_says_so(tmp_path):
    (tmp_path / "json.py").write_text("MINE = 3\n")
    for top in ("from json import MINE", "import json; json.MINE"):
        with pytest.raises(HarnessError, match=r"json.py beside it was not imported, .*: rename it"):
            case(tmp_path, top=top)
    with pytest.raises(HarnessError) as other:
        case(tmp_path, top="from types import MINE")
    assert "rename it" not in str(other.value)


def test_a_lazy_import_gives_the_module_that_the_case_has(tmp_path):
    (tmp_path / "helper.py").write_text("class Kept: pass\n")
    found = case(tmp_path, top="from helper import Kept", model="import helper; return helper.Kept is Kept")
    assert "helper" not in sys.modules
    assert found.model()


def test_what_a_case_and_its_modules_define_can_be_pickled_by_whichever_was_loaded(tmp_path):
    (tmp_path / "helper.py").write_text("def work(): return 4\n")
    top = "from helper import work"
    first, second = (case(tmp_path, top=top, model="return 3", data="return work") for _ in range(2))
    for each in (first, second):
        assert pickle.loads(pickle.dumps(each.model)) is each.model
    assert pickle.loads(pickle.dumps(second.data())) is second.data()


def test_a_dataclass_of_postponed_annotations_can_be_defined(tmp_path):
    top = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Kept:\n    width: int"
    )
    case(tmp_path, top=top)


def test_a_function_is_sent_whole_to_processes_that_cannot_import_it(tmp_path):
    import cloudpickle  # as MLflow and joblib send functions

    sent = cloudpickle.dumps(case(tmp_path, model="return 3").model)
    (tmp_path / "sent").write_bytes(sent)
    code = "import pickle; print(pickle.load(open('sent', 'rb'))())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=LONGEST)
    assert done.stdout == "3\n", done.stderr


def test_the_module_of_a_case_goes_with_its_last_function(tmp_path):
    found = case(tmp_path)
    gone = weakref.ref(found.model)
    del found
    gc.collect()
    assert gone() is None


def test_a_file_that_fails_leaves_no_module(tmp_path):
    with pytest.raises(HarnessError, match="ZeroDivisionError"):
        case(tmp_path, top="1 / 0")
    assert not [name for name in sys.modules if name.startswith(PREFIX)]
