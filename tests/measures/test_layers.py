"""Intervals, rank, correlation and reconstruction against scipy, statsmodels and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from statsmodels.stats.proportion import proportion_confint

from harness.errors import HarnessError
from harness.measures import (
    clopper_pearson,
    cluster_count,
    clusters,
    constant_features,
    correct_participation,
    effective_rank,
    pairwise_correlation,
    participation_ratio,
    pca_r2,
    r2,
    r2_from_sse,
    r2_interval,
    rank_correlation,
    sum_squared_error,
    variance_ratio,
    wilson,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("interval", "method"), [(clopper_pearson, "beta"), (wilson, "wilson")])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_intervals_of_a_share_are_statsmodels(interval: object, method: str, level: float) -> None:
    count = np.array([0, 1, 3, 49, 50])
    found = interval(count, 50, level)
    expected = proportion_confint(count, 50, 1 - level, method)
    assert np.allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("interval", [clopper_pearson, wilson])
def test_counts_that_cannot_be_are_refused(interval: object) -> None:
    with pytest.raises(HarnessError, match="from 0 to rows"):
        interval(6, 5)
    with pytest.raises(HarnessError, match="at least one row"):
        interval(0, 0)
    with pytest.raises(HarnessError, match=r"expected a coverage in \(0, 1\), got 95"):
        interval(1, 5, 95)


def test_the_rank_of_nothing_is_zero() -> None:
    assert effective_rank(torch.zeros(50, 4)).item() == 0
    assert participation_ratio(torch.full((50, 4), 3.0)).item() == 0
    assert participation_ratio(torch.zeros(50, 4), corrected=True).item() == 0


def test_rounding_noise_on_constant_units_has_no_rank() -> None:
    assert effective_rank((5 + 1e-7 * normal(50, 4)).float()).item() == 0


def test_an_offset_is_no_dimension() -> None:
    one = normal(200, 1) @ torch.ones(1, 4, dtype=torch.float64) + torch.tensor([100.0, -50, 3, 7])
    assert effective_rank(one).item() == pytest.approx(1, abs=1e-4)
    assert participation_ratio(one).item() == pytest.approx(1)


def test_effective_rank_is_that_of_numpys_singular_values() -> None:
    values = normal(300, 6) @ normal(6, 6, seed=1)
    sigma = np.linalg.svd(values.numpy() - values.numpy().mean(0), compute_uv=False)
    assert effective_rank(values).item() == pytest.approx(np.exp(stats.entropy(sigma)))
    wide = values[:4]
    sigma = np.linalg.svd(wide.numpy() - wide.numpy().mean(0), compute_uv=False)
    assert effective_rank(wide).item() == pytest.approx(np.exp(stats.entropy(sigma)), rel=1e-6)


def test_the_corrected_participation_ratio_finds_the_dimension_that_few_rows_hide() -> None:
    ratios = [participation_ratio(normal(100, 50, seed=seed)).item() for seed in range(20)]
    corrected = [participation_ratio(normal(100, 50, seed=seed), corrected=True).item() for seed in range(20)]
    assert np.mean(ratios) < 35
    assert np.mean(corrected) == pytest.approx(50, rel=0.05)
    assert correct_participation(torch.tensor([20.0]), 10).item() == np.inf


def test_correlations_are_scipys() -> None:
    values = torch.relu(normal(200, 3) + normal(200, 1, seed=2))
    assert np.allclose(pairwise_correlation(values), np.corrcoef(values.numpy().T))
    assert np.allclose(rank_correlation(values), stats.spearmanr(values.numpy()).statistic)


def test_copies_form_one_group_through_each_other_and_constants_none() -> None:
    base, other = normal(500, 1), normal(500, 1, seed=3)
    values = torch.cat([base, other, -2 * base, base.exp(), torch.ones(500, 1)], dim=1)
    assert clusters(pairwise_correlation(values)).tolist() == [0, 1, 0, 3, -1]
    assert clusters(rank_correlation(values)).tolist() == [0, 1, 0, 0, -1]
    assert cluster_count(clusters(rank_correlation(values))).item() == 2


def test_groups_join_along_chains() -> None:
    chain = torch.eye(4)
    for left in range(3):
        chain[left, left + 1] = chain[left + 1, left] = 0.995
    assert clusters(torch.stack([chain, torch.eye(4)])).tolist() == [[0, 0, 0, 0], [0, 1, 2, 3]]


def test_r2_is_scikit_learns_pooled_one() -> None:
    data = normal(100, 7) * torch.arange(1, 8)
    found = data + normal(100, 7, seed=1)
    expected = r2_score(data.flatten(), found.flatten())  # about one mean for all features: another number
    pooled = 1 - ((found - data) ** 2).sum() / ((data - data.mean(0)) ** 2).sum()
    assert r2(found, data).item() == pytest.approx(pooled.item())
    assert r2(found, data).item() == pytest.approx(r2_score(data, found, multioutput="variance_weighted"), rel=1e-9)
    assert r2(found, data).item() != pytest.approx(expected, rel=1e-6)


def test_members_share_their_inputs() -> None:
    data = normal(100, 7)
    stack = torch.stack([data, data.mean(0).expand(100, 7), torch.zeros(100, 7, dtype=torch.float64) + 5])
    assert r2(stack, data)[0].item() == 1
    assert r2(stack, data)[1].item() == pytest.approx(0)
    assert r2(stack, data)[2].item() < -10
    assert variance_ratio(stack, data).tolist() == pytest.approx([1, 0, 0])


def test_what_parts_of_the_rows_miss_adds_up_to_the_same_r2() -> None:
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(50, 7, generator=generator)
    made = inputs + 0.3 * torch.randn(5, 50, 7, generator=generator)
    missed = sum_squared_error(made[:, :13], inputs[:13]) + sum_squared_error(made[:, 13:], inputs[13:])
    wanted = [r2_score(inputs.double(), each.double(), multioutput="variance_weighted") for each in made]
    np.testing.assert_allclose(r2_from_sse(missed, inputs), wanted, rtol=1e-12)


def test_many_large_reconstructions_miss_what_each_of_them_misses() -> None:
    made, inputs = normal(3, 1000, 900), normal(1000, 900, seed=1)  # more than is held in float64 at a time
    wanted = [np.square(each.numpy() - inputs.numpy()).sum() for each in made]
    np.testing.assert_allclose(sum_squared_error(made, inputs), wanted, rtol=1e-12)


def test_data_that_do_not_vary_have_no_r2() -> None:
    assert r2(normal(5, 2), torch.ones(5, 2)).isnan().item()


def test_a_relu_on_the_output_kills_features_that_are_negative() -> None:
    data = torch.cat([normal(100, 2).abs(), -normal(100, 2, seed=1).abs(), torch.ones(100, 1)], dim=1)
    assert constant_features(torch.relu(data), data).tolist() == [False, False, True, True, False]


def test_principal_components_are_scikit_learns() -> None:
    train, evaluation = normal(200, 6) @ normal(6, 6, seed=1), normal(150, 6, seed=2) @ normal(6, 6, seed=1) + 0.1
    expected = []
    for components in range(1, 7):
        pca = PCA(components).fit(train.numpy())
        expected.append(r2(torch.tensor(pca.inverse_transform(pca.transform(evaluation.numpy()))), evaluation).item())
    assert pca_r2(train, evaluation, 8).tolist() == pytest.approx([*expected, 1, 1])
    few = pca_r2(train[:4], evaluation, 2).tolist()
    pca = PCA(2).fit(train[:4].numpy())
    assert few[1] == pytest.approx(
        r2(torch.tensor(pca.inverse_transform(pca.transform(evaluation.numpy()))), evaluation).item()
    )
    with pytest.raises(HarnessError, match="components: expected at least 1, got 0"):
        pca_r2(train, evaluation, 0)


@pytest.mark.parametrize("scale", [1e300, 1e-300, 2.0**1000])
@pytest.mark.parametrize("rows", [40, 4])
def test_principal_components_do_not_depend_on_the_unit_of_the_data_however_large(scale, rows):
    generator = torch.Generator().manual_seed(3)
    train, evaluation = (torch.randn(rows, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    components = min(6, rows - 1)
    expected = pca_r2(train, evaluation, components)
    assert expected.isfinite().all()
    torch.testing.assert_close(pca_r2(train * scale, evaluation * scale, components), expected)


@pytest.mark.parametrize("scale", [1e-200, 1e-100, 1e100, 1e200])
def test_rank_and_r2_are_the_same_at_every_scale(scale: float) -> None:
    values, inputs = normal(300, 6) @ normal(6, 6, seed=1), normal(300, 6, seed=2)
    reconstruction = inputs + 0.5 * normal(300, 6, seed=3)
    assert effective_rank(values * scale).item() == pytest.approx(effective_rank(values).item(), rel=1e-9)
    for standardise in (True, False):
        expected = participation_ratio(values, standardise).item()
        assert participation_ratio(values * scale, standardise).item() == pytest.approx(expected, rel=1e-9)
    assert r2(reconstruction * scale, inputs * scale).item() == pytest.approx(r2(reconstruction, inputs).item())
    stack = torch.stack([reconstruction, inputs])
    np.testing.assert_allclose(r2(stack * scale, inputs * scale), r2(stack, inputs), rtol=1e-12)
    expected = variance_ratio(reconstruction, inputs).item()
    assert variance_ratio(reconstruction * scale, inputs * scale).item() == pytest.approx(expected)
    bounds = [bound.item() for bound in r2_interval(reconstruction * scale, inputs * scale)]
    assert bounds == pytest.approx([bound.item() for bound in r2_interval(reconstruction, inputs)])


def test_members_of_very_different_scale_keep_their_ranks() -> None:
    values = normal(200, 4)
    stack = torch.stack([values, 1e-200 * values, 1e200 * values])
    assert effective_rank(stack).tolist() == pytest.approx([effective_rank(values).item()] * 3)


def test_the_interval_of_r2_covers_and_never_exceeds_one() -> None:
    covered, above = [], []
    for seed in range(200):
        inputs = normal(150, 3, seed=seed)
        noise = 0.6 * normal(150, 3, seed=1000 + seed)
        low, high = r2_interval(inputs + noise, inputs)
        covered.append(low.item() <= 1 - 0.36 <= high.item())
        one_row = inputs.clone()
        one_row[0] += 0.1 * noise[0]  # one row holds all of the error: the delta method alone goes beyond 1
        above.append(r2_interval(one_row, inputs)[1].item())
    # 200 intervals of 95 %: 3 standard errors of the share are 0.046
    assert np.mean(covered) > 0.90
    assert max(above) <= 1
    bounds = r2_interval(inputs, inputs)
    assert [bound.item() for bound in bounds] == [1, 1]
    assert r2_interval(inputs, torch.ones(150, 3))[0].isnan().item()
