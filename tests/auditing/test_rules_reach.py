"""What no gradient reaches, codes that stay constant, numbers that nothing reads, and trainings that diverge."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from faulty_models import FAULTY, logarithm_of_what_is_left
from healthy_models import HEALTHY, NEAR_A_FAULT, Autoencoder, Quantized, case, quantizer_losses
from penalty_zoo import PLANTED
from torch import nn

from harness.auditing import audit, gradient_ratios
from harness.case import Case, load_case, shipped_cases

pytestmark = pytest.mark.many

NEW = {
    "mixed_rows",
    "unpaired_rows",
    "cut_encoder",
    "unreached_parameter",
    "unused_number",
    "constant_at_birth",
    "diverges",
}
ALSO = {"logarithm of a negative number": {"unbounded"}}  # the logarithm falls without end as the code shrinks


def findings(result, rule):
    return [finding for finding in result.findings if finding.rule == rule]


def undecided(result, rule):
    return [finding.evidence for finding in result.undecided if finding.rule == rule]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_has_none_of_the_faults(name):
    result = audit(HEALTHY[name](), seeds=2)
    assert not NEW & set(result.rules), str(result)


@pytest.mark.parametrize("name", shipped_cases())
def test_a_shipped_case_has_none_of_the_faults(name):
    result = audit(load_case(name), seeds=1)
    assert not NEW & set(result.rules), str(result)


@pytest.mark.parametrize("name", [name for name, (rule, _) in FAULTY.items() if "rows" not in rule])
def test_a_planted_fault_is_found_and_no_other_fault(name):
    rule, make = FAULTY[name]
    result = audit(make(), seeds=2)
    assert rule in result.rules, str(result)
    assert {finding.rule for finding in result.faults} <= {rule} | ALSO.get(name, set()), str(result)


def test_a_code_that_starts_constant_and_is_trained_is_a_note():
    make, rule = NEAR_A_FAULT["zero encoder"]
    (finding,) = findings(audit(make(), seeds=2), rule)
    assert finding.severity == "note"


def test_a_dead_relu_code_is_dead_and_neither_constant_nor_unreached():
    result = audit(PLANTED["dead at birth"][0](), seeds=3)
    assert "dead_at_birth" in result.rules
    assert not NEW & set(result.rules), str(result)


@pytest.mark.parametrize("name", [name for name, (rule, _) in FAULTY.items() if rule == "unreached_parameter"])
def test_the_unreached_parameters_are_those_without_a_gradient_in_plain_torch(name):
    model_case = FAULTY[name][1]()
    model = model_case.model()
    sum(model_case.losses(model, model_case.data()[:64]).values()).backward()
    without = {parameter: value for parameter, value in model.named_parameters() if value.grad is None}
    (finding,) = findings(audit(model_case, seeds=1), "unreached_parameter")
    assert finding.numbers == {"parameters": len(without), "numbers": sum(v.numel() for v in without.values())}
    assert all((parameter.rpartition(".")[0] or parameter) in finding.evidence for parameter in without)


def test_a_module_that_is_never_called_is_a_note_with_its_name():
    class Spare(Autoencoder):
        def __init__(self):
            super().__init__()
            self.spare = nn.Linear(3, 3)

    (finding,) = findings(audit(case(Spare), seeds=1), "unreached_parameter")
    assert finding.severity == "note"
    assert "spare (bias, weight)" in finding.evidence


def test_a_codebook_outside_the_optimizer_is_no_unreached_parameter():
    make = FAULTY["codebook term misplaced"][1]

    def without_book(parameters):
        return torch.optim.Adam([value for value in parameters if value.shape != (16, 4)], lr=1e-3)

    result = audit(replace(make(), optimizer=without_book), seeds=1)
    assert "unreached_parameter" not in result.rules


@pytest.mark.parametrize("name", ["code detached", "code without a graph", "code rounded"])
def test_the_encoder_that_is_cut_off_is_counted(name):
    (finding,) = findings(audit(FAULTY[name][1](), during_training=False, seeds=1), "cut_encoder")
    assert finding.numbers["parameters"] == 4  # weights and biases of body and enc


def test_a_codebook_that_is_not_trained_beside_a_cut_encoder_is_said_too():
    class BothFaults(Quantized):
        def forward(self, x):
            code = self.encode(x).detach()
            through = code + (self.nearest(code) - code).detach()
            return code, self.decode(through), through

    def losses(model, x):
        _, made, _ = model(x)
        return {"reconstruction": F.mse_loss(made, x)}

    result = audit(case(BothFaults, losses), seeds=1)
    assert {finding.rule for finding in result.faults} == {"cut_encoder", "unreached_parameter"}, str(result)
    (finding,) = findings(result, "unreached_parameter")
    assert finding.numbers["numbers"] == 64  # the codebook alone


def test_without_training_only_the_rules_that_do_not_need_it_decide():
    constant = audit(FAULTY["saturated"][1](), during_training=False, seeds=1)
    assert "constant_at_birth" not in constant.rules
    assert "only training tells" in undecided(constant, "constant_at_birth")[0]
    unreached = audit(FAULTY["learned threshold"][1](), during_training=False, seeds=1)
    assert "threshold" in undecided(unreached, "unreached_parameter")[0]
    unused = audit(FAULTY["number never read"][1](), during_training=False, seeds=1)
    assert [finding.severity for finding in findings(unused, "unused_number")] == ["fault"]


def test_a_training_that_is_stopped_early_leaves_them_undecided(monkeypatch):
    monkeypatch.setattr(gradient_ratios, "MOST_WORK", 1.0)
    result = audit(FAULTY["learned threshold"][1](), seeds=1)
    assert "training stopped after 1 steps" in undecided(result, "unreached_parameter")[0]
    unused = audit(FAULTY["number never read"][1](), seeds=1)
    assert "training stopped after 1 steps" in undecided(unused, "unused_number")[0]


def test_a_probe_that_fails_leaves_them_undecided():
    result = audit(PLANTED["code overwritten"][0](), seeds=1)
    assert "RuntimeError" in undecided(result, "unreached_parameter")[0]


# the loss counts its calls: its argument is 0 at the 80th, its weight at the 100th
@pytest.mark.parametrize(("name", "step"), [("logarithm of a negative number", 79), ("root at zero", 99)])
def test_a_divergence_is_said_with_its_step_and_the_value_before(name, step):
    (finding,) = findings(audit(FAULTY[name][1](), seeds=1), "diverges")
    assert finding.numbers["step"] == step
    assert abs(finding.numbers["previous"]) < 1
    assert f"step {step}" in finding.evidence


def test_the_step_of_a_divergence_is_that_of_a_plain_loop():
    model_case = FAULTY["huge steps"][1]()
    (finding,) = findings(audit(model_case, seeds=1), "diverges")
    values = []
    torch.manual_seed(0)
    model = model_case.model()
    optimizer = model_case.optimizer(model.parameters())
    from harness.data import split_of

    train, draw = split_of(model_case).train.inputs, torch.Generator().manual_seed(0)
    for _ in range(20):
        loss = model_case.losses(model, train[torch.randint(len(train), (64,), generator=draw)])["reconstruction"]
        values.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    step = next(index for index, value in enumerate(values) if not torch.isfinite(torch.tensor(value)))
    # the gradient overflows one step before the loss at the earliest
    assert step - 1 <= finding.numbers["step"] <= step


def test_a_term_that_is_nan_at_initialization_is_said_once():
    def losses(model, x):
        z, made = model(x)
        return {"reconstruction": F.mse_loss(made, x), "log": torch.log(z.mean() - 10)}

    result = audit(case(Autoencoder, losses), seeds=1)
    assert "outside_domain" in result.rules
    assert "diverges" not in result.rules


def test_a_training_that_diverges_is_not_said_without_training():
    result = audit(case(Autoencoder, logarithm_of_what_is_left), during_training=False, seeds=1)
    assert "diverges" not in result.rules


@pytest.mark.long
def test_a_straight_through_quantizer_is_silent_and_its_detached_twin_is_not():
    def detached(model, x):
        nearest = model(x)[2]
        return {**quantizer_losses(model, x), "reconstruction": F.mse_loss(model.decode(nearest.detach()), x)}

    assert "cut_encoder" not in audit(case(Quantized, quantizer_losses), during_training=False, seeds=1).rules
    assert "cut_encoder" in audit(case(Quantized, detached), during_training=False, seeds=1).rules


class Pooled(nn.Module):
    """A weighted sum of tokens; the weights are a softmax over an axis of the scores `[sample, token, 1]`."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis, self.value, self.score, self.code = axis, nn.Linear(3, 6), nn.Linear(3, 1), nn.Linear(6, 2)
        self.back, self.norm, self.gate = nn.Linear(2, 12), nn.BatchNorm1d(2), nn.Parameter(torch.zeros(1))

    def forward(self, rows):
        tokens = rows.view(-1, 4, 3)
        pooled = (self.score(tokens).softmax(self.axis) * self.value(tokens)).sum(1)
        code = torch.tanh(self.norm(self.code(pooled)))  # the norm takes the bias of the code away
        return self.back(code + self.gate * code.square())  # the gate opens from 0


@pytest.mark.parametrize("axis", [1, 2])
def test_a_softmax_over_an_axis_of_one_number_is_a_note_on_the_layers_before_it(axis):
    torch.manual_seed(0)
    model = Pooled(axis)
    rows = torch.randn(64, 12)
    (model(rows) - rows).square().mean().backward()
    assert bool((model.score.weight.grad == 0).all()) == (axis == 2)

    def losses(net, batch):
        return {"reconstruction": (net(batch) - batch).square().mean()}

    case = Case(
        lambda: Pooled(axis), lambda: torch.randn(640, 12, generator=torch.Generator().manual_seed(1)), losses, "code"
    )
    notes = findings(audit(case), "unreached_parameter")
    assert [("score (bias, weight)" in note.evidence, note.severity) for note in notes] == [(True, "note")] * (
        axis == 2
    )
