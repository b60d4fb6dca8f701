"""Diagnoses of the parts of a layer: its units, its output, and what units share with references."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.diagnosis.verdicts import NOT_LIVE, UNJUDGED, OutputVerdict, UnitVerdict

Interval = tuple[float, float]
NAN = math.nan
UNKNOWN: Interval = (NAN, NAN)


class Flag(str):
    """A flag: a string such as `"duplicate_of=3"`, with its name and its argument as attributes.

    >>> flag = Flag("duplicate_of=3")
    >>> flag == "duplicate_of=3", flag.name, flag.argument
    (True, 'duplicate_of', '3')
    >>> Flag("always_on").argument is None
    True
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """Part before the equals sign."""
        return self.partition("=")[0]

    @property
    def argument(self) -> str | None:
        """Part after the equals sign; None for a flag without an argument."""
        _, equals, argument = self.partition("=")
        return argument if equals else None


@dataclass(frozen=True, slots=True)
class Reference:
    """Dependence of a unit on one reference variable (labels, or a factor).

    Args:
        mutual_information: nats, unclamped, from about 0 (nothing) to `entropy`; exactly 0 for a constant unit.
        p: of the test of independence. p_adjusted: Benjamini-Hochberg over the layer's units x references.
        interval: 95 % bounds of the *binned* information, which is a lower bound of the information itself.
        entropy: of the reference, nats; NaN for a continuous one.
        delta: information below this many nats is negligible.
        flag: dependent, negligible or inconclusive.
        codes_entropy: of the unit's codes in the binned table, nats.
    """

    mutual_information: float = NAN
    p: float = NAN
    p_adjusted: float = NAN
    interval: Interval = UNKNOWN
    entropy: float = NAN
    delta: float = NAN
    flag: str = "inconclusive"
    codes_entropy: float = NAN


@dataclass(frozen=True, slots=True)
class UnitDiagnosis:
    """One unit: its verdict, its flags, and every measure with its 95 % interval.

    Args:
        activation_frequency: share of the distinct rows on which the unit fires; NaN where the activation has no off
            state. Its interval is Wilson's; `activation_frequency_bounds` are Clopper-Pearson's, on which "never" and
            "always" rest.
        fired_rows: number of distinct rows on which the unit fires.
        entropy_bits: of the unit's values at `resolution`.
        mutual_information: nats with the labels if given, else the largest over factors; `references` has each.
        variation: standard deviation / RMS, from 0 (constant) to 1 (mean zero).
        range_ratio: (max - min) / `tolerance`; at most 1 is constant. outside_ratio: over rows where it does not fire.
            Where rows have positions, the largest ratio at one of them; `position_range` is the widest max - min at one.
        before_ratio: the same before normalization, where that was given.
        energy_share: the largest share of the unit's energy in one row.
        saturated: share of values within 0.001 of 0 or 1 (sigmoid). bimodal_margin: the least distance from 0 or 1 at
            which the unit would be `saturated_bimodal`: 95 % of its values lie within it, some at either end.
        reliability: test-retest, 1 (the same again) to 0 (noise); NaN without a second pass. reliability_bound is the
            upper bound that the verdict used, which pools the units of a layer that show no reliability.
        ablation: R2 lost when the decoder gets the unit's mean instead.
        active: variance above 0.01 (Burda's active unit), for comparison only.
        kl: mean KL divergence of the unit's posterior from the prior, nats, 0 (equal) upward; NaN without a posterior.
        informed_rows: number of distinct rows with a KL divergence of 0.01 nats or more; -1 without a posterior.
    """

    index: int
    verdict: UnitVerdict
    flags: tuple[Flag, ...] = ()
    mean: float = NAN
    mean_interval: Interval = UNKNOWN
    standard_deviation: float = NAN
    standard_deviation_interval: Interval = UNKNOWN
    minimum: float = NAN
    maximum: float = NAN
    activation_frequency: float = NAN
    activation_frequency_interval: Interval = UNKNOWN
    activation_frequency_bounds: Interval = UNKNOWN
    fired_rows: int = 0
    entropy_bits: float = NAN
    entropy_bits_interval: Interval = UNKNOWN
    resolution: float = NAN
    mutual_information: float = NAN
    mutual_information_interval: Interval = UNKNOWN
    references: Mapping[str, Reference] = field(default_factory=dict)
    variation: float = NAN
    tolerance: float = NAN
    range_ratio: float = NAN
    outside_ratio: float = NAN
    before_ratio: float = NAN
    position_range: float = NAN
    kurtosis: float = NAN
    energy_share: float = NAN
    saturated: float = NAN
    bimodal_margin: float = NAN
    low_end: bool = False
    high_end: bool = False
    stochastic: bool = False
    reliability: float = NAN
    reliability_interval: Interval = UNKNOWN
    reliability_bound: float = NAN
    ablation: float = NAN
    active: bool = False
    kl: float = NAN
    informed_rows: int = -1

    @property
    def live(self) -> bool:
        """True for a unit that is judged, not constant and not at its prior."""
        return self.verdict not in NOT_LIVE and self.verdict not in UNJUDGED


@dataclass(frozen=True)
class OutputDiagnosis:
    """The model's output: R2 about the evaluation mean, beside the R2 of principal components.

    Args:
        r2: 1 (exact), 0 (as good as the mean), below 0 (worse than the mean); NaN without rows to compare with.
        variance_ratio: variance of the reconstruction / variance of the data.
        dead_share: share of features that the reconstruction keeps constant while the data vary.
        pca_r2: R2 of PCA with 1, 2, ... components, up to the number of live units (times positions, where a sample has
            several).
        pca_rows: the rows that the components were fitted on: "training" or "evaluation".
        constant: True where the output does not vary although the inputs do.
        logits: True where the output was judged behind a sigmoid: the rows lie between 0 and 1, the output does not,
            and it explains them only behind one.
    """

    verdict: OutputVerdict
    r2: float = NAN
    r2_interval: Interval = UNKNOWN
    variance_ratio: float = NAN
    dead_share: float = NAN
    dead_features: tuple[int, ...] = ()
    pca_r2: tuple[float, ...] = ()
    pca_rows: str = "training"
    constant: bool = False
    logits: bool = False
