"""The base installation diagnoses and audits; each other command says which extra it needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.errors import EXTRAS

ROOT = Path(__file__).parents[1]
WITHOUT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {sorted(EXTRAS)!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""
CASE = """
import torch, harness
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 3), nn.Linear(3, 6)
    def forward(self, batch):
        return self.decoder(torch.relu(self.encoder(batch)))

def losses(model, batch):
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}

case = harness.Case(Model, lambda: torch.randn(500, 6), losses, "encoder", train={"epochs": 2})
"""


def without_extras(program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The program in a process in which no package of an extra can be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + program, *arguments], cwd=folder, capture_output=True, text=True, timeout=600
    )


def test_python_diagnoses_and_audits_without_an_extra(tmp_path):
    (tmp_path / "mine.py").write_text(CASE)
    program = """
import harness, torch
print(harness.diagnose(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)).relu(), activation="relu").verdict)
print(len(harness.audit(harness.load_case("mine.py"), during_training=False).faults))
"""
    process = without_extras(program, folder=tmp_path)
    assert (process.stdout, process.returncode) == ("healthy\n0\n", 0), process.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [(("diagnose", "codes.csv"), "files"), (("run", "mine.yaml"), "all"), (("audit", "forum"), "grid")],
)
def test_a_command_without_its_extra_says_which_it_needs(tmp_path, arguments, extra):
    (tmp_path / "codes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "mine.py").write_text(CASE)
    (tmp_path / "mine.yaml").write_text("name: mine\ncase: mine.py\nfactors: {bias_init: [default, zero]}\nseeds: 2\n")
    program = "import sys\nfrom harness.cli import main\nsys.argv[0] = 'harness'\nmain()"
    process = without_extras(program, *arguments, folder=tmp_path)
    assert process.returncode == 2
    assert f"'collapse-harness[{extra}]'" in process.stderr
    assert "Traceback" not in process.stderr


def test_every_package_of_an_extra_is_declared_and_every_declared_one_is_known():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {
        "scikit-learn": "sklearn",
        "Pillow": "PIL",
        "ruamel.yaml": "ruamel",
        "Jinja2": "jinja2",
        "pydantic-core": "pydantic_core",
    }
    for extra in ("files", "grid", "mlflow", "report", "ray", "postgresql", "lightning", "transformers"):
        names = {
            re.split(r"\[|>=", requirement)[0]
            for requirement in declared[extra]
            if not requirement.startswith("collapse-harness")
        }
        for name in names:
            module = installed.get(name, name)
            assert module in EXTRAS
            assert EXTRAS[module] in {extra, "files", "grid"}  # an extra may bring what another brings too
