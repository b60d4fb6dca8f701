"""Laws that each measure of activations obeys; the tests are parametrized over this table."""

from typing import NamedTuple


class Measure(NamedTuple):
    """Laws of a measure of activations alone.

    Args:
        axes: those of the result beside `*member`: "unit", "member" (none) or "pair".
        power: multiplying a ReLU layer by c > 0 multiplies the measure by c to this power.
        repeats: True if repeating every row does not change it.
    """

    axes: str
    power: int
    repeats: bool = True


MEASURES = {
    "mean": Measure("unit", 1),
    "variance": Measure("unit", 2),
    "standard_deviation": Measure("unit", 1),
    "root_mean_square": Measure("unit", 1),
    "layer_root_mean_square": Measure("member", 1),
    "variation": Measure("unit", 0),
    "value_range": Measure("unit", 1),
    "activation_frequency": Measure("unit", 0),
    "fired_rows": Measure("unit", 0, repeats=False),
    "kurtosis": Measure("unit", 0),
    "energy_share": Measure("unit", 0, repeats=False),
    "range_tolerance": Measure("unit", 1),
    "is_constant": Measure("unit", 0),
    "resolution": Measure("member", 1),
    "entropy_bits": Measure("unit", 0, repeats=False),
    "effective_rank": Measure("member", 0),
    "participation_ratio": Measure("member", 0),
    "pairwise_correlation": Measure("pair", 0),
    "rank_correlation": Measure("pair", 0),
}
