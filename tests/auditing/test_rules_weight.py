"""Advice on a penalty's weight: followed, it brings the two gradients to the same size, as a plain loop measures them."""

from dataclasses import replace
from statistics import median

import pytest
import torch
from torch import Tensor, nn

from harness import Case
from harness.auditing import audit, gradient_ratios

pytestmark = pytest.mark.many


class Autoencoder(nn.Module):
    def __init__(self, gate=torch.relu) -> None:
        super().__init__()
        self.inner, self.enc, self.dec, self.outer = (
            nn.Linear(*size) for size in ((20, 16), (16, 6), (6, 16), (16, 20))
        )
        self.gate = gate

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        before = self.enc(torch.relu(self.inner(rows)))
        code = self.gate(before)
        return before, code, self.outer(torch.relu(self.dec(code)))


def rows() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(800, 20, generator=draw) @ torch.randn(20, 20, generator=draw)


def squares(code: Tensor) -> Tensor:
    return code.pow(2).sum(1).mean()


def size(code: Tensor) -> Tensor:
    return code.abs().sum(1).mean()


def fourth(code: Tensor) -> Tensor:
    return code.pow(4).sum(1).mean()


def terms(model: nn.Module, batch: Tensor, **weighted) -> dict[str, Tensor]:
    _, code, made = model(batch)
    return {"reconstruction": (made - batch).pow(2).mean(), **{name: one(code) for name, one in weighted.items()}}


def own_keyword(model, batch, l1=0.03):
    return terms(model, batch, l1=lambda code: l1 * size(code))


def harness_beta(model, batch):
    return terms(model, batch, l1=size)


def named_beta(model, batch, beta):
    return terms(model, batch, l1=lambda code: beta * size(code))


def literal(weight):
    return lambda model, batch: terms(model, batch, l1=lambda code: weight * size(code))


def two_keywords(model, batch, l1, l2):
    return terms(model, batch, l1=lambda code: l1 * size(code), l2=lambda code: l2 * squares(code))


def one_for_both(model, batch, w):
    return terms(model, batch, l1=lambda code: w * size(code), l2=lambda code: w * squares(code))


def squared(model, batch, w):
    return terms(model, batch, l1=lambda code: w**2 * size(code))


def counted(model, batch, l1, units=3):
    return terms(model, batch, l1=lambda code: l1 * code.topk(units, dim=1).values.abs().sum(1).mean())


def whole(model, batch, scale, l1):
    return {name: scale * term for name, term in own_keyword(model, batch, l1).items()}


def steep(model, batch, w):
    return terms(model, batch, l4=lambda code: w * fourth(code))


def case_of(losses, **numbers) -> Case:
    return Case(model=Autoencoder, data=rows, losses=losses, bottleneck="enc", numbers=numbers)


def weight_findings(case: Case) -> list:
    return [each for each in audit(case, seeds=1).findings if each.rule in ("dominates", "negligible")]


def ratios_of_a_plain_loop(case: Case, term: str, weight: float = 1.0, last: int = 300) -> list[float]:
    """Gradient norms at `enc`, `term` to reconstruction, at birth, after 50 and 300 steps of Adam: medians of 3 batches."""
    torch.manual_seed(0)
    model, draw, everything, found = Autoencoder(), torch.Generator().manual_seed(100), rows(), []
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    numbers = {} if case.losses is harness_beta else case.numbers
    for step in range(last + 1):
        batches = [everything[torch.randint(800, (64,), generator=draw)] for _ in range(3)]
        if step in (0, 50, 300):
            found.append(median(weight * norm_ratio(case, model, batch, numbers, term) for batch in batches))
        losses = case.losses(model, batches[0], **numbers)
        penalties = [value for name, value in losses.items() if name != "reconstruction"]
        optimizer.zero_grad()
        (losses["reconstruction"] + weight * sum(penalties)).backward()
        optimizer.step()
    return found


