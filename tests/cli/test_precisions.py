"""Models of tokens and of other precisions through the command line, from the plan to the report."""

import json
from pathlib import Path

import pytest
from commands import harness, within

pytestmark = pytest.mark.many

WORDS = """
import torch
import torch.nn.functional as F
from torch import nn
import harness

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.code, self.back = nn.Embedding(12, 3), nn.Linear(18, 4), nn.Linear(4, 72)
        with torch.no_grad():
            self.code.bias[1] = -1e3

    def forward(self, words):
        code = torch.relu(self.code(self.table(words).flatten(1)))
        return code, self.back(code).unflatten(1, (6, 12))

def data():
    chance = torch.Generator().manual_seed(0)
    kind = torch.randint(0, 3, (400,), generator=chance)
    return torch.randint(0, 4, (400, 6), generator=chance) + 4 * kind[:, None], kind

def losses(model, batch, rho):
    code, logits = model(batch)
    return {"reconstruction": F.cross_entropy(logits.flatten(0, 1), batch.flatten()), "l1": rho * code.abs().mean()}

case = harness.Case(Words, data, losses, "code", numbers={"rho": 0.1, "beta": 0.01})
"""
PLAIN = """
import torch
from torch import nn
import harness

def build():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6)).PRECISION()
    with torch.no_grad():
        model[0].bias[1] = -1e3
    return model

def data():
    return torch.rand(60, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

def losses(model, batch):
    return {"reconstruction": ((model(batch) - batch) ** 2).mean()}

case = harness.Case(build, data, losses, "0", train={"epochs": 2, "batch_size": 16})
"""
EXPERIMENT = """
name: words
case: own.py
factors: {penalty: [as_posted, none], batchnorm: [off, on]}
seeds: 2
train: {epochs: 5, batch_size: 32}
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory, stored):
    folder = stored(tmp_path_factory.mktemp("words"))
    (folder / "own.py").write_text(WORDS)
    (folder / "words.yaml").write_text(EXPERIMENT)
    return folder


@pytest.mark.long
def test_tokens_are_planned_run_and_reported_and_each_says_that_there_is_no_r2(words):
    planned = within("plan", "words.yaml", "--json", folder=words)
    assert planned.returncode == 0, planned.stderr
    (note,) = [each for each in json.loads(planned.stdout)["notes"] if each.startswith("R2 is not available")]
    assert "tokens" in note
    done = within("run", "words.yaml", "--json", "--workers", "0", folder=words)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["done"], document["failed"], document["diverged"]) == (8, 0, 0)
    assert document["verdicts"] == {"partial_collapse": 8}
    assert "Members without a reconstruction have no R2" in Path(document["report"]).read_text()
    assert json.loads(within("run", "words.yaml", "--json", folder=words).stdout)["trained"] == 0


def test_a_token_case_is_diagnosed_with_its_dead_unit_and_the_reason_for_no_r2(words):
    done = within("diagnose", "own.py", "--json", folder=words)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["units"][1]["verdict"] == "never_fired"
    assert found["output"] is None
    assert "tokens" in found["no_r2"]


def test_a_token_past_its_table_is_one_sentence_and_exit_code_2(tmp_path):
    (tmp_path / "own.py").write_text(WORDS.replace("nn.Embedding(12, 3)", "nn.Embedding(2, 3)"))
    (tmp_path / "words.yaml").write_text(EXPERIMENT)
    for command, *arguments in ((harness, "run", "words.yaml"), (within, "audit", "own.py")):
        done = command(*arguments, folder=tmp_path)
        assert done.returncode == 2, arguments
        assert "IndexError: index out of range" in done.stderr
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("precision", ["double", "bfloat16"])
def test_given_weights_are_judged_in_the_model_s_precision(tmp_path, precision):
    import torch

    (tmp_path / "own.py").write_text(PLAIN.replace("PRECISION", precision))
    namespace = {}
    exec(PLAIN.replace("PRECISION", precision), namespace)
    state = namespace["build"]().state_dict()
    # a unit that moves by 1e-10 of its size: constant in bfloat16, not in float64
    state["0.weight"][0], state["0.bias"][0] = torch.tensor([1e-10, 0, 0, 0, 0, 0]), 1.0
    torch.save(state, tmp_path / "weights.pt")
    done = within("diagnose", "own.py", "--weights", "weights.pt", "--json", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    first, second, *_ = (unit["verdict"] for unit in json.loads(done.stdout)["units"])
    assert first == ("near_constant" if precision == "double" else "constant_on")
    assert second == "never_fired"
