"""The four threads, as posted, and their corrected forms."""

from dataclasses import replace

import pytest

from harness.auditing import audit
from harness.case import load_case
from harness.data import load

pytestmark = pytest.mark.many

# the siblings' data reach below 0, where the ReLU on the output is a fault of the posted networks themselves
POSTED = {
    "forum": {"misses_bottleneck", "wrong_layer", "wrong_axis", "depends_on_batch_size", "index_addressing"},
    "sibling_count": {"no_gradient", "output_range"},
    "sibling_overwrite": {"zero_gradient", "output_range"},
    "sibling_threshold": {"no_gradient", "output_range"},
}


@pytest.fixture(scope="module")
def audits():
    return {name: audit(load_case(name), during_training=False) for name in POSTED}


@pytest.mark.parametrize("name", POSTED)
def test_a_thread_as_posted_gives_its_findings_and_no_wrong_fault(audits, name):
    found = audits[name]
    assert POSTED[name] <= set(found.rules), str(found)
    assert {each.rule for each in found.faults} <= POSTED[name], str(found)


def test_the_posted_output_is_a_fault_on_data_below_0_and_the_offset_of_the_inputs_a_risk_on_data_above(audits):
    train, held_out = load("patches_contrast")
    centred = replace(load_case("forum"), data=lambda: train, evaluation=lambda: held_out)
    below_0 = audit(centred, during_training=False)
    assert {finding.rule for finding in below_0.faults} - POSTED["forum"] == {"output_range"}
    assert "input_offset" not in below_0.rules
    assert {"input_offset", "dead_at_birth"} <= set(audits["forum"].rules)


@pytest.mark.parametrize("name", ["corrected", "corrected_l1", "corrected_20", "convolutional"])
def test_a_corrected_form_has_no_fault(name):
    found = audit(load_case(name), during_training=False)
    assert found.faults == (), str(found)


def test_the_wrong_layer_is_named(audits):
    layer = next(each for each in audits["forum"].findings if each.rule == "wrong_layer")
    assert "dec1" in layer.evidence


def test_the_copied_line_is_shown_with_its_correction(audits):
    axis = next(each for each in audits["forum"].findings if each.rule == "wrong_axis")
    assert "rho_hat = torch.mean(torch.sigmoid(rho_hat), 1)" in axis.evidence
    assert "rho_hat = torch.mean(torch.sigmoid(rho_hat), 0)" in axis.remedy
    assert isinstance(axis.line, int)


def test_the_line_that_leaves_the_graph_is_named(audits):
    lost = next(each for each in audits["sibling_count"].findings if each.rule == "no_gradient")
    assert ".item()" in lost.evidence


def test_the_penalty_of_the_post_grows_with_the_batch_as_a_sum_does(audits):
    slope = next(e for e in audits["forum"].findings if e.rule == "depends_on_batch_size").numbers["slope"]
    assert slope == pytest.approx(1.0, abs=1e-6)


def test_training_probes_weigh_the_terms():
    found = audit(load_case("corrected"), seeds=1)
    assert found.during_training
    assert found.faults == ()
