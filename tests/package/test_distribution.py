"""The distribution: built from its sdist, installed where nothing of the repository is, and used from another folder."""

import email
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import yaml
from commands import ROOT

import harness

INPUTS = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CITATION.cff",
    "constraints.txt",
)
BUILD = "import setuptools.build_meta as backend, sys; print(getattr(backend, sys.argv[1])(sys.argv[2]))"


def build(kind: str, source: Path, target: Path) -> Path:
    """Build an sdist or a wheel with the build backend that is installed."""
    target.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(target)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that was built from the sdist alone."""
    folder = tmp_path_factory.mktemp("distribution")
    source = folder / "source"
    source.mkdir()
    for name in INPUTS:
        shutil.copy(ROOT / name, source / name)
    for name in ("harness", "experiments"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "benchmarks"))
    sdist = build("sdist", source, folder / "dist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder / "dist")


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with the wheel; the dependencies are those of this one, without its own harness."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    # hooks of editable packages are not followed in a folder that a .pth file adds
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def call(environment: Path, folder: Path, *arguments: str) -> str:
    """Run the installed command in a folder, without anything of the repository on its path."""
    done = subprocess.run(
        [str(environment / "bin" / "harness"), *arguments],
        cwd=folder,
        env={"PATH": str(environment / "bin"), "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_the_wheel_has_the_package_and_the_experiments_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {Path(name).name for name in names if name.startswith("harness/shipped/")}
    assert shipped == {path.name for pattern in ("*.yaml", "*.py") for path in (ROOT / "experiments").glob(pattern)}
    assert {name.split("/")[0] for name in names} == {"harness", f"collapse_harness-{harness.__version__}.dist-info"}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "harness").rglob("*")
        if path.suffix in (".py", ".pyi", ".html", ".css", ".typed")
    }
    assert package <= set(names), sorted(package - set(names))


def test_the_metadata_is_complete_and_claims_only_the_tested_python(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
    metadata = email.message_from_string(archive.read(name).decode())
    for key in ("Summary", "Author", "License-Expression", "License-File", "Keywords", "Requires-Python"):
        assert metadata[key], key
    pythons = [
        text for text in metadata.get_all("Classifier") if text.startswith("Programming Language :: Python :: 3.")
    ]
    assert pythons == ["Programming Language :: Python :: 3.11"]
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_citation_has_the_version_and_the_fields_that_the_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == harness.__version__


def test_the_installed_command_works_outside_the_repository(environment, tmp_path):
    assert call(environment, tmp_path, "--version") == f"harness {harness.__version__}\n"
    assert "quickstart" in call(environment, tmp_path, "examples")
    assert "352 models" in call(environment, tmp_path, "plan", "quickstart").replace("members", "models")
    assert "receives no gradient" in call(environment, tmp_path, "explain", "dead")


@pytest.mark.service
def test_a_shipped_experiment_runs_where_the_wheel_is_installed(environment, tmp_path):
    call(environment, tmp_path, "examples", "own_case")
    text = (tmp_path / "own_case.yaml").read_text().replace("seeds: 8", "seeds: 2").replace("epochs: 15", "epochs: 1")
    (tmp_path / "own_case.yaml").write_text(text)
    output = call(environment, tmp_path, "run", "own_case.yaml")
    assert (tmp_path / "mlruns/reports/own_case/report.html").is_file(), output
