"""Textbook penalties have no fault, every rule fires on its planted fault, and nothing else is called a fault."""

import pytest
from faulty_models import FAULTY
from penalty_zoo import HONEST, PLANTED

from harness.auditing import AUDIT_THRESHOLDS, audit
from harness.auditing.audit_thresholds import SEVERITY

pytestmark = pytest.mark.many

# planted faults that are two faults at once, by the rules' own definitions
ALSO = {
    "layer before": {"misses_bottleneck", "wrong_layer"},
    "sigmoid of the pre-activation": {"misses_bottleneck"},
    "sigmoid of a hooked output": {"misses_bottleneck"},
    "before batch norm": {"misses_bottleneck"},
    "KL from logits before batch norm": {"misses_bottleneck"},
    "log of a ReLU": {"unbounded"},
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_penalty_has_no_fault(name):
    found = audit(HONEST[name](), during_training=False, seeds=1)
    assert found.faults == (), str(found)


@pytest.mark.parametrize("name", [name for name in HONEST if "logits" in name or "hooked" in name])
def test_an_exact_form_of_a_penalty_on_the_code_s_means_is_no_risk(name):
    found = audit(HONEST[name](), during_training=False, seeds=1)
    assert found.findings == (), str(found)


@pytest.mark.parametrize("name", ["squares of a sigmoid code's logits", "mean of a sigmoid code's logits"])
def test_a_penalty_on_the_logits_themselves_stays_a_risk(name):
    make, wanted = PLANTED[name]
    found = audit(make(), during_training=False, seeds=1)
    assert {each.severity for each in found.findings if each.rule in wanted} == {"risk"}


@pytest.mark.parametrize("name", [name for name in HONEST if "running average" in name])
def test_what_a_loss_keeps_from_one_evaluation_does_not_reach_the_next(name):
    found = audit(HONEST[name](), during_training=False, seeds=1)
    assert found.risks == (), str(found)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_and_no_other_fault(name):
    make, wanted = PLANTED[name]
    found = audit(make(), during_training="light" in name, seeds=1)
    assert wanted <= set(found.rules), str(found)
    assert {each.rule for each in found.faults} <= wanted | ALSO.get(name, set()), str(found)


def test_every_rule_of_the_table_is_planted_somewhere():
    planted = set().union(*(wanted for _, wanted in PLANTED.values()))
    elsewhere = {"undeclared_posterior"}  # of models, not of penalties: tests/auditing/test_models_of_others.py
    assert set(SEVERITY) == planted | {rule for rule, _ in FAULTY.values()} | elsewhere


@pytest.mark.parametrize("name", ["item", "sign", "mean over units", "skip", "ReLU output"])
def test_a_fault_has_the_severity_of_the_table(name):
    make, wanted = PLANTED[name]
    found = audit(make(), during_training=False, seeds=1)
    assert {each.severity for each in found.findings if each.rule in wanted} == {"fault"}


def test_a_penalty_without_a_set_point_gets_notes_only():
    found = audit(HONEST["L1 of a ReLU code"](), during_training=False, seeds=1)
    assert {each.rule for each in found.notes} == {"collapse_optimum", "pushes_active_units_down"}
    assert not found.faults
    assert not found.risks


def test_a_sigmoid_of_a_relu_has_the_floor_of_its_closed_form():
    make, _ = PLANTED["sigmoid of ReLU"]
    found = audit(make(), during_training=False, seeds=1)
    target = next(each for each in found.findings if each.rule == "unreachable_target")
    # KL(.05 || .5) per unit, and the set point at the logit of .05
    assert target.numbers["floor_per_unit"] == pytest.approx(0.494626, abs=1e-4)
    assert target.numbers["set_point"] == pytest.approx(-2.944439, abs=0.2)


def test_the_ratio_at_birth_scales_with_beta():
    from dataclasses import replace

    case = HONEST["L1 of a ReLU code"]()
    heavy = audit(replace(case, numbers={"beta": 1e4}), during_training=False, seeds=1)
    ratio = next(each for each in heavy.findings if each.rule == "dominates").numbers["ratio_at_0"]
    heavier = audit(replace(case, numbers={"beta": 1e5}), during_training=False, seeds=1)
    assert next(e for e in heavier.findings if e.rule == "dominates").numbers["ratio_at_0"] == pytest.approx(
        10 * ratio, rel=1e-4
    )
    assert heavier.bounds == AUDIT_THRESHOLDS
