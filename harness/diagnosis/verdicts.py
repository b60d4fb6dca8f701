"""Names of all verdicts in order of precedence: the first that matches wins."""

from enum import StrEnum


class UnitVerdict(StrEnum):
    """Verdict on a unit."""

    INVALID = "invalid"
    NOT_TESTABLE = "not_testable"
    NEVER_FIRED = "never_fired"
    DEAD = "dead"
    CONSTANT_AT_TARGET = "constant_at_target"
    CONSTANT_ON = "constant_on"
    CONSTANT_OFF = "constant_off"
    SUBTHRESHOLD = "subthreshold"
    RARE_INSUFFICIENT = "rare_insufficient"
    AT_PRIOR = "at_prior"
    NEAR_CONSTANT = "near_constant"
    RARE = "rare"
    SATURATED_BIMODAL = "saturated_bimodal"
    ALIVE = "alive"


class LayerVerdict(StrEnum):
    """Verdict on a layer."""

    INVALID = "invalid"
    NOT_TESTABLE = "not_testable"
    FULL_COLLAPSE = "full_collapse"
    SINGLE_LIVE_UNIT = "single_live_unit"
    NEAR_COLLAPSE = "near_collapse"
    PARTIAL_COLLAPSE = "partial_collapse"
    REDUNDANT = "redundant"
    DIMENSIONAL_COLLAPSE = "dimensional_collapse"
    CONSTANT_OUTPUT = "constant_output"
    MEAN_OUTPUT = "mean_output"
    UNUSED = "unused"
    HEALTHY = "healthy"


class OutputVerdict(StrEnum):
    """Verdict on a model's output.

    `WORSE_THAN_MEAN` is read from results of earlier versions; today such an output is `MEAN_OUTPUT`.
    """

    INVALID = "invalid_output"
    NOT_TESTABLE = "output_not_testable"
    CONSTANT_OUTPUT = "constant_output"
    MEAN_OUTPUT = "mean_output"
    DEAD_OUTPUTS = "dead_outputs"
    WORSE_THAN_MEAN = "worse_than_mean"
    HEALTHY = "healthy"


CONSTANT = frozenset(
    {
        UnitVerdict.NEVER_FIRED,
        UnitVerdict.DEAD,
        UnitVerdict.CONSTANT_AT_TARGET,
        UnitVerdict.CONSTANT_ON,
        UnitVerdict.CONSTANT_OFF,
    }
)
NOT_LIVE = CONSTANT | {UnitVerdict.AT_PRIOR}
UNJUDGED = frozenset({UnitVerdict.INVALID, UnitVerdict.NOT_TESTABLE})
COLLAPSED = frozenset({LayerVerdict.FULL_COLLAPSE, LayerVerdict.SINGLE_LIVE_UNIT, LayerVerdict.NEAR_COLLAPSE})
