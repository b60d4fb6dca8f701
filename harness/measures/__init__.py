"""Measures: pure functions on `[*member, sample, unit]` that reduce negative axes, each with its source.

Names load when first used: the estimators need scipy, which takes its time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from harness.measures.association import Dependence as Dependence
    from harness.measures.association import dependence as dependence
    from harness.measures.association import dependences as dependences
    from harness.measures.association import table_information as table_information
    from harness.measures.basic import activation_frequency as activation_frequency
    from harness.measures.basic import active_units as active_units
    from harness.measures.basic import energy_share as energy_share
    from harness.measures.basic import fired_rows as fired_rows
    from harness.measures.basic import fires as fires
    from harness.measures.basic import has_off_state as has_off_state
    from harness.measures.basic import kurtosis as kurtosis
    from harness.measures.basic import layer_root_mean_square as layer_root_mean_square
    from harness.measures.basic import mean as mean
    from harness.measures.basic import root_mean_square as root_mean_square
    from harness.measures.basic import saturated_share as saturated_share
    from harness.measures.basic import standard_deviation as standard_deviation
    from harness.measures.basic import value_range as value_range
    from harness.measures.basic import variance as variance
    from harness.measures.basic import variation as variation
    from harness.measures.constancy import is_constant as is_constant
    from harness.measures.constancy import range_tolerance as range_tolerance
    from harness.measures.correlation import cluster_count as cluster_count
    from harness.measures.correlation import clusters as clusters
    from harness.measures.correlation import pairwise_correlation as pairwise_correlation
    from harness.measures.correlation import rank_correlation as rank_correlation
    from harness.measures.entropy import entropy_bits as entropy_bits
    from harness.measures.entropy import resolution as resolution
    from harness.measures.family import benjamini_hochberg as benjamini_hochberg
    from harness.measures.information import informations as informations
    from harness.measures.information import mutual_information as mutual_information
    from harness.measures.intervals import clopper_pearson as clopper_pearson
    from harness.measures.intervals import wilson as wilson
    from harness.measures.rank import correct_participation as correct_participation
    from harness.measures.rank import effective_rank as effective_rank
    from harness.measures.rank import participation_ratio as participation_ratio
    from harness.measures.reconstruction import constant_features as constant_features
    from harness.measures.reconstruction import pca_r2 as pca_r2
    from harness.measures.reconstruction import r2 as r2
    from harness.measures.reconstruction import r2_from_sse as r2_from_sse
    from harness.measures.reconstruction import sum_squared_error as sum_squared_error
    from harness.measures.reconstruction import variance_ratio as variance_ratio


class Measure(NamedTuple):
    """What a measure of activations alone obeys, whatever the layer: its laws are tested from this table.

    Args:
        home: the module it lives in.
        axes: what is left of `[*member, sample, unit]`: "unit", "member" or "pair".
        power: multiplying a ReLU layer by c > 0 multiplies the measure by c to this power.
        repeats: whether it stays the same when every row is there twice.
    """

    home: str
    axes: str
    power: int
    repeats: bool = True


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.measures' has no attribute {name!r}")
    return getattr(import_module(f"harness.measures.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_HOMES, "MEASURES", "Measure"])


MEASURES = {
    "mean": Measure("basic", "unit", 1),
    "variance": Measure("basic", "unit", 2),
    "standard_deviation": Measure("basic", "unit", 1),
    "root_mean_square": Measure("basic", "unit", 1),
    "layer_root_mean_square": Measure("basic", "member", 1),
    "variation": Measure("basic", "unit", 0),
    "value_range": Measure("basic", "unit", 1),
    "activation_frequency": Measure("basic", "unit", 0),
    "fired_rows": Measure("basic", "unit", 0, repeats=False),
    "kurtosis": Measure("basic", "unit", 0),
    "energy_share": Measure("basic", "unit", 0, repeats=False),
    "range_tolerance": Measure("constancy", "unit", 1),
    "is_constant": Measure("constancy", "unit", 0),
    "resolution": Measure("entropy", "member", 1),
    "entropy_bits": Measure("entropy", "unit", 0, repeats=False),
    "effective_rank": Measure("rank", "member", 0),
    "participation_ratio": Measure("rank", "member", 0),
    "pairwise_correlation": Measure("correlation", "pair", 0),
    "rank_correlation": Measure("correlation", "pair", 0),
}

_HOMES = {
    **{name: measure.home for name, measure in MEASURES.items()},
    **dict.fromkeys(("Dependence", "dependence", "dependences", "table_information"), "association"),
    **dict.fromkeys(("active_units", "fires", "has_off_state", "saturated_share"), "basic"),
    **dict.fromkeys(("cluster_count", "clusters"), "correlation"),
    "benjamini_hochberg": "family",
    "informations": "information",
    "mutual_information": "information",
    **dict.fromkeys(("clopper_pearson", "wilson"), "intervals"),
    "correct_participation": "rank",
    **dict.fromkeys(
        ("constant_features", "r2_from_sse", "sum_squared_error", "pca_r2", "r2", "variance_ratio"), "reconstruction"
    ),
}
