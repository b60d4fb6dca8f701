"""The shipped data against numbers that come from elsewhere: scikit-learn's loaders, its PCA, closed forms."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_image
from sklearn.decomposition import PCA
from sklearn.metrics import r2_score
from waiting import LONGEST

from harness.data import DATASETS, load
from harness.data.photographs import patch_factors
from harness.data.synthetic import PLANTED, directions, planted_information
from harness.errors import HarnessError


def pca_r2(name: str, components: int) -> float:
    train, evaluation = (rows.inputs.numpy() for rows in load(name))
    pca = PCA(components).fit(train)
    return r2_score(evaluation, pca.inverse_transform(pca.transform(evaluation)), multioutput="variance_weighted")


@pytest.mark.parametrize(("components", "known"), [(1, 0.26), (2, 0.49), (4, 0.61)])
def test_patches_without_their_mean_leave_head_room_for_a_code_of_four(components, known):
    assert pca_r2("patches_contrast", components) == pytest.approx(known, abs=0.006)  # two digits are known


def test_one_component_of_patches_with_luminance_already_looks_excellent():
    assert pca_r2("patches", 1) == pytest.approx(0.91, abs=0.006)


def test_patches_are_cut_from_the_photographs_that_scikit_learn_loads():
    grey = load_sample_image("china.jpg").mean(axis=2) / 255
    second_row_third_patch = grey[10:20, 20:30].ravel()
    assert np.allclose(load("patches")[0].inputs[64 + 2], second_row_third_patch, atol=1e-6)
    flower = load_sample_image("flower.jpg").mean(axis=2) / 255
    assert np.allclose(load("patches")[1].inputs[0], flower[:10, :10].ravel(), atol=1e-6)


def test_blocks_are_tiles_of_neighbours_of_equal_size():
    blocks = load("patches_contrast")[0].blocks
    assert blocks.unique(return_counts=True)[1].tolist() == [48] * 56
    assert blocks.view(42, 64)[:6, :8].unique().tolist() == [0]


def test_stripes_have_the_orientation_that_they_were_drawn_with():
    down, right = np.mgrid[:10, :10]
    for degrees in (0, 30, 90, 150):
        angle = np.deg2rad(degrees)
        stripes = np.sin(0.5 * (right * np.cos(angle) + down * np.sin(angle))).reshape(1, 100)
        factors = patch_factors(stripes)
        assert factors["orientation_cos"][0] == pytest.approx(np.cos(2 * angle), abs=0.12)  # ten pixels, finite steps
        assert factors["orientation_sin"][0] == pytest.approx(np.sin(2 * angle), abs=0.12)


def test_factors_of_a_patch_are_its_mean_and_the_logarithm_of_its_deviation():
    grey = np.random.default_rng(0).uniform(size=(3, 100))
    factors = patch_factors(grey)
    assert np.allclose(factors["mean_luminance"], grey.mean(1))
    assert np.allclose(factors["log_contrast"], np.log(grey.std(1) + 1 / 255))


def test_digits_are_those_of_scikit_learn_between_0_and_1():
    expected, rows = load_digits(), load("digits")[0]
    assert np.array_equal(rows.inputs.numpy() * 16, expected.data.astype(np.float32))
    assert np.array_equal(rows.labels.numpy(), expected.target)


@pytest.mark.parametrize(("rows", "points"), [(5_000, 1_000), pytest.param(40_000, 8_000, marks=pytest.mark.evidence)])
@pytest.mark.parametrize("name", ["synthetic_20", "synthetic_100_clusters"])
def test_planted_information_agrees_with_a_monte_carlo_of_the_density_ratio(name, rows, points):
    generator = np.random.default_rng(0)
    for planted in PLANTED[name]:
        factor = planted.draw(generator, rows)
        unit = planted.scale * factor + generator.normal(size=rows)
        other = planted.scale * planted.draw(generator, points)
        conditional = np.exp(-((unit - planted.scale * factor) ** 2) / 2)
        marginal = np.exp(-((unit[:, None] - other[None]) ** 2) / 2).mean(1)
        estimate, error = np.log(conditional / marginal).mean(), np.log(conditional / marginal).std() / rows**0.5
        # four standard errors of the sample, and what so many points leave of the marginal density
        assert planted_information(name)[planted.name] == pytest.approx(estimate, abs=4 * error + 0.8 / points**0.5)


def test_the_information_of_a_normal_factor_is_the_closed_form():
    # r^2 = 16 / 17: minus half the logarithm of 1 - r^2
    assert planted_information("synthetic_20")["level"] == pytest.approx(-0.5 * np.log(1 - 16 / 17), abs=1e-4)


def test_information_about_a_far_apart_switch_is_nearly_all_of_its_entropy():
    assert planted_information("synthetic_100")["switch"] == pytest.approx(np.log(2), abs=0.005)


def test_a_planted_factor_can_be_read_off_its_direction_and_off_no_other():
    rows = load("synthetic_20")[0]
    projected = rows.inputs.numpy() @ directions(20, 4).T
    level = rows.factors["level"].numpy()
    correlations = [abs(np.corrcoef(projected[:, place], level)[0, 1]) for place in range(4)]
    assert correlations[0] == pytest.approx((16 / 17) ** 0.5, abs=0.01)
    assert max(correlations[1:]) < 0.08  # 2048 rows: 3.5 standard errors of no correlation


def test_every_data_set_has_finite_rows_and_one_reference_value_a_row():
    for name in DATASETS:
        for rows in filter(None, load(name)):
            assert rows.inputs.isfinite().all()
            assert all(len(values) == len(rows) for values in rows.factors.values())


def test_the_table_of_data_sets_is_read_without_torch_and_without_scikit_learn():
    code = "import sys, harness.data.datasets as d; d.DATASETS; sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=LONGEST).returncode == 0


def test_an_unknown_data_set_is_answered_with_the_nearest_one():
    with pytest.raises(HarnessError, match="no data set is called 'patchs'; did you mean 'patches'"):
        load("patchs")


def test_information_is_known_for_planted_factors_only():
    with pytest.raises(HarnessError, match="no synthetic data set is called 'digits'"):
        planted_information("digits")


def test_without_scikit_learn_the_photographs_are_asked_for_by_name(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HarnessError, match="scikit-learn is not installed"):
        load("digits")
