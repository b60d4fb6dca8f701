"""The verdict of a layer as a function of those of its units: the same rules judge a fresh layer and a stored one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.diagnosis.unit_rules import UNIT_VERDICTS, Evidence, LayerStructure, Places, first_match
from harness.diagnosis.verdicts import CONSTANT, LayerVerdict, UnitVerdict

Holds = NDArray[np.bool_]


def layer_verdicts(
    units: Places, evidence: Evidence, structure: LayerStructure, thresholds: Thresholds = THRESHOLDS
) -> NDArray[np.object_]:
    """`[member]` of `LayerVerdict`, by the order of precedence.

    Args:
        units: `[member, unit]`, as `unit_places` gives them.
        evidence, structure: of the same members.
        thresholds: the numbers that the verdicts rest on.
    """
    rules = _layer_rules(units, evidence.rows, structure, thresholds)
    return LAYER_VERDICTS[first_match(list(rules.values()), units.shape[:1])]


def _layer_rules(
    units: Places, rows: int, structure: LayerStructure, thresholds: Thresholds
) -> dict[LayerVerdict, Holds]:
    constant = IS_CONSTANT[units]
    live = (~constant).sum(-1)
    return {
        LayerVerdict.INVALID: _any(units, UnitVerdict.INVALID),
        LayerVerdict.NOT_TESTABLE: _any(units, UnitVerdict.NOT_TESTABLE),
        LayerVerdict.FULL_COLLAPSE: live == 0,
        LayerVerdict.SINGLE_LIVE_UNIT: (live == 1) & (units.shape[-1] > 1),
        LayerVerdict.NEAR_COLLAPSE: (constant | (units == PLACES[UnitVerdict.NEAR_CONSTANT])).all(-1),
        LayerVerdict.PARTIAL_COLLAPSE: live < units.shape[-1],
        LayerVerdict.REDUNDANT: groups(live, structure.links, thresholds) <= thresholds.redundant_share * live,
        LayerVerdict.DIMENSIONAL_COLLAPSE: _few_dimensions(live, rows, structure, thresholds),
    }


def groups(live: Any, links: NDArray[np.float64], thresholds: Thresholds = THRESHOLDS) -> Any:
    """How many groups of copies the live units form: each link at or above the threshold joins two.

    Args:
        live: `[*member]`, how many units are live. links: `[*member, link]`.

    >>> groups(np.array([4, 3]), np.array([[1.0, 0.995, 0.3], [0.2, 0.1, np.nan]])).tolist()
    [2, 3]
    """
    return live - (links >= thresholds.duplicate_correlation).sum(-1)


def padded(links: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """`[member, link]`: the links of every member, filled up with NaN, which joins nothing.

    >>> padded([np.array([0.9]), np.array([])]).tolist()
    [[0.9], [nan]]
    """
    found = np.full((len(links), max(map(len, links), default=0)), np.nan)
    for member, each in enumerate(links):
        found[member, : len(each)] = each
    return found


def _few_dimensions(live: NDArray[np.int64], rows: int, structure: LayerStructure, thresholds: Thresholds) -> Holds:
    judged = (live >= 2) & (rows >= thresholds.dimensional_rows * live)
    few: Holds = structure.rank <= thresholds.dimensional_share * np.minimum(live, structure.dimension)
    return judged & few


def _any(units: Places, verdict: UnitVerdict) -> Holds:
    found: Holds = (units == PLACES[verdict]).any(-1)
    return found


LAYER_VERDICTS = np.array(list(LayerVerdict), dtype=object)
PLACES = {verdict: place for place, verdict in enumerate(UNIT_VERDICTS)}
IS_CONSTANT = np.array([verdict in CONSTANT for verdict in UNIT_VERDICTS])
