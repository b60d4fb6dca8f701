"""Verdicts on units as functions of measured numbers: the same rules judge a fresh layer and a stored one.

All arrays are `[member, unit]` or `[member]`; nothing is measured here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.diagnosis.verdicts import OutputVerdict, UnitVerdict
from harness.measures.units import RELU_FAMILY

Places = NDArray[np.int64]
UNIT_VERDICTS = np.array(list(UnitVerdict), dtype=object)


@dataclass(frozen=True)
class Evidence:
    """Measured numbers that the rules for units use.

    Args:
        activation: name of the activation; tanh and none have no off state.
        rows: number of rows with different inputs; repeated inputs count once.
        target: the penalty's rho, or None.
        testable: `[member]`, False with fewer than 2 rows or 2 distinct input rows.
        finite: `[member, unit]`, False where a value is NaN or infinite.
        range_ratio: (max - min) / tolerance of the range test; at most 1 is constant.
        before_ratio: the same before normalization; infinite where that was not given.
        outside_ratio: the same over the rows where the unit does not fire.
        fired: distinct rows on which the unit fires.
        mean: mean activation.
        variation: standard deviation / RMS.
        p_adjusted: the smallest adjusted p over the reference variables; 1 without any.
        saturated: share of values within `saturation` of 0 or 1.
        low_end, high_end: True where any value is saturated there.
        reliability_high: upper bound of test-retest reliability; infinite without a second pass.
        informed: distinct rows whose posterior differs from the prior; -1 without a posterior.
    """

    activation: str
    rows: int
    target: float | None
    testable: NDArray[np.bool_]
    finite: NDArray[np.bool_]
    range_ratio: NDArray[np.float64]
    before_ratio: NDArray[np.float64]
    outside_ratio: NDArray[np.float64]
    fired: NDArray[np.int64]
    mean: NDArray[np.float64]
    variation: NDArray[np.float64]
    p_adjusted: NDArray[np.float64]
    saturated: NDArray[np.float64]
    low_end: NDArray[np.bool_]
    high_end: NDArray[np.bool_]
    reliability_high: NDArray[np.float64]
    informed: NDArray[np.int64]

    @property
    def can_be_off(self) -> bool:
        """True for an activation with an off state."""
        return self.activation in RELU_FAMILY or self.activation == "sigmoid"


def constant_units(evidence: Evidence, thresholds: Thresholds = THRESHOLDS) -> NDArray[np.bool_]:
    """`[member, unit]`: constant by the range test, before or after normalization, or noise of a stochastic unit."""
    loosened = thresholds.range_epsilons / THRESHOLDS.range_epsilons
    constant = (evidence.range_ratio <= loosened) | (evidence.before_ratio <= loosened)
    return constant | (evidence.reliability_high < thresholds.reliability)


def unit_verdicts(evidence: Evidence, thresholds: Thresholds = THRESHOLDS) -> NDArray[np.object_]:
    """`[member, unit]` of `UnitVerdict`, by the order of precedence."""
    return UNIT_VERDICTS[unit_places(evidence, thresholds)]


def unit_places(evidence: Evidence, thresholds: Thresholds = THRESHOLDS) -> Places:
    """`[member, unit]`: positions of the verdicts in the order of precedence.

    Integers compare a hundred times faster than the verdicts themselves.
    """
    return first_match(list(_unit_rules(evidence, thresholds).values()), evidence.finite.shape)


def first_match(rules: Sequence[NDArray[np.bool_]], shape: tuple[int, ...]) -> Places:
    """Position of the first rule that holds, for every element; the number of rules where none does.

    >>> first_match([np.array([False, True, False]), np.array([True, True, False])], (3,)).tolist()
    [1, 0, 2]
    """
    first = np.full(shape, len(rules))
    for position, holds in reversed(list(enumerate(rules))):
        first[np.broadcast_to(holds, shape)] = position
    return first


def _unit_rules(evidence: Evidence, thresholds: Thresholds) -> dict[UnitVerdict, NDArray[np.bool_]]:
    constant = constant_units(evidence, thresholds)
    never, always = evidence.fired == 0, evidence.fired == evidence.rows
    silent = constant & never & (evidence.activation in RELU_FAMILY)
    loosened = thresholds.range_epsilons / THRESHOLDS.range_epsilons
    quiet = evidence.can_be_off & (evidence.outside_ratio <= loosened)
    hardly = evidence.can_be_off & (evidence.fired < thresholds.few_rows)
    still = evidence.variation < thresholds.near_constant
    rare = quiet & (evidence.fired < thresholds.rare_frequency * evidence.rows)
    uninformed = _uninformed(evidence, thresholds)
    informed_rarely = uninformed & (evidence.informed >= thresholds.few_rows)
    return {
        UnitVerdict.INVALID: ~evidence.finite,
        UnitVerdict.NOT_TESTABLE: ~evidence.testable[:, None],
        UnitVerdict.NEVER_FIRED: silent & (evidence.rows < rows_to_claim(thresholds)),
        UnitVerdict.DEAD: silent,
        UnitVerdict.CONSTANT_AT_TARGET: constant & _at_target(evidence, thresholds),
        UnitVerdict.CONSTANT_ON: constant & always & evidence.can_be_off,
        UnitVerdict.CONSTANT_OFF: constant,
        UnitVerdict.SUBTHRESHOLD: hardly & ~quiet,
        UnitVerdict.RARE_INSUFFICIENT: hardly & quiet & ~never,
        UnitVerdict.AT_PRIOR: uninformed & ~informed_rarely,
        UnitVerdict.NEAR_CONSTANT: still & ~(evidence.p_adjusted <= thresholds.significance),
        UnitVerdict.RARE: rare | informed_rarely,
        UnitVerdict.SATURATED_BIMODAL: _bimodal(evidence, thresholds),
    }


def rows_to_claim(thresholds: Thresholds = THRESHOLDS) -> int:
    """Least number of rows on which "never" rules out the claimable frequency (Clopper & Pearson 1934).

    >>> rows_to_claim()
    368
    """
    alpha = (1 - thresholds.confidence) / 2
    return int(np.ceil(np.log(alpha) / np.log1p(-thresholds.claimable_frequency)))


def excluded_frequency(rows: int, thresholds: Thresholds = THRESHOLDS) -> float:
    """Frequency that 0 of so many rows rule out: the upper end of the two-sided Clopper-Pearson interval.

    >>> round(excluded_frequency(50), 4), round(excluded_frequency(368), 4)
    (0.0711, 0.01)
    """
    alpha = (1 - thresholds.confidence) / 2
    return float(-np.expm1(np.log(alpha) / max(rows, 1)))


def _uninformed(evidence: Evidence, thresholds: Thresholds) -> NDArray[np.bool_]:
    """Posterior equal to the prior on nearly all rows, of which there are enough to claim it."""
    uninformed = evidence.informed <= thresholds.prior_share * evidence.rows
    return (evidence.informed >= 0) & uninformed & (evidence.rows >= rows_to_claim(thresholds))


def _at_target(evidence: Evidence, thresholds: Thresholds) -> NDArray[np.bool_]:
    if evidence.target is None:
        return np.zeros(evidence.mean.shape, dtype=bool)
    # a rounding of rho itself must not decide a mean that lies on the bound
    allowed = thresholds.target_tolerance * abs(evidence.target) * (1 + 1e-6)
    return np.abs(evidence.mean - evidence.target) <= allowed


def _bimodal(evidence: Evidence, thresholds: Thresholds) -> NDArray[np.bool_]:
    often = evidence.saturated >= thresholds.saturated_share
    return (evidence.activation == "sigmoid") & often & (evidence.low_end > 0) & (evidence.high_end > 0)


def is_dominated(evidence: Evidence, thresholds: Thresholds = THRESHOLDS) -> NDArray[np.bool_]:
    """`[member]`: of two or more units exactly one fires, on every row, and all others are constant."""
    constant = constant_units(evidence, thresholds)
    fires = evidence.fired > 0
    single = fires.sum(-1) == 1
    always = (fires & (evidence.fired == evidence.rows)).any(-1)
    others_constant = (constant | fires).all(-1)
    several = evidence.finite.shape[-1] > 1
    judged = evidence.finite.all(-1) & evidence.testable
    return single & always & others_constant & judged & (several and evidence.can_be_off)


def is_heavy_tailed(kurtosis: Any, energy_share: Any, thresholds: Thresholds = THRESHOLDS) -> Any:
    """True where a few rows carry a unit: its kurtosis is large, or one row holds much of its energy.

    >>> is_heavy_tailed(3.0, 0.6), is_heavy_tailed(3.0, 0.1)
    (True, False)
    """
    return (kurtosis > thresholds.heavy_kurtosis) | (energy_share >= thresholds.heavy_energy)


def output_verdict(numbers: Mapping[str, float], thresholds: Thresholds = THRESHOLDS) -> OutputVerdict:
    """Verdict on an output from `finite`, `testable`, `constant`, `r2`, `r2_high`, `dead_share`.

    An output that is worse than the mean is `mean_output`, however much it varies.

    >>> numbers = {"finite": 1, "testable": 1, "constant": 0, "r2": -0.1, "r2_high": 0, "dead_share": 1}
    >>> output_verdict(numbers).value, output_verdict({**numbers, "constant": 1}).value
    ('mean_output', 'constant_output')
    """
    if not numbers["finite"]:
        return OutputVerdict.INVALID
    if not numbers["testable"]:
        return OutputVerdict.NOT_TESTABLE
    if numbers.get("constant"):
        return OutputVerdict.CONSTANT_OUTPUT
    if numbers["r2"] <= 0 or numbers["r2_high"] <= thresholds.mean_output_r2:
        return OutputVerdict.MEAN_OUTPUT
    return OutputVerdict.DEAD_OUTPUTS if numbers["dead_share"] > thresholds.dead_outputs else OutputVerdict.HEALTHY
