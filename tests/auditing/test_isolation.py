"""An audit leaves the user's model, its gradients, buffers, mode and attributes, and all random states as they were."""

import random

import numpy as np
import pytest
import torch
import torch.nn as nn
from penalty_zoo import PLANTED, Plain, case_of, kl, losses_of, own_case

from harness import Case
from harness.auditing import Audit, as_manifest, audit, audit_levels
from harness.auditing.isolation import isolated
from harness.case import load_case
from harness.errors import HarnessError

pytestmark = pytest.mark.many


class Kept(Plain):
    def __init__(self) -> None:
        super().__init__(norm=True)
        self.kept = torch.ones(2)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        self.kept = self.kept + 1
        return super().forward(x)


def test_the_users_model_comes_back_exactly_as_it_was():
    torch.manual_seed(5)
    model = Kept()
    model.eval()
    model.enc1.train()
    model(torch.randn(6, 12))[1].sum().backward()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    pointers = [each.data_ptr() for each in model.parameters()]
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    kept = model.kept
    audit(
        Case(
            model=lambda: model, data=case_of(None).data, losses=losses_of(lambda m, c, b: c.mean()), bottleneck="enc2"
        )
    )
    assert all(
        torch.equal(state[name], value) and state[name].dtype == value.dtype
        for name, value in model.state_dict().items()
    )
    assert all(torch.equal(gradients[name], value.grad) for name, value in model.named_parameters())
    assert pointers == [each.data_ptr() for each in model.parameters()]
    assert modes == [module.training for module in model.modules()]
    assert hooks == [len(module._forward_hooks) for module in model.modules()]
    assert model.kept is kept


def test_the_random_states_stay():
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 (the old global state is what a user's code may rely on)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    audit(case_of(lambda m, c, b: c.mean()), seeds=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_a_model_is_given_back_when_something_fails():
    model = nn.Linear(2, 2)
    weight = model.weight.clone()

    def fails() -> None:
        with isolated(model, torch.float64):
            model.weight.data.zero_()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert torch.equal(model.weight, weight)
    assert model.weight.dtype == torch.float32


def test_the_same_case_gives_the_same_audit():
    make, _ = PLANTED["mean over units"]
    first, second = (audit(make(), during_training=False, seeds=1) for _ in range(2))
    assert [each.to_dict() for each in first.findings] == [each.to_dict() for each in second.findings]


def test_an_audit_survives_json():
    found = audit(PLANTED["sigmoid of ReLU"][0](), during_training=False, seeds=1)
    again = Audit.from_dict(found.to_dict())
    assert again.to_dict() == found.to_dict()
    assert "unreachable_target" in str(found)
    assert "<table>" in found._repr_html_()


def test_a_loss_for_float32_only_is_probed_in_float32_and_says_so():
    constant = torch.eye(4)

    def penalty(m, code, b):
        return (code @ constant).abs().mean()  # float64 @ float32 raises

    found = audit(case_of(penalty), during_training=False, seeds=1)
    assert found.faults == ()
    assert "float64" in [each.rule for each in found.undecided]


def test_what_cannot_be_decided_is_undecided_with_its_reason():
    def penalty(m, code, b):
        if not torch.equal(code, m.code) or code.shape[0] != 64:
            raise ValueError("only on the whole batch")
        return kl(0.05, torch.sigmoid(code).mean(0))

    found = audit(case_of(penalty), during_training=False, seeds=1)
    assert any("only on the whole batch" in each.evidence for each in found.undecided)


def test_a_loss_that_fails_is_a_bad_request():
    def losses(model, batch):
        raise KeyError("nothing")

    with pytest.raises(HarnessError, match="losses\\(model, batch\\) failed with KeyError"):
        audit(own_case(losses))


def test_a_loss_without_a_reconstruction_is_a_bad_request():
    with pytest.raises(HarnessError, match="expected a term 'reconstruction'"):
        audit(own_case(lambda model, batch: {"penalty": model(batch)[0].mean()}))


def row_by_row(model, batch):
    return {"reconstruction": (model(batch)[1] - batch).pow(2).mean(1)}


def fails(parameters):
    raise ValueError("no learning rate")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: own_case(row_by_row),
            r"case: losses: term 'reconstruction': expected a scalar, got shape \[64\]; reduce it",
        ),
        (
            lambda: case_of(None, optimizer=lambda p: None),
            r"case: optimizer\(parameters\): expected a torch.optim",
        ),
        (lambda: case_of(None, optimizer=fails), "failed with ValueError: no learning rate"),
        (
            lambda: case_of(None, reconstruction="recon"),
            "case: reconstruction: 'recon': expected 'out:0' for the first output",
        ),
        (lambda: case_of(None, reconstruction="out:7"), "case: reconstruction: 'out:7': the model has 2 outputs"),
        (lambda: case_of(None, target=".05"), "case: target: expected a number or None, got '.05'"),
        (lambda: case_of(None, target=float("nan")), "case: target: expected a number or None, got nan"),
    ],
)
def test_what_could_never_be_trained_is_a_bad_request(make, sentence):
    with pytest.raises(HarnessError, match=sentence):
        audit(make(), during_training=False, seeds=1)