def norm_ratio(case: Case, model: nn.Module, batch: Tensor, numbers: dict[str, float], term: str) -> float:
    kept: list[Tensor] = []
    handle = model.enc.register_forward_hook(lambda _, __, output: kept.append(output))
    losses = case.losses(model, batch, **numbers)
    handle.remove()
    own, other = (
        torch.autograd.grad(losses[name], kept, retain_graph=True)[0].norm() for name in (term, "reconstruction")
    )
    return float(own / other)


# name -> (case, term, the keyword to change)
ADVISED = {
    "a keyword of the loss": (case_of(own_keyword, l1=30.0), "l1", "l1"),
    "a keyword of the loss, at its default": (
        case_of(lambda model, batch, l1=30.0: own_keyword(model, batch, l1)),
        "l1",
        "l1",
    ),
    "beta of the harness": (case_of(harness_beta, beta=30.0), "l1", "beta"),
    "beta of the loss": (case_of(named_beta, beta=30.0), "l1", "beta"),
    "too small a keyword": (case_of(own_keyword, l1=3e-5), "l1", "l1"),
    "too small a beta": (case_of(harness_beta, beta=3e-5), "l1", "beta"),
    "two keywords, the first": (case_of(two_keywords, l1=30.0, l2=0.09), "l1", "l1"),
    "two keywords, the second": (case_of(two_keywords, l1=0.2, l2=9.0), "l2", "l2"),
    "two keywords, one of them too small": (case_of(two_keywords, l1=0.2, l2=1e-7), "l2", "l2"),
    "a count beside the weight": (case_of(counted, l1=30.0, units=3), "l1", "l1"),
    "a scale of all terms beside the weight": (case_of(whole, scale=2.0, l1=30.0), "l1", "l1"),
    "a keyword beside a literal": (
        case_of(lambda model, batch, l1: own_keyword(model, batch, 0.5 * l1), l1=60.0),
        "l1",
        "l1",
    ),
}


@pytest.mark.parametrize("name", ADVISED)
def test_the_advice_followed_brings_the_gradients_to_one_size(name):
    case, term, expected_keyword = ADVISED[name]
    (finding,) = [each for each in weight_findings(case) if each.term == term]
    ((keyword, value),) = finding.change.items()
    assert keyword == expected_keyword
    assert value == finding.numbers["then"] == pytest.approx(finding.numbers["factor"] * finding.numbers["now"])
    assert finding.remedy.startswith(f"multiply {keyword} by {finding.numbers['factor']:.3g}: {keyword} = {value:g}; ")
    followed = replace(case, numbers={**case.numbers, keyword: value})
    assert [each for each in weight_findings(followed) if each.term == term] == []
    beta = followed.numbers["beta"] if case.losses is harness_beta else 1.0
    ratios = ratios_of_a_plain_loop(followed, term, beta, last=0 if finding.rule == "dominates" else 300)
    assert 0.5 < max(ratios) < 2, ratios


@pytest.mark.parametrize("weight", [30.0, 3e-5])
def test_a_weight_that_is_no_keyword_is_advised_as_a_factor(weight):
    (finding,) = weight_findings(case_of(literal(weight)))
    factor = finding.numbers["factor"]
    assert finding.remedy.startswith(f"multiply this term by {factor:.3g} in losses; the ratio is then ")
    assert dict(finding.change) == {}
    assert "then" not in finding.numbers
    followed = case_of(literal(weight * factor))
    assert weight_findings(followed) == []
    assert 0.5 < max(ratios_of_a_plain_loop(followed, "l1", last=0 if weight > 1 else 300)) < 2


def test_a_keyword_that_does_not_scale_the_term_is_not_the_one_to_change():
    (finding,) = weight_findings(case_of(squared, w=9.0))
    assert finding.remedy.startswith("multiply this term by ")
    assert dict(finding.change) == {}


