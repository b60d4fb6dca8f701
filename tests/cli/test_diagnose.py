"""`harness diagnose`: files in, a verdict and an exit code out."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from synthetic_codes import generator, labels, normal
from typer.testing import CliRunner

from harness import Diagnosis, HarnessError, diagnose, load_case
from harness.cli.diagnose import diagnose as command

APP = typer.Typer()
APP.command()(command)
CODE = torch.relu(normal(500))
DEAD = CODE * torch.tensor([1.0, 0, 1, 1])


def run(*arguments: object) -> tuple[int, str]:
    document = CliRunner().invoke(APP, [str(argument) for argument in arguments])
    if isinstance(document.exception, HarnessError):
        raise document.exception
    return document.exit_code, document.stdout


def save(folder: Path, name: str, values: torch.Tensor) -> Path:
    path = folder / name
    kinds = {
        ".npy": lambda: np.save(path, values.numpy()),
        ".npz": lambda: np.savez(path, codes=values.numpy(), others=values.numpy()),
        ".pt": lambda: torch.save(values, path),
        ".csv": lambda: pd.DataFrame(values.numpy()).to_csv(path, index=False),
        ".parquet": lambda: pd.DataFrame(values.numpy(), columns=list("abcd")).to_parquet(path),
    }
    kinds[path.suffix]()
    return path


@pytest.mark.parametrize("suffix_and_name", [".npy", ".npz:codes", ".pt", ".csv", ".parquet"])
def test_every_kind_of_file_is_judged(tmp_path: Path, suffix_and_name: str) -> None:
    suffix, _, name = suffix_and_name.partition(":")
    target = f"{save(tmp_path, f'layer{suffix}', DEAD)}{':' * bool(name)}{name}"
    code, printed = run(target, "--json")
    assert code == 1
    assert json.loads(printed)["verdict"] == "partial_collapse"
    assert Diagnosis.from_dict(json.loads(printed)).units[1].verdict == "dead"


def test_a_frame_saved_with_its_index_has_as_many_units_as_before(tmp_path: Path) -> None:
    pd.DataFrame(CODE.numpy()).to_csv(tmp_path / "layer.csv")
    document = json.loads(run(tmp_path / "layer.csv", "--json")[1])
    assert (document["rows"], len(document["units"])) == (500, 4)


def test_a_healthy_layer_ends_with_zero(tmp_path: Path) -> None:
    code, printed = run(save(tmp_path, "layer.npy", CODE))
    assert code == 0
    assert "healthy: 4 of 4 units live" in printed
    assert "█" in printed


def test_not_a_number_is_a_verdict(tmp_path: Path) -> None:
    spoilt = CODE.clone()
    spoilt[3, 2] = torch.nan
    code, printed = run(save(tmp_path, "layer.csv", spoilt), "--json")
    assert code == 1
    assert json.loads(printed)["verdict"] == "invalid"


def test_json_is_one_document_with_the_names_of_the_types(tmp_path: Path) -> None:
    path = save(tmp_path, "layer.npy", DEAD)
    _, printed = run(path, "--json", "--activation", "leaky_relu", "--target", "0.05")
    assert json.loads(printed) == json.loads(json.dumps(diagnose(DEAD, activation="leaky_relu", target=0.05).to_dict()))


def test_a_csv_of_a_float32_model_says_so(tmp_path: Path) -> None:
    noisy = CODE.double()
    noisy[:, 0] = 1 + 2e-7 * torch.rand(500, generator=generator()).double()
    path = save(tmp_path, "layer.csv", noisy)
    assert json.loads(run(path, "--json")[1])["units"][0]["verdict"] == "near_constant"
    assert json.loads(run(path, "--json", "--dtype", "float32")[1])["units"][0]["verdict"] == "constant_on"


def test_references_inputs_and_reconstruction_come_from_files(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", labels(500).numpy())
    pd.DataFrame({"height": normal(500)[:, 1], "kind": labels(500)}).to_csv(tmp_path / "factors.csv", index=False)
    inputs = normal(500, 6, seed=3)
    np.save(tmp_path / "inputs.npy", inputs.numpy())
    np.save(tmp_path / "made.npy", 0.9 * inputs.numpy())
    options = ["--labels", tmp_path / "labels.npy", "--factors", tmp_path / "factors.csv"]
    options += ["--inputs", tmp_path / "inputs.npy", "--reconstruction", tmp_path / "made.npy"]
    document = json.loads(run(save(tmp_path, "layer.npy", CODE), "--json", *options)[1])
    assert document["references"] == ["labels", "height", "kind"]
    assert document["units"][1]["references"]["height"]["flag"] == "dependent"
    assert document["output"]["verdict"] == "healthy"
    assert document["output"]["r2"] == pytest.approx(0.99, abs=0.001)


def test_a_factor_may_be_named_on_the_command_line(tmp_path: Path) -> None:
    np.save(tmp_path / "height.npy", normal(500)[:, 1].numpy())
    path = save(tmp_path, "layer.npy", CODE)
    document = json.loads(run(path, "--json", "--factors", f"size={tmp_path / 'height.npy'}")[1])
    assert document["references"] == ["size"]
    with pytest.raises(HarnessError, match="write NAME="):
        run(path, "--factors", tmp_path / "height.npy")


def test_a_picture_is_written(tmp_path: Path) -> None:
    path = save(tmp_path, "layer.npy", DEAD)
    run(path, "--picture", tmp_path / "units.png")
    assert (tmp_path / "units.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(HarnessError, match="expected a file name that ends in one of"):
        run(path, "--picture", tmp_path / "units.txt")
    with pytest.raises(HarnessError, match="nowhere does not exist; create it first"):
        run(path, "--picture", tmp_path / "nowhere" / "units.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.npy"], "no such file"),
        (["forums"], "no case is called 'forums'"),
        (["layer.npy", "--weights", "state.pt"], "--weights: expected together with a case"),
        (["forum", "--activation", "relu"], "--activation: expected together with a matrix"),
        (["layer.npz"], "holds 2 arrays"),
        (["layer.txt"], "layer.txt: no kind of file is called '.txt'.* Known: .npy, .npz, .*, .py"),
        (["layer.npz:codes", "--factors", "noise.npz"], "noise.npz: cannot be read as .npz"),
        (["layer.npz:codes", "--factors", "noise.parquet"], "noise.parquet: cannot be read as .parquet"),
        (["layer.npz:codes", "--factors", "nowhere.npz"], "nowhere.npz: no such file"),
    ],
)
def test_a_wrong_request_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path, "layer.npz", CODE)
    for name in ("noise.npz", "noise.parquet"):
        (tmp_path / name).write_bytes(bytes(range(200)))
    with pytest.raises(HarnessError, match=message):
        run(*arguments)


CASE = """
import torch
from torch import nn
from harness import Case

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(6, 3), nn.Linear(3, 6)
    def forward(self, rows):
        return self.dec(torch.relu(self.enc(rows)))