def test_a_model_that_fails_is_a_bad_request():
    class Broken(Plain):
        def forward(self, x):
            raise ValueError("no")

    with pytest.raises(HarnessError, match="failed with ValueError"):
        audit(case_of(None, Broken))


@pytest.mark.long
def test_each_penalty_level_of_a_grid_is_audited_without_training():
    case = load_case("forum")
    found = as_manifest(audit_levels(case, ["none", "kl_sigmoid_of_relu", "hard_count", "kl_sigmoid_bottleneck"]))
    rules = {level: {each["rule"] for each in findings} for level, findings in found.items()}
    assert "unreachable_target" in rules["kl_sigmoid_of_relu"]
    assert "no_gradient" in rules["hard_count"]
    penalties = {
        "unreachable_target",
        "no_gradient",
        "misses_bottleneck",
        "wrong_axis",
        "not_the_code_in_use",
        "wrong_layer",
    }
    assert not penalties & (rules["none"] | rules["kl_sigmoid_bottleneck"])


def test_a_level_that_the_model_refuses_is_left_out():
    class TwoLayers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.dec = nn.Linear(12, 4), nn.Linear(4, 12)

        def forward(self, x):
            code = torch.relu(self.enc(x))
            return code, self.dec(code)

    case = Case(
        model=TwoLayers, data=case_of(None).data, losses=losses_of(lambda m, c, b: c.mean()), bottleneck="out:0"
    )
    assert set(audit_levels(case, ["none", "l1"])) <= {"none", "l1"}


def test_a_wide_layer_costs_no_more_evaluations_than_a_narrow_one():
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.dec = nn.Linear(12, 4096), nn.Linear(4096, 12)

        def forward(self, x):
            code = torch.relu(self.enc(x))
            return code, self.dec(code)

    wide = Case(
        model=Wide,
        data=case_of(None).data,
        losses=losses_of(lambda m, c, b: c.mean()),
        bottleneck="enc",
        numbers={"beta": 1.0},
    )
    found = audit(wide, during_training=False, seeds=1)
    assert found.faults == ()
    assert found.evaluations < 600


def test_a_loss_for_batches_of_the_training_size_is_audited():
    def losses(model, batch):
        assert len(batch) == 50  # such as a queue that is filled batch by batch
        return {"reconstruction": (model(batch) - batch).square().mean()}

    result = audit(
        Case(
            lambda: nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 6)),
            lambda: torch.randn(500, 6, generator=torch.Generator().manual_seed(0)),
            losses,
            "0",
            train={"batch_size": 50},
        )
    )
    assert not result.findings
    assert result.terms == ("reconstruction",)
