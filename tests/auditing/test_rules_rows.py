"""Outputs that follow other rows, and terms that do not pair an output with its row."""

from contextlib import nullcontext

import pytest
import torch
from faulty_models import FAULTY
from healthy_models import NEAR_A_FAULT, Autoencoder, Head, case, rows
from torch import nn
from torch.nn import functional as F

from harness.auditing import AUDIT_THRESHOLDS, audit
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.probe import make_probe
from harness.auditing.rules_rows import mixed_rows, unpaired_rows

RULES = ("mixed_rows", "unpaired_rows")


def only_finding(model_case, rule):
    result = audit(model_case, during_training=False, seeds=1)
    (finding,) = [finding for finding in result.findings if finding.rule == rule]
    return finding


@pytest.mark.parametrize("name", [name for name, (rule, _) in FAULTY.items() if rule in RULES])
def test_a_planted_fault_is_found_and_no_other_fault(name):
    rule, make = FAULTY[name]
    result = audit(make(), during_training=False, seeds=1)
    assert {finding.rule for finding in result.faults} == {rule}, str(result)


@pytest.mark.parametrize("name", [name for name, (_, rule) in NEAR_A_FAULT.items() if rule in RULES])
def test_what_is_done_by_design_is_a_note(name):
    make, rule = NEAR_A_FAULT[name]
    assert only_finding(make(), rule).severity == "note"


class Mixture(Autoencoder):
    """`own * row + other * row before it`, read through a code of all features."""

    def __init__(self, own, other):
        super().__init__()
        self.enc = nn.Linear(12, 12, bias=False)
        nn.init.eye_(self.enc.weight)
        self.own, self.other = own, other

    def forward(self, x):
        z = self.enc(self.own * x + self.other * x.roll(1, 0))
        return z, z


def test_the_influence_of_a_row_is_that_of_the_linear_mixture():
    finding = only_finding(case(lambda: Mixture(0.3, 0.7)), "mixed_rows")
    assert finding.severity == "fault"
    # a step of the same size in every row: 0.7 of it arrives from the row before, 0.3 from the row itself
    assert finding.numbers["other"] / finding.numbers["own"] == pytest.approx(7 / 3, rel=1e-9)
    assert finding.numbers["share"] == 1


def test_a_weaker_influence_of_another_row_is_a_note_and_none_is_silent():
    assert only_finding(case(lambda: Mixture(0.7, 0.3)), "mixed_rows").severity == "note"
    assert "mixed_rows" not in audit(case(lambda: Mixture(1.0, 0.0)), during_training=False, seeds=1).rules


def test_all_pairs_of_a_squared_error_cost_twice_the_variance_and_the_mean_costs_it_once():
    finding = only_finding(FAULTY["column against vector"][1](), "unpaired_rows")
    # the mean of (a - b)^2 over all pairs of rows is 2 var, over (a - mean)^2 it is var
    assert finding.numbers["at_reference"] == pytest.approx(2 * finding.numbers["at_mean"], rel=1e-9)


def test_the_right_shape_is_silent():
    def losses(model, x):
        return {"error": (model(x)[:, 0] - x[:, 11]).pow(2).mean()}

    paired = case(Head, losses, objective="error", reconstruction="out:0")
    assert "unpaired_rows" not in audit(paired, during_training=False, seeds=1).rules


def far_rows():
    values = rows()
    values[:, 11] = 30 * values[:, 11] - 400  # the outputs of an untrained net all lie above such targets
    return values


def pinball(output, target):
    return torch.maximum(0.9 * (target - output), 0.1 * (output - target)).mean()


def sorted_distance(output, target):
    return (output.sort().values - target.sort().values).abs().mean()


ONE_SIDED = {  # error, and a factor of outputs from -0.5 to 0.5 that brings them to both sides of the targets
    "absolute": (F.l1_loss, 2000),
    "smooth": (F.smooth_l1_loss, 2000),
    "huber": (F.huber_loss, 2000),
    "quantile": (pinball, 2000),
    "scaled output": (lambda output, target: F.l1_loss(5 * output + 100, target), 2000),
    "exponential output": (lambda output, target: F.l1_loss(-output.exp(), target), 20),
}