@pytest.mark.long
def test_penalties_that_share_a_keyword_are_said_to():
    for case, name in (
        (case_of(one_for_both, w=50.0), "w"),
        (case_of(lambda m, b: one_for_both(m, b, 1), beta=50.0), "beta"),
    ):
        by_term = {each.term: each for each in weight_findings(case)}
        assert by_term["l1"].remedy.endswith(f"; {name} weighs l2 too")
        assert by_term["l2"].remedy.endswith(f"; {name} weighs l1 too")
    (alone,) = weight_findings(case_of(own_keyword, l1=30.0))
    assert "too" not in alone.remedy


def test_a_keyword_of_its_own_comes_before_one_that_weighs_all():
    case = case_of(two_keywords, l1=30.0, l2=0.09, beta=1.0)
    (finding,) = [each for each in weight_findings(case) if each.term == "l1"]
    assert set(finding.change) == {"l1"}


@pytest.mark.parametrize("losses", [own_keyword, steep])
def test_a_ratio_that_training_bends_is_tried_with_the_new_weight(losses):
    # L1 above 3 at every probe and below 10 at birth; a fourth power whose ratio grows 400 times as it trains
    case = case_of(own_keyword, l1=1.8) if losses is own_keyword else case_of(steep, w=1e-9)
    (finding,) = weight_findings(case)
    assert 0.5 < finding.numbers["ratio_then"] < 2
    followed = replace(case, numbers={**case.numbers, **finding.change})
    assert weight_findings(followed) == []
    ratios = ratios_of_a_plain_loop(followed, finding.term)
    assert 0.5 < (min(ratios) if losses is own_keyword else max(ratios)) < 2, ratios


def test_trials_of_a_new_weight_stay_within_the_work_of_the_audit(monkeypatch):
    case = case_of(own_keyword, l1=1.8)
    (finding,) = weight_findings(case)
    assert "ratio_then" in finding.numbers
    model = Autoencoder()
    # forward, and twice as much backward but for the gradient of the rows themselves
    a_step = 64 * 2 * (3 * sum(each.weight.numel() for each in model.children()) - 320)
    a_step += gradient_ratios.PASSES * sum(each.numel() for each in model.parameters())
    monkeypatch.setattr(gradient_ratios, "MOST_WORK", 1.5 * 300 * a_step)
    (untried,) = weight_findings(case)
    assert "ratio_then" not in untried.numbers
    assert dict(untried.change) == {
        "l1": pytest.approx(1.8 / min(untried.numbers[f"ratio_at_{k}"] for k in (0, 50, 300)), rel=5e-3)
    }


def test_a_weight_in_balance_gets_no_advice():
    assert weight_findings(case_of(own_keyword, l1=0.2)) == []


def test_what_a_loss_counts_for_its_warm_up_is_not_counted_on_by_looking():
    looks = []

    def losses(model, batch, l1):
        model.steps = getattr(model, "steps", 0) + 1
        looks.append(model.steps)
        return own_keyword(model, batch, l1)

    gradient_ratios.gradient_ratios(case_of(losses, l1=1.0), [Autoencoder()], rows(), ["l1"], True)
    assert max(looks) == 301  # 300 steps, and three looks at the state after each probe
    assert looks.count(301) == 3


def test_the_number_is_looked_for_where_the_term_has_a_gradient():
    class DeadAtFirst(Autoencoder):
        """With the first seed no unit fires, and no term has a gradient at the bottleneck."""

        def __init__(self) -> None:
            super().__init__()
            if torch.initial_seed() == 0:
                nn.init.constant_(self.enc.bias, -1e3)

    def losses(model, batch, power, l1):
        return terms(model, batch, l1=lambda code: l1 * code.pow(power).sum(1).mean())

    case = replace(case_of(losses, power=1.0, l1=30.0), model=DeadAtFirst)
    found = [each for each in audit(case, during_training=False).findings if each.rule == "dominates"]
    assert [set(each.change) for each in found] == [{"l1"}]


