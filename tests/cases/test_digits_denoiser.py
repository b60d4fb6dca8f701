"""A denoising autoencoder that collapses on every seed: the answer names the remedies that make it usable."""

from pathlib import Path

import pytest

from harness.effects import analyse
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.grid import Experiment
from harness.report.answer import headline

CASE = Path(__file__).parents[1] / "shared" / "digits_denoiser.py"
REMEDIES = (
    {"batchnorm": "on"},
    {"activation": "leaky_relu"},
    {"bias_init": "zero"},
    {"penalty": "none"},
    {"beta": 0.003},
    {"inputs": "centred"},
    {"dropout": 0.2},
)


@pytest.mark.evidence
def test_the_headline_names_what_makes_a_model_usable_that_collapses_on_every_seed():
    baseline = {
        "batchnorm": "off",
        "activation": "relu",
        "bias_init": "default",
        "penalty": "as_posted",
        "beta": 0.03,
        "inputs": "as_given",
        "dropout": 0.0,
    }
    experiment = Experiment(
        name="denoiser",
        case=str(CASE),
        factors={name: (level,) for name, level in baseline.items()},
        baseline=baseline,
        include=REMEDIES,
        remedies=REMEDIES,
        seeds=tuple(range(8)),
    )
    records = []
    for variant in experiment.variants():
        members = tuple(StackMember(f"{variant.name}{s}", variant.name, dict(variant.levels), s) for s in range(8))
        records += run_stack(StackSpec(str(CASE), None, members, {"snapshot_every": 60}))
    effects = analyse(records, experiment)
    words = {next(iter(row.remedy)): row.word for row in effects.remedies}
    assert (effects.at_baseline.failed, effects.at_baseline.collapsed) == (8, 8)
    (cure,) = [row for row in effects.remedies if row.remedy == {"batchnorm": "on"}]
    assert (cure.failed_after, cure.word) == (0, "works")
    assert cure.r2_after > 0.35
    assert words["activation"] not in ("works", "helps")  # live units, and hardly better than the mean
    text = headline(effects)
    assert text.startswith("As posted, 8 of 8 seeds end with no unit that varies; ")
    cured = text.split("; ")[1]
    assert "BatchNorm" in cured
    assert "cure it (0 of 8)" in cured
    assert "leaky_relu" not in cured
