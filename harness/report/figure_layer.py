"""Scatter plot of one layer: activation frequency of each unit against its information or entropy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.diagnosis.verdicts import NOT_LIVE, UNJUDGED, UnitVerdict
from harness.report.format import humanize, number
from harness.report.layer_tables import gravest_first, named
from harness.report.style import INK, UNIT_LOOKS
from harness.report.svg import RASTER_FROM, RenderedFigure, Table, inline_svg, name_axes, sheet
from harness.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from harness.diagnosis import Diagnosis, UnitDiagnosis

MOST_LABELS = 16


def layer_picture(diagnosis: "Diagnosis") -> RenderedFigure:
    """Scatter plot of a diagnosis for a page."""
    figure, (axes,) = sheet((384, 240))
    draw_layer(axes, diagnosis)
    name_axes(figure, "share of rows on which the unit fires", _height(diagnosis)[1])
    alt = f"Scatter plot of {plural(len(diagnosis.units), 'unit')}: {claim(diagnosis)}."
    note = "Cross: constant; triangle: hardly varies or rarely fires; circle: alive; diamond: not judged."
    return RenderedFigure(
        "layer", claim(diagnosis), alt, inline_svg(figure, "layer", alt), units_table(diagnosis), note
    )


def draw_layer(axes: "Axes", diagnosis: "Diagnosis") -> "Axes":
    """Draw one mark per unit, numbered in small layers; color and shape by the kind of its verdict.

    Marks that are close to each other have one label.
    """
    attribute, _ = _height(diagnosis)
    for group, look in UNIT_LOOKS.items():
        units = [unit for unit in diagnosis.units if unit_kind(unit.verdict) == group]
        x, y = ([_known(unit, name) for unit in units] for name in ("activation_frequency", attribute))
        size, alpha = (42, 0.8) if len(diagnosis.units) <= MOST_LABELS else (16, 0.8 if len(units) < 400 else 0.25)
        many = len(diagnosis.units) > RASTER_FROM // 2
        axes.scatter(x, y, s=size, c=look.colour, marker=look.marker, alpha=alpha, rasterized=many)
    axes.set_xlim(-0.05, 1.08)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if len(diagnosis.units) <= MOST_LABELS:
        points = {
            unit.index: (_known(unit, "activation_frequency"), _known(unit, attribute)) for unit in diagnosis.units
        }
        low, high = axes.get_ylim()
        for position, indices in label_groups(points, (0.06, 0.07 * (high - low))):
            side, offset = ("right", -6) if position[0] > 0.5 else ("left", 6)
            axes.annotate(named(indices, 4), position, (offset, 4), textcoords="offset points", color=INK, ha=side)
    return axes


def label_groups(
    points: dict[int, tuple[float, float]], near: tuple[float, float]
) -> list[tuple[tuple[float, float], list[int]]]:
    """Finite points in groups of which all members are near the first one: its position, and the indices.

    >>> label_groups({0: (0.0, 0.0), 1: (1.0, 6.0), 2: (1.0, 6.1), 3: (float("nan"), 0.0)}, (0.1, 0.5))
    [((0.0, 0.0), [0]), ((1.0, 6.0), [1, 2])]
    """
    groups: list[tuple[tuple[float, float], list[int]]] = []
    for index, point in points.items():
        if not np.isfinite(point).all():
            continue
        close = (group for group in groups if (np.abs(np.subtract(group[0], point)) <= near).all())
        group = next(close, None)
        if group is None:
            groups.append((point, [index]))
        else:
            group[1].append(index)
    return groups


def claim(diagnosis: "Diagnosis") -> str:
    """The verdict with the number of units that vary."""
    return f"{humanize(diagnosis.verdict)}: {diagnosis.live_units} of {plural(len(diagnosis.units), 'unit')} vary"


def unit_kind(verdict: str) -> str:
    """Kind of a unit's verdict: constant, doubtful, alive or not judged.

    >>> unit_kind("dead"), unit_kind("rare"), unit_kind("alive"), unit_kind("invalid")
    ('constant', 'doubtful', 'alive', 'not_judged')
    """
    if verdict in NOT_LIVE:
        return "constant"
    if verdict in UNJUDGED:
        return "not_judged"
    return "alive" if verdict in (UnitVerdict.ALIVE, UnitVerdict.SATURATED_BIMODAL) else "doubtful"


def units_table(diagnosis: "Diagnosis", most: int = 256) -> Table:
    """Table of the units and their measures; the gravest units of a large layer."""
    chosen = diagnosis.units if len(diagnosis.units) <= most else gravest_first(diagnosis.units)[:most]
    header = ["unit", "verdict", "fires", "mean", "standard deviation", "entropy, bits", "information, nats", "flags"]
    rows = [
        [
            str(unit.index),
            humanize(unit.verdict),
            *(number(_known(unit, name)) for name in COLUMNS),
            " ".join(unit.flags),
        ]
        for unit in chosen
    ]
    return Table(header, rows, left_out=len(diagnosis.units) - len(rows))


def _height(diagnosis: "Diagnosis") -> tuple[str, str]:
    informed = [_known(unit, "mutual_information") for unit in diagnosis.units]
    if np.isfinite(informed).any():
        return "mutual_information", "mutual information (nats)"
    return "entropy_bits", "entropy (bits)"


def _known(unit: "UnitDiagnosis", name: str) -> float:
    value = getattr(unit, name)
    return float("nan") if value is None else float(value)


COLUMNS: Sequence[str] = ("activation_frequency", "mean", "standard_deviation", "entropy_bits", "mutual_information")
