"""Who multiplies the penalties: the loss that names the weight, or the harness; never both, and never nobody."""

import json
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import harness
from harness.auditing import audit
from harness.case import Case
from harness.data.rows import Rows, Split
from harness.errors import HarnessError
from harness.grid import load_experiment
from harness.grid.case_facts import case_facts
from harness.remedies import RemedyNotApplicable, apply_remedies, matched_beta, why_not_applicable
from harness.remedies.gradients import gradient_norms
from harness.training import train

pytestmark = pytest.mark.many

SPLIT = Split(
    Rows(torch.randn(64, 6, generator=torch.Generator().manual_seed(0))),
    Rows(torch.randn(16, 6, generator=torch.Generator().manual_seed(1))),
    "planted",
)


def model():
    return nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6))


def terms(net, batch, weight=1.0):
    code = net[1](net[0](batch))
    return {"reconstruction": (net[2](code) - batch).pow(2).mean(), "l1": weight * code.abs().mean()}


def unnamed(net, batch):
    return terms(net, batch)


def with_a_word(net, batch):
    told = {"beta": "a word that weighs nothing"}
    return {name: value for name, value in terms(net, batch).items() if name not in told}


def any_number_and_a_word(net, batch, **numbers):
    label = "beta"
    return {name: value for name, value in terms(net, batch).items() if name != label}


def any_number(net, batch, **numbers):
    return terms(net, batch)


def any_number_or_one(net, batch, **numbers):
    return terms(net, batch, numbers.get("beta", 1.0))


def named(net, batch, beta):
    return terms(net, batch, beta)


def named_only(net, batch, *, beta=7.0):
    return terms(net, batch, beta)


def named_and_any(net, batch, beta, **numbers):
    return terms(net, batch, beta)


def read_from_any(net, batch, **numbers):
    return terms(net, batch, numbers["beta"])


def named_lam(net, batch, lam):
    return terms(net, batch, lam)


class Named:
    def __call__(self, net, batch, beta):
        return terms(net, batch, beta)


class AnyNumber:
    word = "beta"

    def __call__(self, net, batch, **numbers):
        return terms(net, batch)


def case_of(losses, **more):
    given = {"numbers": {"beta": 0.3}, "train": {"epochs": 2, "batch_size": 16}, **more}
    return Case(model, lambda: SPLIT.train.inputs, losses, "0", **given)


LAM = {"numbers": {"lam": 0.3}, "penalty_weight": "lam"}
ONCE = {
    "a loss without it": case_of(unnamed),
    "a loss with a word": case_of(with_a_word),
    "any number and a word": case_of(any_number_and_a_word),
    "any number": case_of(any_number),
    "any number, with a default": case_of(any_number_or_one),
    "any number, in a class": case_of(AnyNumber()),
    "named": case_of(named),
    "named, keyword only": case_of(named_only),
    "named, in a class": case_of(Named()),
    "named beside any number": case_of(named_and_any),
    "a partial": case_of(partial(named_only, beta=5.0)),
    "read from any number, and said": case_of(read_from_any, penalty_weight=None),
    "named, and said": case_of(named, penalty_weight=None),
    "another name, not taken": case_of(unnamed, **LAM),
    "another name, taken": case_of(named_lam, **LAM),
    "another name, any number": case_of(any_number, **LAM),
    "another name, weighed by the loss": case_of(named_lam, numbers={"lam": 0.3}, penalty_weight=None),
}


def total(case, numbers=None):
    """What is minimized on some rows, by the model of seed 0, and the two terms as plain torch has them."""
    torch.manual_seed(0)
    net, batch = case.model(), SPLIT.train.inputs[:16]
    numbers = dict(case.numbers if numbers is None else numbers)
    found = case.losses(net, batch, **{name: numbers[name] for name in case.loss_keywords()})
    return float(case.total(found, numbers).detach()), *(float(value.detach()) for value in terms(net, batch).values())


