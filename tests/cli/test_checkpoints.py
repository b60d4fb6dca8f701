"""Checkpoints in their usual forms, layers of a model, and scripts without a case."""

import ast
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from harness.cli.checkpoints import load_weights
from harness.cli.skeleton import model_classes, refuse_script
from harness.errors import HarnessError

pytestmark = pytest.mark.many

ROOT = Path(__file__).parents[2]


def build():
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3), nn.BatchNorm1d(3))


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


FORMS = {
    "state dict": (lambda state: state, ""),
    "model": (lambda state: {"model": state, "epoch": 3}, "model"),
    "state_dict": (lambda state: {"state_dict": state, "optimizer": {"state": {}, "lr": 0.1}}, "state_dict"),
    "model_state_dict": (lambda state: {"loss": torch.ones(1), "model_state_dict": state}, "model_state_dict"),
    "net": (lambda state: {"net": state}, "net"),
    "nested": (lambda state: {"checkpoint": {"ema": state}}, "checkpoint.ema"),
    "ddp": (lambda state: prefixed(state, "module."), ""),
    "compiled": (lambda state: prefixed(state, "_orig_mod."), ""),
    "compiled ddp": (lambda state: prefixed(state, "module._orig_mod."), ""),
    "compiled part": (lambda state: {name.replace("0.", "0._orig_mod.", 1): x for name, x in state.items()}, ""),
    "lightning": (lambda state: {"state_dict": {**prefixed(state, "net."), "loss.scale": torch.ones(1)}}, "state_dict"),
}


@pytest.mark.parametrize("form", FORMS)
def test_usual_checkpoints_are_loaded(form, tmp_path):
    torch.manual_seed(1)
    trained, model = build(), build()
    make, home = FORMS[form]
    torch.save(make(trained.state_dict()), tmp_path / "weights.pt")
    assert load_weights(model, tmp_path / "weights.pt") == home
    for name, value in trained.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


def test_safetensors_are_loaded(tmp_path):
    from safetensors.torch import save_file

    trained, model = build(), build()
    save_file(prefixed(trained.state_dict(), "module."), tmp_path / "weights.safetensors")
    load_weights(model, tmp_path / "weights.safetensors")
    assert torch.equal(trained[0].weight, model[0].weight)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("content", [build, lambda: {"model": build()}, Evil])
def test_a_pickle_is_refused_with_the_lines_that_save_weights(content, tmp_path):
    torch.save(content(), tmp_path / "model.pt")
    with pytest.raises(HarnessError, match="expected weights alone, got a pickle") as error:
        load_weights(build(), tmp_path / "model.pt")
    lines = str(error.value).splitlines()[-2:]
    assert "weights_only=False" in lines[0]
    assert "torch.save(model.state_dict(), " in lines[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "got a dict without tensors"),
        ([1, 2], "got a list"),
        ({"model": {"conv.weight": torch.ones(1)}}, "got conv.weight under 'model'"),
        (
            dict(nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict()),
            "size mismatch",
        ),
        ({**build().state_dict(), "4.weight": torch.ones(1)}, "got 0.weight, 0.bias"),
    ],
)
def test_other_contents_are_named(content, message, tmp_path):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(HarnessError, match=message):
        load_weights(build(), tmp_path / "weights.pt")


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"no file of torch")
    with pytest.raises(HarnessError, match="expected"):
        load_weights(build(), tmp_path / "weights.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(HarnessError, match="expected"):
        load_weights(build(), tmp_path / "old.pt")


SCRIPT = """
import sys
import torch.nn as nn
import torch.nn.functional as F

print("executed")

class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 2), nn.Linear(2, 2)
        self.out = nn.Linear(2, 3)
    def forward(self, x):
        code = F.relu(self.fc2(self.fc1(x)))
        return self.out(code), code
"""


def within(folder, *arguments):
    command = [sys.executable, "-m", "harness", *arguments]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True
    )


