"""Thresholds of the verdicts, with their meaning and source."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

THIS_PROJECT = "this project"


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdicts. `threshold_table()` lists the meaning and the source of each.

    >>> Thresholds().rare_frequency
    0.01
    """

    range_epsilons: float = 64.0
    claimable_frequency: float = 0.01
    few_rows: int = 5
    target_tolerance: float = 0.1
    near_constant: float = 1e-3
    rare_frequency: float = 0.01
    prior_nats: float = 0.01
    prior_share: float = 0.01
    saturation: float = 1e-3
    saturated_share: float = 0.95
    reliability: float = 0.05
    duplicate_correlation: float = 0.99
    redundant_share: float = 0.5
    rank_tolerance: float = 1e-2
    input_variance: float = 0.99
    dimensional_share: float = 0.5
    dimensional_rows: float = 4.0
    nonlinear_share: float = 0.5
    within_class: float = 0.1
    heavy_kurtosis: float = 100.0
    heavy_energy: float = 0.5
    unused: float = 1e-3
    mean_output_r2: float = 0.05
    dead_outputs: float = 0.05
    below_pca: float = 0.01
    significance: float = 0.05
    confidence: float = 0.95
    delta_nats: float = 0.01
    delta_share: float = 0.01
    delta_codes: float = 0.05
    delta_classes: float = 0.1
    active_variance: float = 0.01
    pair_units: int = 256
    large_units: int = 1024

    def to_dict(self) -> dict[str, float]:
        """Return the numbers by name, as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, float]) -> "Thresholds":
        """Return the thresholds that `to_dict` wrote; names that only an earlier version had are left out.

        >>> Thresholds.from_dict({"near_constant": 1e-4, "mean_output_variance": 0.01}).near_constant
        0.0001
        """
        numbers: dict[str, Any] = {name: value for name, value in stored.items() if name in cls.__dataclass_fields__}
        return cls(**numbers)


@dataclass(frozen=True)
class ThresholdInfo:
    """Meaning and source of a threshold.

    Args:
        meaning: a sentence that the value completes.
        source: a reference, or "this project" for a number without a published source.
        decides: "verdict" where a stored diagnosis can be judged again under another value, "flag" where the threshold
            decides a flag only, "method" where it is a parameter of the measurement.
    """

    meaning: str
    source: str = THIS_PROJECT
    decides: str = "verdict"


def threshold_table(thresholds: Thresholds | None = None) -> list[dict[str, str | float]]:
    """One row per threshold: name, value, meaning, source.

    >>> threshold_table()[4]["name"], threshold_table()[4]["source"]
    ('near_constant', 'this project')
    """
    values = (thresholds or THRESHOLDS).to_dict()
    return [
        {"name": name, "value": values[name], "meaning": info.meaning, "source": info.source}
        for name, info in TABLE.items()
    ]


LUCAS = "Lucas et al. 2019 (arXiv 1911.02469)"
CLOPPER_PEARSON = "Clopper & Pearson 1934 for the bound; the frequency itself is this project's"

TABLE: dict[str, ThresholdInfo] = {
    "range_epsilons": ThresholdInfo(
        "a unit is constant when max - min is at most this many roundings of its scale (float32, float64; 4 for the"
        " 16-bit types)"
    ),
    "claimable_frequency": ThresholdInfo(
        "a unit that never fired is dead when the rows rule out this frequency, and always_on when they rule out"
        " 1 minus it",
        CLOPPER_PEARSON,
    ),
    "few_rows": ThresholdInfo(
        "a unit that fires on fewer distinct rows is not compared with other units, nor judged for dependence"
    ),
    "target_tolerance": ThresholdInfo("a constant unit sits at the penalty's target within this share of it"),
    "near_constant": ThresholdInfo(
        "a unit is near_constant when its standard deviation is below this share of its RMS"
    ),
    "rare_frequency": ThresholdInfo("a unit is rare when it fires on a smaller share of the rows"),
    "prior_nats": ThresholdInfo(
        "the posterior of a row equals the prior below this KL divergence", LUCAS, decides="method"
    ),
    "prior_share": ThresholdInfo(
        "a unit is at_prior when at most this share of the rows differs from the prior", LUCAS
    ),
    "saturation": ThresholdInfo("a sigmoid is saturated closer than this to 0 or 1"),
    "saturated_share": ThresholdInfo("a unit is saturated_bimodal when at least this share of its values is saturated"),
    "reliability": ThresholdInfo("a unit is noise when the upper 95 % bound of its test-retest reliability is lower"),
    "duplicate_correlation": ThresholdInfo(
        "two units are one when |correlation| or |rank correlation| is at least this"
    ),
    "redundant_share": ThresholdInfo(
        "a layer is redundant when its groups of copies number at most this share of live units"
    ),
    "rank_tolerance": ThresholdInfo(
        "the rank counts eigenvalues of the correlation matrix above this share of the largest", decides="method"
    ),
    "input_variance": ThresholdInfo(
        "the inputs have at most as many dimensions as principal components that hold this share of their variance",
        decides="method",
    ),
    "dimensional_share": ThresholdInfo(
        "a layer has collapsed dimensions when its rank is at most this share of the smaller of live units and dimension"
        " of the inputs"
    ),
    "dimensional_rows": ThresholdInfo("rank is judged with at least this many rows for each live unit"),
    "nonlinear_share": ThresholdInfo(
        "two units share information when it is at least this share of the smaller entropy", decides="flag"
    ),
    "within_class": ThresholdInfo(
        "a layer has neural_collapse when at most this share of its variance lies within classes", decides="method"
    ),
    "heavy_kurtosis": ThresholdInfo("a unit is heavy_tailed above this kurtosis (a normal unit has 3)", decides="flag"),
    "heavy_energy": ThresholdInfo("a unit is heavy_tailed when one row holds this share of its energy", decides="flag"),
    "unused": ThresholdInfo("a unit is unused when replacing it by its mean changes R2 by less", decides="flag"),
    "mean_output_r2": ThresholdInfo(
        "an output is no better than the mean when the upper 95 % bound of R2 is at most this"
    ),
    "dead_outputs": ThresholdInfo("the output is dead above this share of constant features"),
    "below_pca": ThresholdInfo(
        "an output is below_pca when PCA explains more of the variance by at least this share", decides="method"
    ),
    "significance": ThresholdInfo("false discovery rate over units x references", "Benjamini & Hochberg 1995"),
    "confidence": ThresholdInfo("level of every interval", "convention", "method"),
    "delta_nats": ThresholdInfo("dependence on a reference below this many nats is negligible", decides="flag"),
    "delta_share": ThresholdInfo(
        "the threshold is this share of the entropy of the classes where that is larger", decides="flag"
    ),
    "delta_codes": ThresholdInfo(
        "the threshold is at most this share of the entropy of the unit's codes", decides="flag"
    ),
    "delta_classes": ThresholdInfo("the threshold is at most this share of the entropy of the classes", decides="flag"),
    "active_variance": ThresholdInfo(
        "Burda's active unit has a larger variance; counted for comparison, never a verdict",
        "Burda, Grosse & Salakhutdinov 2016",
        "method",
    ),
    "pair_units": ThresholdInfo(
        "nonlinear redundancy is searched in layers of at most this many units", decides="method"
    ),
    "large_units": ThresholdInfo(
        "above this many units copies are found by a sketch and then checked", decides="method"
    ),
}

THRESHOLDS = Thresholds()

assert tuple(TABLE) == tuple(field.name for field in fields(Thresholds))
