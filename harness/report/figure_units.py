"""What collapse looks like: how often each unit fires against how much it says, and the same over the training."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.report.drawing import RASTER_FROM, TITLE_HEIGHT, Picture, Table, inline_svg, name_axes, safe, sheet
from harness.report.grouping import panels
from harness.report.palette import in_order, look, outcome_of
from harness.report.wording import number, plural, shortened
from harness.results.records import MemberRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = dict[str, list[tuple[float, float]]]
Units = list[tuple[str, Mapping[str, Any]]]
COLUMNS = 2
PANEL = (184.0, 130.0)


def units_picture(records: Sequence[MemberRecord]) -> Picture | None:
    """Activation frequency against mutual information, one mark a unit, all seeds, one panel a group."""
    seen = {name: units_of(members) for name, members in panels(records).items()}
    groups = {name: points for name, units in seen.items() if (points := unit_points(units))}
    if not groups:
        return None
    figure, axes = sheet(PANEL, len(groups), min(COLUMNS, len(groups)))
    top = max(y for points in groups.values() for each in points.values() for _, y in each) * 1.08 or 1.0
    for each, (name, points) in zip(axes, groups.items(), strict=True):
        draw_units_panel(each, points, name, top)
    name_axes(figure, "share of rows on which the unit fires", "mutual information (nats)")
    every = [unit for units in seen.values() for _, unit in units]
    title, alt = _claim(every), _alt(groups)
    verdicts = in_order(verdict for points in groups.values() for verdict in points)
    svg = inline_svg(figure, "units", alt)
    return Picture("units", title, alt, svg, _table(groups), _note(every), verdicts)


def draw_units_panel(axes: "Axes", points: Points, title: str, top: float) -> "Axes":
    """One mark a unit; its colour and shape are those of the verdict of its layer."""
    count = sum(map(len, points.values()))
    for verdict in in_order(points):
        style = look(verdict)
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
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.05 * top, top)
    axes.set_title(safe(shortened(title, 30)), loc="left", y=TITLE_HEIGHT, fontsize=11)
    return axes


def units_of(records: Sequence[MemberRecord]) -> Units:
    """The verdict of the layer, with what is shown of a unit, for every unit: a diagnosis is read once."""
    return [
        (outcome_of(record), {name: unit.get(name) for name in SHOWN})
        for record in records
        for unit in record.diagnosis.get("units", ())
    ]


def unit_points(units: Units) -> Points:
    """Verdict of the layer -> (activation frequency, mutual information in nats) of each unit that has both."""
    found: Points = {}
    for outcome, unit in units:
        point = (unit["activation_frequency"], unit["mutual_information"])
        if None not in point and np.isfinite(point).all():
            found.setdefault(outcome, []).append(point)
    return found


def _claim(units: Sequence[Mapping[str, Any]]) -> str:
    silent = sum(_is_silent(unit) for unit in units)
    return f"{silent} of {plural(len(units), 'unit')} never change with the input: they sit at the bottom, at 0 or at 1"


def _is_silent(unit: Mapping[str, Any]) -> bool:
    return str(unit["verdict"]) in ("dead", "never_fired", "constant_at_target", "constant_on", "constant_off")


def _note(units: Sequence[Mapping[str, Any]]) -> str:
    unknown = sum(unit["mutual_information"] is None for unit in units)
    said = f" {plural(unknown, 'unit')} without a value: not drawn." if unknown else ""
    return f"Mutual information with the labels, or the largest over the factors; one mark a unit, every seed.{said}"


def _alt(groups: Mapping[str, Points]) -> str:
    total = sum(len(each) for points in groups.values() for each in points.values())
    said = "; ".join(f"{name}: {_extent(points)}" for name, points in list(groups.items())[:4])
    return (
        f"Scatter plot of {plural(total, 'unit')} in {plural(len(groups), 'panel')}: share of rows on which a unit "
        f"fires, against its mutual information. {said}."
    )


def _extent(points: Points) -> str:
    y = [value for each in points.values() for _, value in each]
    return f"median mutual information {number(float(np.median(y)), 2)} nats, largest {number(max(y), 2)}"


def _table(groups: Mapping[str, Points]) -> Table:
    header = ["group", "verdict", "units", "median share of rows", "median nats", "largest nats"]
    rows = [
        [name, verdict, str(len(points[verdict])), *_medians(points[verdict])]
        for name, points in groups.items()
        for verdict in in_order(points)
    ]
    return Table(header, rows, "Every unit: units.parquet.")


def _medians(points: Sequence[tuple[float, float]]) -> list[str]:
    x, y = np.array(points).T
    return [number(float(np.median(x)), 2), number(float(np.median(y)), 2), number(float(y.max()), 2)]


SHOWN = ("verdict", "activation_frequency", "mutual_information")