def load():
    return torch.randn(600, 6, generator=torch.Generator().manual_seed(0))

def losses(model, batch):
    return {"reconstruction": (model(batch) - batch).square().mean()}

case = Case(model=Small, data=load, losses=losses, bottleneck="enc", train={"epochs": 2})
"""


def test_a_case_is_trained_judged_and_audited(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(CASE)
    _, printed = run(tmp_path / "small.py", "--json")
    document = json.loads(printed)
    assert (document["case"], document["seed"], document["activation"]) == ("small", 0, "relu")
    assert len(document["units"]) == 3
    assert len(document["output"]["pca_r2"]) == document["measures"]["live_units"]
    assert "findings" in document["audit"]


def test_a_case_with_its_own_loop_alone_is_judged_without_an_audit(tmp_path: Path) -> None:
    own = CASE.replace(", losses=losses", ", fit=fit").replace(', train={"epochs": 2}', "")
    (tmp_path / "own.py").write_text(own.replace("case =", "def fit(model, seed):\n    pass\n\ncase ="))
    _, printed = run(tmp_path / "own.py")
    assert "the case trains by its own function and has no `losses`, so it was not audited" in printed
    document = json.loads(run(tmp_path / "own.py", "--json")[1])
    assert len(document["units"]) == 3
    assert "audit" not in document


@pytest.mark.parametrize(("code", "said"), [("rows", False), ("rows.reshape(-1, 2, 3)", True)])
def test_a_unit_of_a_code_with_positions_is_named(tmp_path: Path, code: str, said: bool) -> None:
    """Two linear maps of two positions of three features: two features of the code, at two positions."""
    layers = ("nn.Linear(3, 2)", "nn.Linear(2, 3)") if said else ("nn.Linear(6, 3)", "nn.Linear(3, 6)")
    text = CASE.replace("nn.Linear(6, 3), nn.Linear(3, 6)", ", ".join(layers))
    (tmp_path / "places.py").write_text(text.replace("self.enc(rows)))", f"self.enc({code}))).reshape(rows.shape)"))
    _, printed = run(tmp_path / "places.py")
    text = "a unit is one of the code's 2 features; each of its 2 positions in a sample is a row"
    assert (text in printed) == said
    assert ("2 of 2 units live" in printed) == said


def test_a_cases_weights_are_judged_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(CASE)
    state = {"enc.weight": torch.zeros(3, 6), "enc.bias": torch.tensor([1.0, -1.0, -1.0])}
    state |= {"dec.weight": torch.zeros(6, 3), "dec.bias": torch.zeros(6)}
    torch.save(state, tmp_path / "state.pt")
    code, printed = run(tmp_path / "small.py", "--json", "--weights", tmp_path / "state.pt")
    document = json.loads(printed)
    assert code == 1
    assert document["verdict"] == "full_collapse"
    assert document["flags"] == ["single_unit_dominance", "constant_output"]


def test_weights_of_another_model_or_a_pickle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(CASE)
    torch.save({"other": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(HarnessError, match="expected a state dict of this case's model"):
        run(tmp_path / "small.py", "--weights", tmp_path / "other.pt")
    (tmp_path / "empty.pt").touch()
    with pytest.raises(HarnessError, match="expected a state dict of this case's model: EOFError"):
        run(tmp_path / "small.py", "--weights", tmp_path / "empty.pt")
    with pytest.raises(HarnessError, match=r"of this case's model \(enc.weight, enc.bias, .*\), got other"):
        run(tmp_path / "small.py", "--weights", tmp_path / "other.pt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "pickle.pt")
    with pytest.raises(HarnessError, match="expected weights alone, got a pickle"):
        run(tmp_path / "small.py", "--weights", tmp_path / "pickle.pt")
    with pytest.raises(HarnessError, match="no such file"):
        run(tmp_path / "small.py", "--weights", tmp_path / "nowhere.pt")


@pytest.mark.long
def test_weights_that_are_no_numbers_are_a_finding_and_no_error(tmp_path):
    case = load_case("forum")
    state = case.model().state_dict()
    lost = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    torch.save(lost, tmp_path / "lost.pt")
    code, text = run("forum", "--weights", tmp_path / "lost.pt", "--json")
    assert code == 1
    assert json.loads(text)["verdict"] == "invalid"
    assert "no_r2" not in json.loads(text)  # the output that is compared with the rows exists


def test_the_default_activation_is_inferred_and_printed(tmp_path: Path) -> None:
    _, printed = run(save(tmp_path, "layer.npy", normal(500)))
    assert "activation none (inferred from the values)" in printed
    with pytest.raises(HarnessError, match="expected values of 0 or more after a ReLU"):
        run(tmp_path / "layer.npy", "--activation", "relu")


def test_no_unit_is_printed_twice(tmp_path: Path) -> None:
    _, printed = run(save(tmp_path, "layer.npy", torch.cat([torch.zeros(500, 8), CODE], 1)))
    rows = [line.split()[0] for line in printed.splitlines() if line.strip()[:1].isdigit()]
    assert rows == ["0-7", "8", "9", "10", "11"]


def test_a_posterior_and_an_output_of_another_shape_come_from_files(tmp_path: Path) -> None:
    means = save(tmp_path, "means.npy", 0.003 * normal(500))
    logs = save(tmp_path, "logs.npy", torch.zeros(500, 4))
    code, printed = run(means, "--posterior", logs)
    assert (code, "full_collapse" in printed, "KL" in printed) == (1, True, True)
    constant = save(tmp_path, "output.npy", torch.ones(500, 1))
    code, printed = run(save(tmp_path, "layer.npy", CODE), "--output", constant, "--json")
    assert (code, json.loads(printed)["verdict"]) == (1, "constant_output")
