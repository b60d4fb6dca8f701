"""Scatter plot of all units: activation frequency (or ablation effect) against information or entropy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.report.figure_layer import unit_kind
from harness.report.format import number, shortened
from harness.report.groups import panels
from harness.report.style import by_severity, verdict_style
from harness.report.svg import RASTER_FROM, TITLE_HEIGHT, RenderedFigure, Table, inline_svg, name_axes, safe, sheet
from harness.results.records import Level, MemberRecord
from harness.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = dict[str, list[tuple[float, float]]]
Units = list[tuple[str, Mapping[str, Any]]]
COLUMNS = 4
PANEL = (184.0, 130.0)


@dataclass(frozen=True)
class Axis:
    """Axis of the plot: a measure of a unit, its name on the axis, in the table, and in a sentence."""

    measure: str
    name: str
    short: str
    phrase: str


def units_picture(
    records: Sequence[MemberRecord], baseline: Mapping[str, Level] | None = None
) -> RenderedFigure | None:
    """Scatter plot with one mark per unit, all seeds, one panel per group; None where no unit has two measures."""
    units_by_group = {name: units_of(members) for name, members in panels(records, baseline).items()}
    every = [unit for units in units_by_group.values() for _, unit in units]
    axes = axes_for(every)
    if axes is None:
        return None
    groups = {name: points for name, units in units_by_group.items() if (points := unit_points(units, axes))}
    verdicts = by_severity(verdict for points in groups.values() for verdict in points)
    title, alt = _claim(every, axes), _alt(groups, axes)
    svg = inline_svg(_drawn(groups, axes), "units", alt)
    return RenderedFigure(
        "units", title, alt, svg, _table(groups, axes), _note(every, axes), verdicts, wide=len(groups) > 2
    )


def axes_for(units: Sequence[Mapping[str, Any]]) -> tuple[Axis, Axis] | None:
    """The first pair of measures that any unit has both of.

    An activation without an off state has no frequency, and rows without labels and factors leave no information.
    """
    for across in ACROSS:
        for upward in UPWARD:
            if any(_point(unit, (across, upward)) for unit in units):
                return across, upward
    return None


def _drawn(groups: Mapping[str, Points], measures: tuple[Axis, Axis]) -> "Figure":
    every = np.array([point for points in groups.values() for coordinates in points.values() for point in coordinates])
    across = (0.0, 1.0) if measures[0] is FREQUENCY else _extremes(every[:, 0])
    upward = _extremes(every[:, 1])
    figure, axes = sheet(PANEL, len(groups), min(COLUMNS, len(groups)))
    for panel, (name, points) in zip(axes, groups.items(), strict=True):
        draw_units_panel(panel, points, name)
        panel.set_xlim(*_with_room(*across))
        panel.set_ylim(*_with_room(*upward))
    name_axes(figure, measures[0].name, measures[1].name)
    return figure


def _extremes(values: NDArray[np.float64]) -> tuple[float, float]:
    """Least value or 0, whichever is smaller, and the largest value."""
    return min(0.0, float(values.min())), float(values.max()) if values.max() > 0 else 1.0


def _with_room(low: float, high: float) -> tuple[float, float]:
    return low - 0.05 * (high - low), high + 0.08 * (high - low)


def draw_units_panel(axes: "Axes", points: Points, title: str) -> "Axes":
    """Draw one mark per unit, in the color and shape of its own verdict."""
    count = sum(map(len, points.values()))
    for verdict in by_severity(points):
        style = verdict_style(verdict)
        x, y = np.array(points[verdict]).T
        axes.scatter(
            x,
            y,
            s=26 if count < 400 else 12,
            c=style.colour,
            marker=style.marker,
            alpha=0.75 if count < 400 else 0.4,
            linewidths=0.8,
            rasterized=count > RASTER_FROM // 2,
        )
    axes.set_title(safe(shortened(title, 30)), loc="left", y=TITLE_HEIGHT, fontsize=11)
    return axes


def units_of(records: Sequence[MemberRecord]) -> Units:
    """Kind of the verdict and the shown measures of every unit; each diagnosis is read once."""
    return [
        (unit_kind(str(unit.get("verdict"))), {name: unit.get(name) for name in SHOWN})
        for record in records
        for unit in record.diagnosis.get("units", ())
    ]


def unit_points(units: Units, axes: tuple[Axis, Axis]) -> Points:
    """Kind of the verdict -> coordinates of each unit that has both measures."""
    points: Points = {}
    for group, unit in units:
        if point := _point(unit, axes):
            points.setdefault(group, []).append(point)
    return points


def _point(unit: Mapping[str, Any], axes: tuple[Axis, Axis]) -> tuple[float, float] | None:
    x, y = (unit[axis.measure] for axis in axes)
    return (float(x), float(y)) if None not in (x, y) and np.isfinite((x, y)).all() else None


def _claim(units: Sequence[Mapping[str, Any]], axes: tuple[Axis, Axis]) -> str:
    silent = sum(unit_kind(str(unit["verdict"])) == "constant" for unit in units)
    edge = "frequency 0 or 1" if axes[0] is FREQUENCY else "no effect on R2"
    return f"{silent} of {plural(len(units), 'unit')} are constant (bottom edge: {edge})"


def _note(units: Sequence[Mapping[str, Any]], axes: tuple[Axis, Axis]) -> str:
    unknown = sum(_point(unit, axes) is None for unit in units)
    suffix = f" {plural(unknown, 'unit')} without a value: not drawn." if unknown else ""
    return f"{axes[1].phrase}; one mark per unit, every seed.{suffix}"


def _alt(groups: Mapping[str, Points], axes: tuple[Axis, Axis]) -> str:
    total = sum(len(coordinates) for points in groups.values() for coordinates in points.values())
    extents = "; ".join(f"{name}: {_extent(points, axes[1])}" for name, points in list(groups.items())[:4])
    return (
        f"Scatter plot of {plural(total, 'unit')} in {plural(len(groups), 'panel')}: {axes[0].name}, "
        f"against its {axes[1].name}. {extents}."
    )


def _extent(points: Points, axis: Axis) -> str:
    y = [value for coordinates in points.values() for _, value in coordinates]
    return f"median {axis.name} {number(float(np.median(y)), 2)}, largest {number(max(y), 2)}"


def _table(groups: Mapping[str, Points], axes: tuple[Axis, Axis]) -> Table:
    x, y = (axis.short for axis in axes)
    header = ["group", "unit", "units", f"median {x}", f"median {y}", f"largest {y}"]
    rows = [
        [name, verdict, str(len(points[verdict])), *_medians(points[verdict])]
        for name, points in groups.items()
        for verdict in by_severity(points)
    ]
    return Table(header, rows, "Every unit: units.parquet.")


def _medians(points: Sequence[tuple[float, float]]) -> list[str]:
    x, y = np.array(points).T
    return [number(float(np.median(x)), 2), number(float(np.median(y)), 2), number(float(y.max()), 2)]


FREQUENCY = Axis("activation_frequency", "share of rows on which the unit fires", "share of rows", "")
ACROSS = (FREQUENCY, Axis("ablation", "R2 lost without the unit", "R2 lost", ""))
UPWARD = (
    Axis(
        "mutual_information",
        "mutual information (nats)",
        "nats",
        "Mutual information with the labels, or the largest over the factors",
    ),
    Axis("entropy_bits", "entropy (bits)", "bits", "Entropy of the values of a unit at their resolution"),
)
SHOWN = ("verdict", *(axis.measure for axis in (*ACROSS, *UPWARD)))
