"""Public faults and their corrected twins: one of each kind here, the whole table as evidence."""

import pytest
import torch
from answers import Answer, ask_harness
from stranger import Stranger, Symptom, inputs_and_targets, symptom, trained
from stranger_page import page
from stranger_scores import Judged, Share, summary
from stranger_table import STRANGERS, by_name

import harness

pytestmark = pytest.mark.many

ONE_OF_EACH_KIND = (
    "vae mean error, mean KL",
    "sae L1 without an absolute value",
    "vq codebook term on the straight-through output",
    "router balance is a constant",
    "simsiam without stop-gradient",
    "code is kept detached by a hook",
    "layers in a plain list",
    "weights start from one constant",
    "GRU without batch_first",
    "column against row",
    "sigmoid before a loss that takes logits",
    "skip connection around the code",
    "root of a squared distance of 0",
    "errors are clipped before the square",
    "bits that are set are counted",
)


def rules(case):
    """Return the faults, and the faults and risks, of an audit."""
    audit = harness.audit(case, seeds=1)
    faults = {finding.rule for finding in audit.faults}
    return faults, faults | {finding.rule for finding in audit.risks}


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_the_cause_is_named_and_the_twin_is_left_alone(name):
    stranger = by_name(name)
    faults, findings = rules(stranger.sick())
    assert findings & set(stranger.causes)
    assert faults <= {*stranger.causes, *stranger.also}
    faults, findings = rules(stranger.twin())
    assert not faults
    assert not findings & set(stranger.causes)


def test_every_kind_of_the_table_with_a_cause_is_among_the_fast_ones():
    kinds = {stranger.kind for stranger in STRANGERS if stranger.causes} - {"realistic"}
    assert kinds == {by_name(name).kind for name in ONE_OF_EACH_KIND}


def test_the_table_has_thirty_cases_each_with_a_source_and_a_name_of_its_own():
    assert len(STRANGERS) >= 30
    assert len({stranger.name for stranger in STRANGERS}) == len(STRANGERS)
    assert all(
        "#" in stranger.source or stranger.source.startswith("https://") or stranger.source == "constructed"
        for stranger in STRANGERS
    )
    assert not any(stranger.harmless and stranger.causes for stranger in STRANGERS)


def test_the_symptom_is_measured_in_plain_torch():
    stranger = by_name("sae code behind a dead ReLU")
    case = stranger.sick()
    measured = symptom(case, trained(case, 0))
    assert (measured.share, measured.output) == ("all", "constant")
    answer = ask_harness(case, 0)
    assert answer.symptom == measured
    assert "dead_at_birth" in answer.maybe


def judged(sick, causes=(), said=(), lost=(), answered=(), **more):
    stranger = Stranger("x", "kind", "a/b#1", "wrong", lambda: None, lambda: None, causes=causes, **more)
    truth = Symptom(frozenset(lost), 4, "good")
    answer = Answer(Symptom(frozenset(answered), 4, "good"), said, complains=bool(said))
    return Judged(stranger, sick, truth, answer)


def test_scores_count_what_is_right_and_what_is_false():
    results = [
        judged(True, ("escape",), ("escape",), (0, 1), (0, 1)),
        judged(True, ("escape",), ("bypass",), (0,), ()),
        judged(False, ("escape",), (), (), (3,)),
    ]
    scores = summary(results)
    assert scores["cause named"] == Share(1, 2)
    assert scores["no false fault"] == Share(2, 3)
    assert scores["symptom right"] == Share(1, 3)
    assert scores["lost units: recall"] == Share(2, 3)
    assert scores["lost units: precision"] == Share(2, 3)
    assert scores["something is wrong: recall"] == Share(2, 2)


def test_a_share_has_wilsons_interval():
    assert str(Share(5, 5)) == "5 of 5 [0.57, 1.00]"
    assert str(Share(0, 0)) == "none"


def test_the_page_has_a_line_for_each_case_and_links_the_source():
    text, scores = page([judged(True, ("escape",), ("bypass",)), judged(False)], {})
    assert "[a/b#1](https://github.com/a/b/issues/1)" in text
    assert "bypass; false: bypass | no |" in text
    assert scores["harness"]["cause named"] == "0 of 1 [0.00, 0.79]"


@pytest.mark.evidence
@pytest.mark.parametrize("stranger", STRANGERS, ids=lambda stranger: stranger.name)
@pytest.mark.parametrize("sick", [True, False], ids=["sick", "twin"])
def test_the_declared_truth_holds_for_three_seeds(stranger, sick):
    case = stranger.sick() if sick else stranger.twin()
    rows = inputs_and_targets(case.data())[0]
    for seed in range(3):
        model = trained(case, seed)
        measured = symptom(case, model)
        if stranger.fact is not None:
            assert stranger.fact(case, model, rows) == sick
        if sick:
            assert stranger.lost in ("any", measured.share)
            assert stranger.output in ("any", measured.output)


@pytest.mark.evidence
def test_eight_of_ten_causes_are_named_and_no_false_fault_in_ninety_five_of_a_hundred():
    results = []
    for stranger in STRANGERS:
        for sick in (True, False):
            case = stranger.sick() if sick else stranger.twin()
            truth = symptom(case, trained(case, 0))
            results.append(Judged(stranger, sick, truth, ask_harness(case, 0)))
    nameable = [result for result in results if result.nameable]
    assert sum(result.cause_right for result in nameable) >= 0.8 * len(nameable)
    assert sum(not result.false_faults for result in results) >= 0.95 * len(results)
    assert sum(result.symptom_right for result in results) >= 0.95 * len(results)
    assert torch.get_num_threads() == 1
