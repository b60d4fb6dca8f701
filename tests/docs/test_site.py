"""The site: built strictly, without a request to another host, from pages that the code still makes."""

import os
import re
import subprocess
import sys
import tomllib

import pytest
from blocks import ROOT
from command_line import commands_text
from keys import keys_text
from layers import layers_of, layers_picture
from navigation import missing_docstrings

import harness

DOCS = ROOT / "docs"
LOADED = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'> ]+)", re.IGNORECASE
)


def build(folder, *options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.service
def test_no_page_loads_anything_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 90
    loaded = {match for page in pages for match in LOADED.findall(page.read_text())}
    assert loaded == set()
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", styles)


def test_a_script_of_another_host_would_be_noticed():
    assert LOADED.findall('<script async src="https://x.org/a.js">') == ["https://x.org/a.js"]
    assert LOADED.findall('<link rel="stylesheet" href=//x.org/a.css>') == ["//x.org/a.css"]
    assert LOADED.findall('<a href="https://x.org"><img src="../a.png">') == []


@pytest.mark.service
def test_every_public_function_stands_on_the_page_of_the_api(site):
    text = (site / "reference" / "api.html").read_text()
    missing = [name for name in harness.__all__ if f"harness.{name}" not in text and name != "__version__"]
    assert missing == []


@pytest.mark.service
def test_a_broken_link_stops_the_build(tmp_path):
    page = "# Home\n\n[x](nothing.md)\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text(page)
    settings = (ROOT / "mkdocs.yml").read_text()
    settings = settings.replace("docs_dir: docs", f"docs_dir: {tmp_path / 'docs'}").replace("hooks:", "not_hooks:")
    (tmp_path / "mkdocs.yml").write_text("\n".join(line for line in settings.splitlines() if "hooks" not in line))
    assert build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml")).returncode != 0


def test_no_public_name_lacks_a_docstring(monkeypatch):
    assert missing_docstrings() == []
    monkeypatch.setattr(harness.Case, "ramp", lambda self: None)
    assert missing_docstrings() == ["Case.ramp"]


@pytest.mark.parametrize(("page", "text"), [("commands", commands_text), ("yaml", keys_text)])
def test_a_page_of_the_reference_is_the_one_that_the_code_makes(page, text):
    assert (DOCS / "reference" / f"{page}.md").read_text() == text(), "run `make docs`"


def test_the_diagram_is_that_of_the_import_contract():
    layers = layers_of(ROOT / "pyproject.toml")
    assert (DOCS / "images" / "layers.svg").read_text() == layers_picture(layers), "run `make docs`"
    assert ["cli"] in layers


def test_the_table_of_the_architecture_has_every_folder_of_the_package():
    folders = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    page = (DOCS / "explanation" / "architecture.md").read_text()
    assert {name for name in folders if f"`{name}`" not in page} == set()


def test_the_version_of_the_citation_is_that_of_the_package():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"] == "collapse-harness"
