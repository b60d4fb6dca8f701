"""Every number that a verdict rests on, with what it means and where it comes from."""

from dataclasses import asdict, dataclass, fields

THIS_PROJECT = "this project"


@dataclass(frozen=True)
class Thresholds:
    """The numbers behind the verdicts. `TABLE` says what each means and who proposed it.

    >>> Thresholds().rare_frequency
    0.01
    """

    range_epsilons: float = 64.0
    claimable_frequency: float = 0.01
    few_rows: int = 5
    target_tolerance: float = 0.1
    near_constant: float = 1e-3
    rare_frequency: float = 0.01
    saturation: float = 1e-3
    saturated_share: float = 0.95
    reliability: float = 0.05
    duplicate_correlation: float = 0.99
    redundant_share: float = 0.5
    dimensional_share: float = 0.5
    dimensional_rows: float = 4.0
    nonlinear_share: float = 0.5
    heavy_kurtosis: float = 100.0
    heavy_energy: float = 0.5
    unused: float = 1e-3
    mean_output_variance: float = 0.01
    mean_output_r2: float = 0.05
    dead_outputs: float = 0.05
    significance: float = 0.05
    confidence: float = 0.95
    delta_nats: float = 0.01
    delta_share: float = 0.01
    delta_codes: float = 0.05
    active_variance: float = 0.01
    pair_units: int = 256
    large_units: int = 1024

    def to_dict(self) -> dict[str, float]:
        """The numbers by name, as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ThresholdInfo:
    """What a threshold means and where it comes from.

    Args:
        meaning: the sentence that it completes.
        source: a reference, or "this project" where nobody published one.
        decides: "verdict" where a stored diagnosis can be judged again under another value, "flag" where it decides a
            flag only, "method" where it says how something is computed.
    """

    meaning: str
    source: str = THIS_PROJECT
    decides: str = "verdict"


def threshold_table(thresholds: Thresholds | None = None) -> list[dict[str, str | float]]:
    """One row a threshold: name, value, meaning, source.

    >>> threshold_table()[4]["name"], threshold_table()[4]["source"]
    ('near_constant', 'this project')
    """
    values = (thresholds or THRESHOLDS).to_dict()
    return [
        {"name": name, "value": values[name], "meaning": each.meaning, "source": each.source}
        for name, each in TABLE.items()
    ]


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
        "a unit that fires on fewer rows is not compared with other units, nor judged for dependence"
    ),
    "target_tolerance": ThresholdInfo("a constant unit sits at the penalty's target within this share of it"),
    "near_constant": ThresholdInfo(
        "a unit is near_constant when its standard deviation is below this share of its RMS"
    ),
    "rare_frequency": ThresholdInfo("a unit is rare when it fires on a smaller share of the rows"),
    "saturation": ThresholdInfo("a sigmoid is saturated closer than this to 0 or 1"),
    "saturated_share": ThresholdInfo("a unit is saturated_bimodal when at least this share of its values is saturated"),
    "reliability": ThresholdInfo("a unit is noise when the upper 95 % bound of its test-retest reliability is lower"),
    "duplicate_correlation": ThresholdInfo(
        "two units are one when |correlation| or |rank correlation| is at least this"
    ),
    "redundant_share": ThresholdInfo(
        "a layer is redundant when its groups of copies number at most this share of live units"
    ),
    "dimensional_share": ThresholdInfo(
        "a layer has collapsed dimensions when its participation ratio is at most this share of the possible one"
    ),
    "dimensional_rows": ThresholdInfo("rank is judged with at least this many rows for each live unit"),
    "nonlinear_share": ThresholdInfo(
        "two units share information when it is at least this share of the smaller entropy", decides="flag"
    ),
    "heavy_kurtosis": ThresholdInfo("a unit is heavy_tailed above this kurtosis (a normal unit has 3)", decides="flag"),
    "heavy_energy": ThresholdInfo("a unit is heavy_tailed when one row holds this share of its energy", decides="flag"),
    "unused": ThresholdInfo("a unit is unused when replacing it by its mean costs less R2", decides="flag"),
    "mean_output_variance": ThresholdInfo(
        "the output is the mean when its variance is at most this share of the data's"
    ),
    "mean_output_r2": ThresholdInfo("the output is the mean when the upper 95 % bound of R2 is at most this"),
    "dead_outputs": ThresholdInfo("the output is dead above this share of constant features"),
    "significance": ThresholdInfo("false discoveries tolerated among units x references", "Benjamini & Hochberg 1995"),
    "confidence": ThresholdInfo("level of every interval", "convention", "method"),
    "delta_nats": ThresholdInfo("dependence on a reference below this many nats is negligible", decides="flag"),
    "delta_share": ThresholdInfo(
        "... or below this share of the entropy of the classes, if that is more", decides="flag"
    ),
    "delta_codes": ThresholdInfo(
        "... but never above this share of the entropy of the unit's own codes", decides="flag"
    ),
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

assert tuple(TABLE) == tuple(each.name for each in fields(Thresholds))