def far_case(error, outputs=lambda made: made[:, 0]):
    def losses(model, x):
        return {"error": error(outputs(model(x)), x[:, 11])}

    return case(Head, losses, data=far_rows, objective="error", reconstruction="out:0")


@pytest.mark.parametrize("name", ONE_SIDED)
def test_an_error_whose_outputs_lie_on_one_side_of_the_targets_is_silent(name):
    (error, factor), target = ONE_SIDED[name], far_rows()[:64, 11].double()
    output, order = torch.linspace(-0.5, 0.5, 64).double(), torch.randperm(64)
    # a permutation does not change the term on one side of the targets, and does where outputs lie on both sides
    assert float(error(output[order], target)) == pytest.approx(float(error(output, target)), rel=1e-9)
    assert float(error(factor * output[order], target)) != pytest.approx(
        float(error(factor * output, target)), rel=1e-3
    )
    assert "unpaired_rows" not in audit(far_case(error), during_training=False, seeds=1).rules


@pytest.mark.parametrize("name", ["absolute", "smooth", "quantile"])
def test_a_column_against_a_vector_far_from_the_targets_is_a_fault(name):
    with pytest.warns(UserWarning, match="broadcasting") if name != "quantile" else nullcontext():
        finding = only_finding(far_case(ONE_SIDED[name][0], lambda made: made), "unpaired_rows")
    assert finding.severity == "fault"


def test_a_distance_of_distributions_far_from_the_targets_is_a_note():
    assert only_finding(far_case(sorted_distance), "unpaired_rows").severity == "note"


def test_a_term_on_batch_statistics_or_on_outputs_alone_is_silent():
    def statistics(model, x):
        made = model(x)[1]
        return {
            "reconstruction": (made.mean(0) - x.mean(0)).pow(2).sum() + (made.std(0) - x.std(0)).pow(2).sum(),
            "size": 1e-3 * made.pow(2).mean(),
        }

    assert "unpaired_rows" not in audit(case(Autoencoder, statistics), during_training=False, seeds=1).rules


def test_a_constant_output_is_not_taken_for_one_that_no_permutation_changes():
    def constant():
        model = Autoencoder()
        nn.init.zeros_(model.out.weight)
        return model

    assert "unpaired_rows" not in audit(case(constant), during_training=False, seeds=1).rules


class OwnDraws(Autoencoder):
    """Noise of a generator that no seed reaches."""

    def __init__(self):
        super().__init__()
        self.draws = torch.Generator().manual_seed(0)

    def encode(self, x):
        return super().encode(x) + torch.randn(len(x), 4, generator=self.draws)


class OneNumber(Autoencoder):
    def forward(self, x):
        return self.encode(x).mean()


@pytest.mark.parametrize(
    ("model", "losses", "count", "reason"),
    [
        (Autoencoder, None, 3, "expected at least 4 rows, got 3"),
        (OwnDraws, None, 8, "differs between two equal passes"),
        (OneNumber, lambda model, x: {"reconstruction": model(x)}, 8, "no output of the model has one entry per row"),
    ],
)
def test_mixed_rows_is_undecided_with_a_reason(model, losses, count, reason):
    model_case = case(model) if losses is None else case(model, losses)
    with make_probe(model_case, model(), rows()[:count]) as probe, pytest.raises(Undecided, match=reason):
        mixed_rows(probe, AUDIT_THRESHOLDS)


def test_unpaired_rows_is_undecided_without_rows():
    with make_probe(case(Autoencoder), Autoencoder(), rows()[:3]) as probe, pytest.raises(Undecided, match="4 rows"):
        unpaired_rows(TermProbe(probe, "reconstruction", 0.0), [], AUDIT_THRESHOLDS)