def test_a_script_without_a_case_is_answered_with_a_skeleton_and_not_run(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    process = within(tmp_path, "diagnose", "train.py")
    assert process.returncode == 2
    assert "executed" not in process.stdout
    assert "Autoencoder has the modules fc1, fc2, out" in process.stderr
    assert 'harness.watch(model, "fc2")' in process.stderr
    skeleton = process.stderr[process.stderr.index("    import harness, torch") :]
    code = "\n".join(line.removeprefix("    ") for line in skeleton.splitlines())
    assert len(ast.parse(code).body) == 4
    assert len(code.splitlines()) == 6
    # the skeleton works as it stands once the script has rows
    (tmp_path / "train.py").write_text(
        f"{SCRIPT.replace('print', '# print')}\nimport torch\nROWS = torch.rand(400, 3)\n"
    )
    (tmp_path / "own.py").write_text(code)
    from harness.case import load_case

    case = load_case(tmp_path / "own.py")
    assert case.bottleneck == "fc2"
    model = case.model()
    assert set(case.losses(model, case.data())) == {"reconstruction"}


@pytest.mark.parametrize(
    "text",
    ["from mine import case", "from mine import *", "case: int = 3", "if True:\n  case = 3", "(case := 3)", "x ="],
)
def test_a_file_that_may_define_a_case_passes(text, tmp_path):
    (tmp_path / "own.py").write_text(text)
    refuse_script(tmp_path / "own.py")


@pytest.mark.parametrize("text", ["", "x = 3", "def f():\n  case = 3", "import case_of_mine"])
def test_a_file_that_cannot_define_a_case_is_refused(text, tmp_path):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(HarnessError, match="expected a module-level `case`, got none"):
        refuse_script(tmp_path / "own.py")


@pytest.mark.parametrize(
    ("text", "model", "names", "layer"),
    [
        ("net = nn.Sequential(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2), nn.Linear(2, 9))", "net", "0, 1, 2, 3", "2"),
        ("net = torch.nn.Sequential(Linear(9, 4), Linear(4, 9)).to(device)", "net", "0, 1", "0"),
        ("class Net(nn.Module):\n  def __init__(self):\n    self.a = nn.ModuleList([])", "model", "a", "a.*"),
        ("net = Sequential(*layers)", "model", "", "LAYER"),
    ],
)
def test_models_that_are_no_class_and_lists_of_modules_are_named(text, model, names, layer, tmp_path):
    (tmp_path / "train.py").write_text(text)
    with pytest.raises(HarnessError) as error:
        refuse_script(tmp_path / "train.py")
    assert f'harness.watch({model}, "{layer}")' in str(error.value)
    assert f"has the modules {names}." in str(error.value) or not names


def test_classes_that_derive_from_a_module_of_the_file_are_found():
    tree = ast.parse(
        "class Base(nn.Module): pass\nclass Other: pass\nclass Net(Base):\n  def __init__(self):\n    self.a = nn.GRU(1, 2)"
    )
    assert [(model.name, model.modules) for model in model_classes(tree)] == [("Base", {}), ("Net", {"a": "GRU"})]


@pytest.mark.long
def test_layers_of_a_case_and_of_a_model_are_listed(tmp_path):
    (tmp_path / "model.py").write_text(SCRIPT.replace("print", "# print"))
    process = within(tmp_path, "layers", "model.py:Autoencoder", "--shape", "3", "--json")
    assert process.returncode == 0, process.stderr
    layers = json.loads(process.stdout)["layers"]
    assert [(layer["name"], layer["activation"], layer["units"]) for layer in layers] == [
        ("fc1", "none", 2),
        ("fc2", "relu", 2),
        ("out", "none", 3),
    ]
    process = within(tmp_path, "layers", "forum")
    assert "enc3" in process.stdout
    for arguments, message in (
        (("model.py:Autoencoder",), "expected --shape"),
        (("model.py:Autoencodr", "--shape", "3"), "expected a class or function 'Autoencodr'"),
        (("model.py:Autoencoder", "--shape", "three"), "expected whole numbers"),
        (("forum", "--shape", "3"), "expected together with FILE.py:NAME"),
        (("model.py",), "expected a module-level `case`"),
    ):
        process = within(tmp_path, "layers", *arguments)
        assert process.returncode == 2
        assert message in process.stderr


CASE = """
import torch, torch.nn as nn, torch.nn.functional as F, harness
def data():
    return torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}
def build():
    return nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6))
"""


@pytest.mark.parametrize(("evaluation", "warned"), [("None", True), ("data", False)])
def test_the_rows_of_a_diagnosis_of_weights_are_named(evaluation, warned, tmp_path):
    text = f'{CASE}case = harness.Case(build, data, losses, "0", evaluation={evaluation})\n'
    (tmp_path / "own.py").write_text(text)
    torch.save(
        {"model": prefixed(nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6)).state_dict(), "module.")},
        tmp_path / "weights.pt",
    )
    process = within(tmp_path, "diagnose", "own.py", "--weights", "weights.pt")
    assert process.returncode in (0, 1), process.stderr
    assert ("warning: the weights may have been trained on these rows" in process.stdout) == warned
    assert ("a fixed fifth of the rows" in process.stdout) == warned
