"""Dependence on labels and factors: three values, one family of tests."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from planted_codes import ROWS, generator, labels, normal
from torch import Tensor

import harness.measures
from harness import diagnose
from harness.measures.reference_tests import MEASURED


@dataclass
class StubDependence:
    """A stand-in for an estimator, with the answers that a test sets."""

    value: Any = 0.1
    p: Any = 0.001
    low: Any = 0.05
    high: Any = 0.2
    codes_entropy: Any = 2.0
    reference_entropy: float = 1.386
    flag: list[str] = field(default_factory=list)


def stub_of(activations: Tensor, **answers: Any) -> StubDependence:
    shape = activations.shape[:1] + activations.shape[-1:]
    stub = StubDependence(**answers)
    return replace(stub, **{name: np.broadcast_to(getattr(stub, name), shape) for name in MEASURED})


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_answers(**answers: Any) -> None:
        def dependences(activations: Tensor, references: dict[str, Tensor], **rest: Any) -> dict[str, StubDependence]:
            return {name: stub_of(activations, **answers) for name in references}

        monkeypatch.setattr(harness.measures, "dependences", dependences)

    return set_answers


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.05, 0.2, 0.001, "dependent"),
        (0.05, 0.2, 0.06, "inconclusive"),
        (0.005, 0.2, 0.001, "inconclusive"),
        (0.0, 0.009, 0.5, "negligible"),
        (0.0, 0.2, 0.5, "inconclusive"),
    ],
)
def test_dependence_has_three_values(stub: Any, low: float, high: float, p: float, expected: str) -> None:
    stub(low=low, high=high, p=p)
    diagnosis = diagnose(torch.relu(normal()), labels=labels(), factors={"height": normal(units=1)[:, 0]})
    assert diagnosis.units[0].flags == (f"label_{expected}", f"factor_{expected}=height")
    assert diagnosis.units[0].references["labels"].interval == (low, high)


def test_the_family_is_all_units_and_references_of_a_member(stub: Any) -> None:
    stub(p=np.array([[0.02, 0.5, 0.6, 0.7]]))
    units = diagnose(torch.relu(normal()), labels=labels(), factors={"a": labels(), "b": labels()}).units
    # 12 tests, .02 three times among them: .02 * 12 / 3
    assert units[0].references["labels"].p_adjusted == pytest.approx(0.08)
    assert "label_inconclusive" in units[0].flags


def test_constant_units_are_no_tests_and_exactly_zero(stub: Any) -> None:
    stub(p=0.04)
    code = torch.relu(normal())
    code[:, 1:] = 0
    units = diagnose(code, labels=labels()).units
    assert units[0].references["labels"].p_adjusted == 0.04
    assert units[1].mutual_information == 0
    assert units[1].flags == ("label_negligible",)


def test_too_few_firing_rows_give_no_verdict_on_dependence(stub: Any) -> None:
    stub(p=0.001)
    code = torch.relu(normal())
    code[:, 1] = 0
    code[:3, 1] = 1
    unit = diagnose(code, labels=labels()).units[1]
    assert (unit.verdict, unit.flags[0]) == ("rare_insufficient", "label_inconclusive")


def test_a_significant_reference_saves_a_unit_from_near_constant(stub: Any) -> None:
    code = 1 + 1e-4 * normal()
    stub(p=0.01)
    assert diagnose(code, labels=labels()).verdict == "healthy"
    stub(p=0.3)
    assert diagnose(code, labels=labels()).verdict == "near_collapse"
    stub(p=0.01)
    assert diagnose(code, labels=labels(), information=False).verdict == "near_collapse"


def test_the_labels_information_stands_for_the_unit_else_the_largest_factors(stub: Any, monkeypatch: Any) -> None:
    answers = iter([0.3, 0.1, 0.2])
    monkeypatch.setattr(
        harness.measures,
        "dependences",
        lambda code, references, **_: {name: stub_of(code, value=next(answers)) for name in references},
    )
    code = torch.relu(normal())
    assert diagnose(code, labels=labels()).units[0].mutual_information == 0.3
    factors = {"a": labels(), "b": labels()}
    assert diagnose(code, factors=factors).units[0].mutual_information == 0.2


def test_p_is_adjusted_over_the_units_and_references_of_one_member_as_statsmodels_does() -> None:
    from statsmodels.stats.multitest import multipletests

    codes = torch.stack([torch.relu(normal(seed=seed)) for seed in (0, 1)])
    codes[1, :, 2] = 0
    factors = {"kind": labels(), "height": normal()[:, 0]}
    for diagnosis in diagnose(codes, factors=factors, members=True):
        shared = [reference for unit in diagnosis.units if unit.live for reference in unit.references.values()]
        adjusted = multipletests([reference.p for reference in shared], method="fdr_bh")[1]
        assert [reference.p_adjusted for reference in shared] == pytest.approx(adjusted)


def test_a_label_that_drives_the_first_unit_shows_in_it_alone() -> None:
    classes = labels()
    code = torch.relu(normal() - 0.5)
    code[:, 0] = torch.relu(classes - 1.5 + 0.3 * torch.randn(ROWS, generator=generator(8)))
    units = diagnose(code, labels=classes, factors={"noise": normal(units=1, seed=77)[:, 0]}).units
    assert "label_dependent" in units[0].flags
    assert not any("label_dependent" in unit.flags for unit in units[1:])
    assert not any("factor_dependent=noise" in unit.flags for unit in units)
    assert units[0].mutual_information > 0.8
