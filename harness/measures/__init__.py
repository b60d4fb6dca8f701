"""Measures: pure functions on `[*member, sample, unit]` that reduce negative axes, each with its source.

Names load when first used: the estimators need scipy, which takes its time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.measures.association import Dependence, benjamini_hochberg, dependence
    from harness.measures.basic import (
        activation_frequency,
        active_units,
        fired_rows,
        fires,
        has_off_state,
        kurtosis,
        mean,
        root_mean_square,
        standard_deviation,
        value_range,
        variance,
        variation,
    )
    from harness.measures.constancy import is_constant, range_tolerance
    from harness.measures.correlation import clusters, pairwise_correlation, rank_correlation
    from harness.measures.entropy import entropy_bits, resolution
    from harness.measures.information import mutual_information
    from harness.measures.intervals import clopper_pearson, wilson
    from harness.measures.rank import effective_rank, participation_ratio
    from harness.measures.reconstruction import constant_features, pca_r2, r2, variance_ratio


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.measures' has no attribute {name!r}")
    return getattr(import_module(f"harness.measures.{_HOMES[name]}"), name)


_HOMES = {
    **dict.fromkeys(("Dependence", "benjamini_hochberg", "dependence"), "association"),
    **dict.fromkeys(("activation_frequency", "active_units", "fired_rows", "fires", "has_off_state"), "basic"),
    **dict.fromkeys(("kurtosis", "mean", "root_mean_square", "standard_deviation", "value_range"), "basic"),
    **dict.fromkeys(("variance", "variation"), "basic"),
    **dict.fromkeys(("is_constant", "range_tolerance"), "constancy"),
    **dict.fromkeys(("clusters", "pairwise_correlation", "rank_correlation"), "correlation"),
    **dict.fromkeys(("entropy_bits", "resolution"), "entropy"),
    "mutual_information": "information",
    **dict.fromkeys(("clopper_pearson", "wilson"), "intervals"),
    **dict.fromkeys(("effective_rank", "participation_ratio"), "rank"),
    **dict.fromkeys(("constant_features", "pca_r2", "r2", "variance_ratio"), "reconstruction"),
}
__all__ = sorted(_HOMES)