def weight_decay(model, batch):
    return {**terms(model, batch), "decay": model.outer.weight.pow(2).sum()}


def branched(model, batch, l1):
    return terms(model, batch, l1=lambda code: l1 * size(code) if l1 else torch.zeros(()))


def undecided_weight(case: Case) -> str:
    (reason,) = [each.evidence for each in audit(case, seeds=1).undecided if each.rule == "negligible"]
    return reason


def test_a_weight_of_zero_is_named_where_a_term_has_no_ratio():
    assert undecided_weight(case_of(harness_beta, beta=0.0)).startswith("beta = 0 multiplies the term")
    # the twin has a weight, and reads parameters of another layer
    assert "it is on parameters" in undecided_weight(case_of(weight_decay, beta=1e-3))


@pytest.mark.parametrize(
    ("losses", "rule"), [(own_keyword, "zero_gradient"), (branched, "no_gradient"), (whole, "zero_gradient")]
)
def test_a_term_whose_own_weight_is_zero_is_switched_off(losses, rule):
    numbers = {"l1": 0.0, **({"scale": 1.0} if losses is whole else {})}
    model, batch = Autoencoder(), rows()[:64]
    for weight, trains in ((0.0, False), (1.0, True)):
        term = losses(model, batch, **{**numbers, "l1": weight})["l1"]
        gradient = torch.autograd.grad(term, model.enc.weight)[0] if term.requires_grad else torch.zeros(1)
        assert bool((gradient != 0).any()) == trains
    result = audit(case_of(losses, **numbers), seeds=1)
    (finding,) = [each for each in result.findings if each.rule in ("zero_gradient", "no_gradient")]
    assert (finding.rule, finding.severity, finding.term) == (rule, "note", "l1")
    assert "l1 is 0" in finding.evidence
    assert not result.faults


def test_a_number_that_is_zero_beside_a_term_without_a_gradient_is_not_blamed():
    def losses(model, batch, offset=0.0):
        return terms(model, batch, l0=lambda code: (code > offset).double().sum(1).mean())

    result = audit(case_of(losses), seeds=1, during_training=False)
    (finding,) = [each for each in result.findings if each.rule == "no_gradient"]
    assert finding.severity == "fault"
    assert "is 0" not in finding.evidence


def test_a_main_term_whose_weight_is_zero_stays_a_fault():
    def losses(model, batch, scale):
        return {name: scale * term for name, term in terms(model, batch).items()}

    result = audit(case_of(losses, scale=0.0), seeds=1, during_training=False)
    (finding,) = [each for each in result.findings if each.rule == "zero_gradient"]
    assert (finding.severity, finding.term) == ("fault", "reconstruction")
    assert "scale is 0" in finding.evidence


class CutOff(nn.Module):
    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 4))
        self.decoder, self.cut = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 24)), cut

    def forward(self, batch):
        code = self.encoder(batch)
        return self.decoder(code.detach() if self.cut else code), code


def cut_off(cut: bool, weight: float) -> set[str]:
    def data() -> Tensor:
        draw = torch.Generator().manual_seed(9)
        return torch.randn(1000, 4, generator=draw) @ torch.randn(4, 24, generator=draw)

    def losses(model, batch):
        out, code = model(batch)
        return {"reconstruction": (out - batch).pow(2).mean(), "l2": weight * code.pow(2).mean()}

    train = {"epochs": 20, "learning_rate": 3e-3}
    case = Case(lambda: CutOff(cut), data, losses, "encoder.2", reconstruction="out:0", train=train)
    return set(audit(case, seeds=2).rules)


def test_a_penalty_does_not_dominate_a_main_term_that_is_cut_off():
    rules = cut_off(cut=True, weight=1e-3)
    assert "cut_encoder" in rules
    assert "dominates" not in rules
    assert "dominates" in cut_off(cut=False, weight=300.0)
    assert cut_off(cut=False, weight=1e-3) & {"cut_encoder", "dominates"} == set()
