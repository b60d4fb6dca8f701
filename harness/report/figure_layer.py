"""Scatter plot of one layer: activation frequency of each unit against its information or entropy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.diagnosis.verdicts import NOT_LIVE, UNJUDGED, UnitVerdict
from harness.report.format import humanize, number
from harness.report.layer_tables import gravest_first
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
    """Draw one mark per unit, numbered in small layers; color and shape by the kind of its verdict."""
    attribute, _ = _height(diagnosis)
    for group, look in UNIT_LOOKS.items():
        units = [unit for unit in diagnosis.units if unit_kind(unit.verdict) == group]
        x, y = ([_known(unit, name) for unit in units] for name in ("activation_frequency", attribute))
        size, alpha = (42, 0.8) if len(diagnosis.units) <= MOST_LABELS else (16, 0.8 if len(units) < 400 else 0.25)
        many = len(diagnosis.units) > RASTER_FROM // 2
        axes.scatter(x, y, s=size, c=look.colour, marker=look.marker, alpha=alpha, rasterized=many)
        for unit, frequency, height in zip(units, x, y, strict=True):
            if len(diagnosis.units) <= MOST_LABELS and np.isfinite([frequency, height]).all():
                axes.annotate(str(unit.index), (frequency, height), (5, 4), textcoords="offset points", color=INK)
    axes.set_xlim(-0.05, 1.08)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    return axes


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
