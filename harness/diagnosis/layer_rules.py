"""Verdicts on layers as functions of those of their units: the same rules judge a fresh layer and a stored one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.diagnosis.thresholds import THRESHOLDS, Thresholds
from harness.diagnosis.unit_rules import UNIT_VERDICTS, Evidence, Places, first_match
from harness.diagnosis.verdicts import NOT_LIVE, LayerVerdict, OutputVerdict, UnitVerdict

Holds = NDArray[np.bool_]
Outputs = Sequence[OutputVerdict | None]


@dataclass(frozen=True)
class LayerStructure:
    """Relations among the live units of each member.

    Args:
        links: `[member, link]`, the |correlation| at which groups of comparable live units join; NaN after the last.
        rank: `[member]`, number of dimensions that the live units span; infinite where it was not measured.
        dimension: number of dimensions of the inputs; infinite where they were not given.
        ablation: `[member]`, R2 lost when all units are replaced by their means at once; NaN where it is not available.
    """

    links: NDArray[np.float64]
    rank: NDArray[np.float64]
    dimension: float
    ablation: NDArray[np.float64]


def layer_verdicts(
    units: Places,
    evidence: Evidence,
    structure: LayerStructure,
    outputs: Outputs,
    thresholds: Thresholds = THRESHOLDS,
) -> NDArray[np.object_]:
    """`[member]` of `LayerVerdict`, by the order of precedence.

    Args:
        units: `[member, unit]`, as returned by `unit_places`.
        evidence, structure, outputs: of the same members; the output's verdict is None where there is no output.
        thresholds: the numbers that the verdicts rest on.
    """
    rules = _layer_rules(units, evidence.rows, structure, outputs, thresholds)
    return LAYER_VERDICTS[first_match(list(rules.values()), units.shape[:1])]


def _layer_rules(
    units: Places, rows: int, structure: LayerStructure, outputs: Outputs, thresholds: Thresholds
) -> dict[LayerVerdict, Holds]:
    not_live = IS_NOT_LIVE[units]
    live = (~not_live).sum(-1)
    return {
        LayerVerdict.INVALID: _any(units, UnitVerdict.INVALID),
        LayerVerdict.NOT_TESTABLE: _any(units, UnitVerdict.NOT_TESTABLE),
        LayerVerdict.FULL_COLLAPSE: live == 0,
        LayerVerdict.SINGLE_LIVE_UNIT: (live == 1) & (units.shape[-1] > 1),
        LayerVerdict.NEAR_COLLAPSE: (not_live | (units == PLACES[UnitVerdict.NEAR_CONSTANT])).all(-1),
        LayerVerdict.PARTIAL_COLLAPSE: live < units.shape[-1],
        LayerVerdict.REDUNDANT: groups(live, structure.links, thresholds) <= thresholds.redundant_share * live,
        LayerVerdict.DIMENSIONAL_COLLAPSE: _few_dimensions(live, rows, structure, thresholds),
        LayerVerdict.CONSTANT_OUTPUT: np.array([verdict == OutputVerdict.CONSTANT_OUTPUT for verdict in outputs]),
        LayerVerdict.MEAN_OUTPUT: np.array([verdict == OutputVerdict.MEAN_OUTPUT for verdict in outputs]),
        LayerVerdict.UNUSED: np.abs(structure.ablation) < thresholds.unused,
    }


def groups(live: Any, links: NDArray[np.float64], thresholds: Thresholds = THRESHOLDS) -> Any:
    """Number of groups of copies that the live units form: each link at or above the threshold joins two.

    Args:
        live: `[*member]`, number of live units. links: `[*member, link]`.

    >>> groups(np.array([4, 3]), np.array([[1.0, 0.995, 0.3], [0.2, 0.1, np.nan]])).tolist()
    [2, 3]
    """
    return live - (links >= thresholds.duplicate_correlation).sum(-1)


def padded(links: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """`[member, link]`: the links of every member, filled up with NaN, which joins nothing.

    >>> padded([np.array([0.9]), np.array([])]).tolist()
    [[0.9], [nan]]
    """
    table = np.full((len(links), max(map(len, links), default=0)), np.nan)
    for member, row in enumerate(links):
        table[member, : len(row)] = row
    return table


def _few_dimensions(live: NDArray[np.int64], rows: int, structure: LayerStructure, thresholds: Thresholds) -> Holds:
    judged = (live >= 2) & (rows >= thresholds.dimensional_rows * live)
    narrow: Holds = structure.rank <= thresholds.dimensional_share * np.minimum(live, structure.dimension)
    return judged & narrow


def _any(units: Places, verdict: UnitVerdict) -> Holds:
    holds: Holds = (units == PLACES[verdict]).any(-1)
    return holds


LAYER_VERDICTS = np.array(list(LayerVerdict), dtype=object)
PLACES = {verdict: position for position, verdict in enumerate(UNIT_VERDICTS)}
IS_NOT_LIVE = np.array([verdict in NOT_LIVE for verdict in UNIT_VERDICTS])