@pytest.mark.parametrize("name", ONCE)
def test_the_weight_is_applied_exactly_once(name):
    found, reconstruction, penalty = total(ONCE[name])
    assert found == pytest.approx(reconstruction + 0.3 * penalty, rel=1e-6)


UNWEIGHTED = {
    "a loss that weighs itself and does not": case_of(unnamed, penalty_weight=None),
    "no number": case_of(unnamed, numbers={}),
    "a number of another name": case_of(unnamed, numbers={"lam": 0.3}),
}


@pytest.mark.parametrize("name", UNWEIGHTED)
def test_without_a_weight_penalties_count_as_they_are(name):
    found, reconstruction, penalty = total(UNWEIGHTED[name])
    assert found == pytest.approx(reconstruction + penalty, rel=1e-6)


@pytest.mark.parametrize("name", ONCE)
def test_every_spelling_trains_the_same_model(name):
    def trained(case):
        for snapshot in train([case, case], [0, 1], SPLIT):
            final = snapshot
        return final.losses["total"]

    # the product is rounded in the loss, or outside of it
    torch.testing.assert_close(trained(ONCE[name]), trained(ONCE["a loss without it"]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_factor_beta_sets_the_weight_under_whatever_name(name, weight):
    case = ONCE[name]
    if name == "another name, weighed by the loss":  # its name is nowhere said: the number itself is the factor
        treated = apply_remedies(case, {"lam": weight}, SPLIT)
    else:
        treated = apply_remedies(case, {"beta": weight}, SPLIT)
    found, reconstruction, penalty = total(treated)
    assert found == pytest.approx(reconstruction + weight * penalty, rel=1e-6)
    assert total(apply_remedies(case, {}, SPLIT))[0] == pytest.approx(reconstruction + 0.3 * penalty, rel=1e-6)


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("levels", [{"activation": "tanh"}, {"penalty": "l1"}, {"penalty": "l1", "beta": 2.0}])
def test_a_treated_loss_is_weighed_once_too(name, levels):
    case = ONCE[name]
    if name == "another name, weighed by the loss" and "penalty" in levels:
        levels = {"penalty": "l1", "beta": levels.get("beta", 0.3)}
    treated = apply_remedies(case, levels, SPLIT)
    torch.manual_seed(0)
    net, batch = treated.model(), SPLIT.train.inputs[:16]
    found = treated.losses(net, batch, **{key: treated.numbers[key] for key in treated.loss_keywords()})
    code = (torch.tanh if "activation" in levels else torch.relu)(net.model[0](batch))
    penalty = code.abs().mean() if "activation" in levels else code.abs().mean(0).sum()
    expected = (net.model[2](code) - batch).pow(2).mean() + levels.get("beta", 0.3) * penalty
    assert treated.total(found, treated.numbers).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("name", ["named", "any number", "another name, taken", "another name, not taken"])
@pytest.mark.parametrize("penalty", ["as_posted", "l1"])
def test_a_matched_weight_makes_the_gradients_equally_long_under_any_name(name, penalty):
    case = ONCE[name]
    weight = matched_beta(case, {"penalty": penalty, "beta": "matched"}, SPLIT, seeds=1)
    treated = apply_remedies(case, {"penalty": penalty, "beta": weight}, SPLIT)
    torch.manual_seed(0)
    net = treated.model()
    norms = gradient_norms(treated, net, SPLIT.train.inputs[:16], treated.numbers)
    own = 1.0 if treated.weighs_itself else weight
    assert own * norms["l1"] == pytest.approx(norms["reconstruction"], rel=1e-4)


def test_numbers_of_a_stack_may_differ_in_the_weight():
    cases = [apply_remedies(case_of(named), {"beta": weight, "penalty": "l1"}, SPLIT) for weight in (0.1, 2.0)]
    for snapshot in train(cases, [0, 0], SPLIT):
        final = snapshot.losses
    alone = []
    for case in cases:
        for snapshot in train([case], [0], SPLIT):
            last = snapshot.losses["total"]
        alone.append(last)
    assert torch.equal(final["total"], torch.cat(alone))
    assert final["total"][0] != final["total"][1]


WRONG = {
    "a number": (
        {"penalty_weight": 0.1},
        r"Case\.penalty_weight: expected the name of a number or None, got float 0\.1",
    ),
    "a flag": ({"penalty_weight": True}, r"Case\.penalty_weight: expected the name of a number or None, got bool True"),
    "no letter": ({"penalty_weight": ""}, r"Case\.penalty_weight: expected the name of a number or None, got str ''"),
    "a misspelt name": (
        {"penalty_weight": "lambd", "numbers": {"lambda_": 0.1, "rho": 0.05}},
        r"Case\.penalty_weight: no number of the case is called 'lambd'; did you mean 'lambda_'\? Known: lambda_, rho",
    ),
    "a name without numbers": (
        {"penalty_weight": "lam", "numbers": {}},
        r"Case\.penalty_weight: no number of the case is called 'lam'\. Known: none",
    ),
}


@pytest.mark.parametrize(("given", "sentence"), WRONG.values(), ids=WRONG)
def test_what_names_no_weight_is_refused_when_the_case_is_made(given, sentence):
    with pytest.raises(HarnessError, match=sentence):
        case_of(unnamed, **given)


@pytest.mark.parametrize(
    "ask", [lambda case: apply_remedies(case, {}, SPLIT), lambda case: audit(case, during_training=False)]
)
def test_a_loss_that_reads_the_weight_from_any_number_is_told_what_to_write(ask):
    sentence = (
        r"failed with KeyError: 'beta'; the harness multiplies .* write penalty_weight=None if the loss weighs itself"
    )
    with pytest.raises(HarnessError, match=sentence):
        ask(case_of(read_from_any))
    ask(case_of(read_from_any, penalty_weight=None))


@pytest.mark.parametrize(
    "losses", [lambda net, batch: {"a": {}["gamma"]}, lambda net, batch, **numbers: numbers["gamma"]]
)
def test_another_key_error_is_told_as_it_is(losses):
    with pytest.raises(HarnessError, match=r"failed with KeyError: 'gamma'$"):
        apply_remedies(case_of(losses), {}, SPLIT)


def test_a_loss_is_given_the_numbers_that_it_names_and_any_number_but_the_weight():
    given = {"numbers": {"beta": 0.3, "rho": 0.05, "gamma": 2.0}}
    assert case_of(lambda net, batch, rho: {}, **given).loss_keywords() == ("rho",)
    assert case_of(lambda net, batch, **numbers: {}, **given).loss_keywords() == ("rho", "gamma")
    assert case_of(lambda net, batch, beta, **numbers: {}, **given).loss_keywords() == ("beta", "rho", "gamma")
    assert case_of(lambda net, batch, **beta: {}, **given).loss_keywords() == ("rho", "gamma")
    every = case_of(lambda net, batch, **numbers: {}, penalty_weight=None, **given)
    assert every.loss_keywords() == ("beta", "rho", "gamma")
    other = case_of(lambda net, batch, **numbers: {}, penalty_weight="gamma", **given)
    assert other.loss_keywords() == ("beta", "rho")


def test_two_names_of_one_weight_are_refused():
    sentence = r"beta and lam are one number of case, the weight of its penalties; expected one of them"
    with pytest.raises(HarnessError, match=sentence):
        apply_remedies(ONCE["another name, taken"], {"beta": 1.0, "lam": 2.0}, SPLIT)


def test_a_number_that_the_case_itself_calls_beta_is_that_number():
    def sharp(net, batch, beta):
        code = net[1](beta * net[0](batch))
        return {"reconstruction": (net[2](code) - batch).pow(2).mean(), "l1": code.abs().mean()}

    case = case_of(sharp, numbers={"beta": 2.0, "lam": 0.3}, penalty_weight="lam")
    treated = apply_remedies(case, {"beta": 4.0, "lam": 0.5}, SPLIT)
    assert dict(treated.numbers) == {"beta": 4.0, "lam": 0.5}
    assert treated.weight(treated.numbers) == 0.5
    own = apply_remedies(case, {"penalty": "l1"}, SPLIT)
    assert own.weight(own.numbers) == 0.3
    with pytest.raises(
        RemedyNotApplicable, match=r"`matched` stands for a weight of the penalties, which case calls 'lam'"
    ):
        matched_beta(case, {"beta": "matched"}, SPLIT)


def test_a_weight_that_nothing_reads_is_refused():
    case = ONCE["another name, weighed by the loss"]
    assert "the loss weighs itself (penalty_weight=None), and takes no number of that name" in why_not_applicable(
        case, {"beta": 1.0}, SPLIT
    )
    for levels in ({"lam": 1.0}, {"beta": 1.0, "penalty": "l1"}, {"beta": 1.0, "penalty": "none"}):
        assert why_not_applicable(case, levels, SPLIT) is None


def test_the_harness_s_own_penalty_has_a_weight_where_the_author_s_had_none():
    treated = apply_remedies(case_of(unnamed, penalty_weight=None, numbers={}), {"penalty": "l1"}, SPLIT)
    assert treated.weight(treated.numbers) == 0.001


FILE = """
import torch
from torch import nn

import harness


def losses(net, batch):
    code = net[1](net[0](batch))
    return {"reconstruction": (net[2](code) - batch).pow(2).mean(), "l1": code.abs().mean()}


case = harness.Case(
    model=lambda: nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6)), data=lambda: torch.randn(40, 6),
    losses=losses, bottleneck="0", numbers={"lam": 0.3}, penalty_weight="lam",
)
"""


@pytest.mark.parametrize("text", [FILE, FILE.replace("case = harness", "case = None\ncase = harness")])
def test_an_experiment_may_call_the_weight_by_either_name_and_not_by_both(tmp_path, text):
    (tmp_path / "own.py").write_text(text)
    assert case_facts(tmp_path / "own.py").penalty_weight == "lam"

    def loaded(factors):
        (tmp_path / "x.yaml").write_text(f"name: x\ncase: own.py\nseeds: 1\nfactors: {json.dumps(factors)}\n")
        return load_experiment(tmp_path / "x.yaml")

    assert loaded({"beta": [0.1, 1.0]}).factors["beta"] == (0.1, 1.0)
    assert loaded({"lam": [0.1, 1.0]}).factors["lam"] == (0.1, 1.0)
    sentence = r"factors: beta and lam are one number, the weight of the case's penalties; expected one of them"
    with pytest.raises(HarnessError, match=sentence):
        loaded({"beta": [0.1], "lam": [0.1]})


@pytest.mark.parametrize(
    ("more", "advice"),
    [
        ({"numbers": {"beta": 1e9}}, r"multiply beta by 9\.\d+e-10: beta = 0\.9\d+"),
        ({"numbers": {"lam": 1e9}, "penalty_weight": "lam"}, r"multiply lam by 9\.\d+e-10: lam = 0\.9\d+"),
    ],
)
def test_the_audit_names_the_weight_that_is_to_be_changed(more, advice):
    (found,) = (
        each for each in audit(case_of(unnamed, **more), during_training=False).findings if each.rule == "dominates"
    )
    assert re.search(advice, found.remedy), found.remedy


def test_the_audit_of_a_loss_that_weighs_itself_says_by_how_much():
    def heavy(net, batch):
        return terms(net, batch, 1e9)

    case = case_of(heavy, penalty_weight=None, numbers={})
    (found,) = (each for each in audit(case, during_training=False).findings if each.rule == "dominates")
    assert re.search(r"multiply this term by 9\.\d+e-10 in losses", found.remedy), found.remedy


def test_the_field_is_part_of_the_contract():
    assert harness.Case.__dataclass_fields__["penalty_weight"].default == "beta"
    assert replace(case_of(unnamed), penalty_weight=None).weighs_itself
