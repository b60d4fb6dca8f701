"""Verdicts and flags of a layer: each fires on its planted fault and is silent on a healthy code."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from synthetic_codes import ROWS, beside_zeros, generator, normal
from torch import Tensor

from harness import diagnose


def healthy(rows: int = ROWS, units: int = 4, seed: int = 0) -> Tensor:
    return torch.relu(normal(rows, units, seed))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "sigmoid", "tanh"])
def test_a_healthy_code_of_every_activation_has_no_flag(activation: str) -> None:
    from harness.capture import ACTIVATIONS

    diagnosis = diagnose(ACTIVATIONS[activation](normal()), activation=activation)
    assert (diagnosis.verdict, diagnosis.flags) == ("healthy", ())
    assert {(unit.verdict, unit.flags) for unit in diagnosis.units} == {("alive", ())}
    assert [item for item in diagnosis.findings if item.severity != "note"] == []


def test_near_collapse_needs_every_live_unit_near_constant() -> None:
    still = 1 + 1e-4 * torch.tanh(normal())
    assert diagnose(still).verdict == "near_collapse"
    assert diagnose(torch.cat([still, healthy(units=1)], 1)).verdict == "healthy"
    assert diagnose(torch.cat([still, torch.zeros(ROWS, 1)], 1)).verdict == "near_collapse"
    assert diagnose(still).collapsed


def test_partial_collapse_prints_its_share() -> None:
    diagnosis = diagnose(torch.cat([healthy(units=3), torch.zeros(ROWS, 1)], 1))
    assert diagnosis.verdict == "partial_collapse"
    assert diagnosis.measures["live_share"] == 0.75
    assert "3 of 4 units live (75%)" in str(diagnosis)
    assert not diagnosis.collapsed


def test_one_unit_alone_is_healthy_and_not_the_single_live_one_of_several() -> None:
    assert diagnose(healthy(units=1)).verdict == "healthy"
    assert diagnose(torch.zeros(ROWS, 1)).flags == ()


def test_redundant_is_at_most_half_as_many_groups_as_live_units() -> None:
    three, four = healthy(units=3), healthy(units=4)
    half = diagnose(torch.cat([three, 2 * three], 1))
    assert (half.verdict, half.measures["groups"]) == ("redundant", 3)
    some = diagnose(torch.cat([four, -3 * four[:, :1]], 1), activation="none")
    assert (some.verdict, some.flags) == ("healthy", ("duplicates",))
    assert some.units[4].flags == ("duplicate_of=0",)


def test_a_correlation_below_the_threshold_is_no_copy() -> None:
    first, rest = normal(units=2).T
    for aimed, flags in ((0.985, ()), (0.995, ("duplicate_of=0",))):
        rest = rest - (rest @ first) / (first @ first) * first
        mixed = aimed * first / first.norm() + (1 - aimed**2) ** 0.5 * rest / rest.norm()
        code = torch.stack([first - first.mean(), mixed - mixed.mean()], 1)
        assert diagnose(code, activation="none").units[1].flags == flags


def test_a_monotone_copy_is_a_copy_by_rank() -> None:
    first = normal(units=2)
    diagnosis = diagnose(torch.cat([first, torch.exp(first[:, :1])], 1), activation="none")
    assert "duplicate_of=0" in diagnosis.units[2].flags
    assert diagnosis.verdict == "healthy"
    assert {"duplicates", "nonlinear_redundancy"} <= set(diagnosis.flags)


def test_units_that_fire_on_fewer_than_five_rows_are_not_compared() -> None:
    for count, flagged in ((4, False), (5, True)):
        unit = torch.zeros(ROWS)
        unit[:count] = 1 + torch.arange(count).float()
        diagnosis = diagnose(torch.stack([unit, unit, healthy()[:, 0], healthy()[:, 1]], 1))
        assert ("duplicate_of=0" in diagnosis.units[1].flags) is flagged


def test_units_that_never_fire_are_no_copies_and_their_layer_has_one_dimension() -> None:
    below = 0.2 + 0.1 * torch.tanh(normal())
    diagnosis = diagnose(below[:, :1].expand(ROWS, 4), activation="sigmoid")
    assert {unit.verdict for unit in diagnosis.units} == {"subthreshold"}
    assert not any("duplicate" in flag for unit in diagnosis.units for flag in unit.flags)
    assert (diagnosis.verdict, diagnosis.measures["rank"]) == ("dimensional_collapse", 1)
    assert diagnose(below, activation="sigmoid").verdict == "healthy"


def test_copies_by_rank_alone_are_redundant() -> None:
    """exp of a normal unit has a correlation of 1 / sqrt(e - 1) = 0.76 with it, and a rank correlation of 1."""
    pair = normal(units=2)
    diagnosis = diagnose(torch.cat([pair, pair.exp()], 1), activation="none")
    assert np.corrcoef(pair[:, 0], pair[:, 0].exp())[0, 1] == pytest.approx((np.e - 1) ** -0.5, abs=0.05)
    assert (diagnosis.verdict, diagnosis.measures["groups"]) == ("redundant", 2)
    independent = torch.cat([pair, normal(units=2, seed=3).exp()], 1)
    assert diagnose(independent, activation="none").verdict == "healthy"


def test_tails_below_the_resolution_decide_no_copy() -> None:
    """Units that differ where they are large and are in one order where they are 1e-30."""
    tail = 1e-30 * torch.rand(ROWS, generator=generator()).double()
    large = torch.zeros(ROWS, 2).double()
    large[:20, 0], large[20:40, 1] = 1 + torch.arange(20).double(), 1 + torch.arange(20).double()
    code = tail[:, None] + large
    assert stats.spearmanr(code[40:, 0], code[40:, 1]).statistic == 1
    flags = [flag for unit in diagnose(code, activation="relu").units for flag in unit.flags]
    assert not any("duplicate" in flag for flag in flags)


def heavy_tailed(tail: str, rows: int, units: int, seed: int) -> Tensor:
    """Independent units that fire rarely, a few rows with most of what they sum up to."""
    draw = torch.Generator().manual_seed(seed)
    normal = torch.randn(rows, units, generator=draw)
    if tail == "cubed":
        return torch.relu(normal - 1.8) ** 3
    return torch.exp(1.5 * normal) * (torch.rand(rows, units, generator=draw) < 0.02)


@pytest.mark.parametrize(
    ("tail", "rows", "units"), [("cubed", 300, 1000), ("cubed", 300, 1100), ("lognormal", 500, 1000)]
)
def test_one_row_on_which_two_independent_units_are_large_makes_no_copies(tail: str, rows: int, units: int) -> None:
    for seed in range(2):
        diagnosis = diagnose(heavy_tailed(tail, rows, units, seed), activation="relu")
        assert "duplicates" not in diagnosis.flags


@pytest.mark.parametrize(("rows", "units"), [(50, 16), (200, 1100)])
def test_units_at_their_ceiling_but_for_the_same_one_row_are_no_copies(rows: int, units: int) -> None:
    """A clipped unit that leaves its ceiling on one row only is in the order of every unit that does so on that row."""
    values = torch.full((rows, units), 6.0)
    draw = generator()
    values[torch.randint(0, rows, (units,), generator=draw), torch.arange(units)] = 6 * torch.rand(
        units, generator=draw
    )
    assert not any("duplicate" in flag for unit in diagnose(values).units for flag in unit.flags)


@pytest.mark.parametrize("units", [40, 1100])
@pytest.mark.parametrize("copy", [lambda x: 3 * x, lambda x: -x, lambda x: x * (1 + 0.05 * torch.rand_like(x))])
def test_heavy_tailed_copies_are_copies(copy: Callable[[Tensor], Tensor], units: int) -> None:
    torch.manual_seed(0)
    values = heavy_tailed("cubed", 1000, units, 0)
    values[:, 20:30] = copy(values[:, :10])
    flags = [unit.flags for unit in diagnose(values, activation="none").units]
    diagnosis = {unit: item[0] for unit, item in enumerate(flags) if "duplicate" in " ".join(item)}
    assert diagnosis == {20 + unit: f"duplicate_of={unit}" for unit in range(10)}


def test_a_handful_of_rows_makes_no_copies_by_chance() -> None:
    code = torch.randn(200, 5, 32, generator=generator())
    flags = [unit.flags for item in diagnose(code, activation="none", members=True) for unit in item.units]
    assert sum(any(flag.startswith("duplicate") for flag in item) for item in flags) <= 5


def test_few_dimensions_are_a_dimensional_collapse() -> None:
    hidden = normal(units=3)
    mixing = torch.randn(3, 16, generator=generator(3))
    narrow = hidden @ mixing + 0.1 * normal(units=16, seed=4)
    assert diagnose(narrow, activation="none").verdict == "dimensional_collapse"
    assert diagnose(narrow, activation="none", inputs=hidden).verdict == "healthy"
    assert diagnose(normal(units=16), activation="none").verdict == "healthy"


def test_rank_is_not_judged_on_fewer_than_four_rows_a_unit() -> None:
    narrow = normal(64, 3) @ torch.randn(3, 16, generator=generator(3)) + 0.1 * normal(64, 16, 4)
    assert diagnose(narrow, activation="none").verdict == "dimensional_collapse"
    diagnosis = diagnose(narrow[:63], activation="none")
    assert diagnosis.verdict == "healthy"
    assert "rank_not_testable" in diagnosis.flags


def test_the_corrected_ratio_of_independent_units_does_not_depend_on_the_rows() -> None:
    ratios = [
        np.mean(
            [item.measures["participation_ratio_corrected"] for item in diagnose(code, activation="none", members=True)]
        )
        for code in (torch.randn(40, rows, 16, generator=generator()) for rows in (64, 2048))
    ]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.1)


def test_units_that_share_information_without_correlation_are_flagged() -> None:
    code = normal(units=3)
    diagnosis = diagnose(torch.stack([code[:, 0], code[:, 0] ** 2, code[:, 1]], 1), activation="none")
    assert diagnosis.flags == ("nonlinear_redundancy",)
    assert diagnosis.measures["nonlinear_pairs"] == 1
    mixed = 0.8 * code[:, 0] + 0.6 * code[:, 1]
    assert diagnose(torch.stack([code[:, 0], mixed], 1), activation="none").flags == ()


@pytest.mark.parametrize("activation", ["tanh", "none"])
def test_without_an_off_state_nothing_dominates_and_nothing_is_always_on(activation: str) -> None:
    diagnosis = diagnose(torch.tensor([[0.9, 0.0, 0.0, 0.0]]).expand(ROWS, 4), activation=activation)
    assert (diagnosis.verdict, diagnosis.flags) == ("full_collapse", ())
    assert all(unit.flags == () for unit in diagnosis.units)


def test_dominance_ends_with_a_second_unit_that_fires_or_varies() -> None:
    on = 1 + normal()[:, 0].abs()
    assert "single_unit_dominance" in diagnose(beside_zeros(on)).flags
    for other in (torch.full((ROWS,), 0.5), torch.relu(normal(seed=3)[:, 0])):
        code = beside_zeros(on)
        code[:, 1] = other
        assert "single_unit_dominance" not in diagnose(code).flags
    once_off = on.clone()
    once_off[0] = 0
    assert "single_unit_dominance" not in diagnose(beside_zeros(once_off)).flags
    quiet = beside_zeros(on)
    quiet[:, 1] = -0.01 * normal(seed=2)[:, 0].abs()
    assert "single_unit_dominance" not in diagnose(quiet, activation="leaky_relu").flags


@pytest.mark.parametrize(("rows", "flagged"), [(367, False), (368, True)])
def test_always_on_needs_rows_that_rule_out_an_off_state(rows: int, flagged: bool) -> None:
    assert ("always_on" in diagnose(1 + healthy(rows)).units[0].flags) is flagged


def test_heavy_tails_are_flagged_by_kurtosis_and_by_one_row() -> None:
    code = normal(units=2)
    code[3, 0] = 500.0
    assert diagnose(code, activation="none").units[0].flags == ("heavy_tailed",)
    spiky = torch.zeros(ROWS)
    spiky[:10] = 1.0
    assert diagnose(torch.stack([spiky, code[:, 1]], 1)).units[0].flags == ("heavy_tailed",)
    assert diagnose(torch.zeros(ROWS, 2)).units[0].flags == ()


def test_a_unit_that_the_decoder_ignores_is_unused() -> None:
    diagnosis = diagnose(healthy(units=2), ablation=[5e-4, 0.2])
    assert [unit.flags for unit in diagnosis.units] == [("unused",), ()]
    assert diagnosis.units[1].ablation == 0.2


def test_a_unit_whose_removal_changes_the_output_is_used_even_if_r2_rises() -> None:
    diagnosis = diagnose(healthy(units=3), ablation=[-5e-3, -4e-4, 0.2])
    assert [unit.flags for unit in diagnosis.units] == [(), ("unused",), ()]
    (finding,) = (finding for finding in diagnosis.findings if finding.rule == "unused")
    assert finding.evidence == "1 of 3 units; replacing one by its mean changes R2 by at most 4.0e-04"


def test_dropout_noise_makes_a_unit_stochastic_and_not_constant() -> None:
    signal = normal()
    diagnosis = diagnose(signal + normal(seed=1), activation="none", repeat=signal + normal(seed=2))
    assert diagnosis.verdict == "healthy"
    assert all(unit.flags == ("stochastic",) for unit in diagnosis.units)
    low, high = diagnosis.units[0].reliability_interval
    assert low < 0.5 < high
    first, second = (signal + normal(seed=1))[:, 0], (signal + normal(seed=2))[:, 0]
    assert diagnosis.units[0].reliability == pytest.approx(np.corrcoef(first, second)[0, 1], abs=0.02)


def test_one_reliable_unit_is_not_pooled_with_the_noise_beside_it() -> None:
    first, second, signal = normal(seed=1), normal(seed=2), normal(seed=3)[:, 0]
    first[:, 0], second[:, 0] = signal + first[:, 0], signal + second[:, 0]
    diagnosis = diagnose(first, activation="none", repeat=second)
    assert [unit.live for unit in diagnosis.units] == [True, False, False, False]
    assert diagnosis.verdict == "single_live_unit"


def test_noise_on_few_rows_is_not_called_constant() -> None:
    diagnosis = diagnose(normal(50), activation="none", repeat=normal(50, seed=1))
    assert diagnosis.verdict == "healthy"
    assert all(unit.flags == ("stochastic",) for unit in diagnosis.units)


def test_the_same_pass_twice_is_no_news() -> None:
    code = healthy()
    assert all(unit.flags == () for unit in diagnose(code, repeat=code).units)


def test_a_layer_that_never_fired_on_few_rows_is_a_full_collapse_that_says_what_the_rows_cannot_tell() -> None:
    diagnosis = diagnose(torch.zeros(50, 4))
    assert diagnosis.verdict == "full_collapse"
    (finding,) = [item for item in diagnosis.findings if item.rule == "never_fired"]
    assert "cannot tell dead from rare" in finding.meaning


def test_one_row_on_which_a_unit_fires_makes_it_live() -> None:
    code = torch.zeros(50, 4)
    code[3, 0] = code[7, 1] = 1.0
    diagnosis = diagnose(code)
    assert diagnosis.verdict == "partial_collapse"
    assert [unit.verdict for unit in diagnosis.units] == ["rare_insufficient"] * 2 + ["never_fired"] * 2


def test_a_code_that_changes_nothing_as_a_whole_is_unused_and_not_healthy() -> None:
    code, each = healthy(), [0.0, 2e-4, 0.0, 1e-4]
    unused = diagnose(code, ablation=each, code_ablation=3e-4)
    assert (unused.verdict, unused.measures["code_ablation"]) == ("unused", 3e-4)
    (finding,) = [finding for finding in unused.findings if finding.rule == "unused"]
    assert "replacing all units at once by 3.0e-04" in finding.evidence
    # units that stand in for one another are each unused while the code is not
    assert diagnose(code, ablation=each, code_ablation=0.5).verdict == "healthy"
    assert diagnose(code, ablation=each).verdict == "healthy"
    assert diagnose(torch.cat([code[:, :3], torch.zeros(ROWS, 1)], 1), code_ablation=0.0).verdict == "partial_collapse"


def test_each_member_has_its_own_ablation_of_the_code() -> None:
    codes = torch.stack([healthy(), healthy(seed=1)])
    verdicts = [item.verdict for item in diagnose(codes, members=True, code_ablation=[0.3, 0.0])]
    assert verdicts == ["healthy", "unused"]


@pytest.mark.parametrize(
    ("activation", "value", "fits"),
    [
        ("relu", 0.0, "leaky_relu"),
        ("sigmoid", 1e-9, "smaller weights"),
        ("tanh", 1.0, "smaller weights"),
        ("gelu", -1e-3, "zero the bias"),
        ("none", 2.0, "weights that vanished"),
    ],
)
def test_the_remedy_of_a_collapse_fits_the_activation(activation: str, value: float, fits: str) -> None:
    diagnosis = diagnose(torch.full((400, 3), value), activation=activation)
    remedies = {finding.rule: finding.remedy for finding in diagnosis.findings}
    assert fits in remedies["full_collapse"]
    assert ("leaky_relu" in " ".join(remedies.values())) == (activation == "relu")
