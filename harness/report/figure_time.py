"""Timelines: live units and losses during training, one line per member, or bands where the members are many."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.report.format import DASH, number, shortened
from harness.report.groups import Groups, panels
from harness.report.style import by_severity, shown_verdict, verdict_style
from harness.report.svg import (
    RASTER_FROM,
    TITLE_HEIGHT,
    RenderedFigure,
    Table,
    inline_svg,
    name_axes,
    safe,
    sheet,
)
from harness.results.records import Level, MemberRecord
from harness.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Curves = dict[str, list[Array]]
COLUMNS = 2
PANEL = (184.0, 110.0)
MOST_CURVES = 32
"""Number of members of a panel beyond which it shows a median and a band instead of a line per member."""

BAND = (0.1, 0.9)


def live_units_picture(
    records: Sequence[MemberRecord], baseline: Mapping[str, Level] | None = None
) -> RenderedFigure | None:
    """Live units at each snapshot, one line per seed."""
    groups = _with_history(records, "live_units", baseline)
    if not groups:
        return None
    curves = _curves(groups, "live_units")
    alt = f"Line plots of live units over the epochs, one line per member: {_ends(curves)}."
    svg = _lines(groups, "live_units", "live", alt, "live units")
    return RenderedFigure("live", _live_claim(curves), alt, svg, _line_table(curves), _note(groups), _verdicts(groups))


def loss_picture(
    records: Sequence[MemberRecord], term: str = "reconstruction", baseline: Mapping[str, Level] | None = None
) -> RenderedFigure | None:
    """One loss term at each snapshot, one line per seed; `total` where there is no such term."""
    name = f"loss/{term}"
    groups = _with_history(records, name, baseline)
    if not groups:
        return loss_picture(records, "total", baseline) if term != "total" else None
    curves = _curves(groups, name)
    alt = f"Line plots of the loss term {term} over the epochs, one line per member: {_ends(curves)}."
    short = f"loss-{sum(term.encode())}"
    svg = _lines(groups, name, short, alt, f"{term}, training mean", logarithmic=True)
    title = f"The {term} loss falls in {_falling(curves)} members"
    return RenderedFigure(short, title, alt, svg, _line_table(curves), _note(groups), _verdicts(groups))


def draw_lines(axes: "Axes", members: Sequence[MemberRecord], measure: str, title: str) -> "Axes":
    """Draw one line per member over the epochs in the color of its final verdict; the last mark shows it by shape.

    Beyond 32 members: median and middle 80 % of those that do not fail, and above them those that fail, as lines if
    they are few, else as a second median and band.
    """
    axes.set_title(safe(shortened(title, 30)), loc="left", y=TITLE_HEIGHT, fontsize=11)
    if len(members) > MOST_CURVES:
        usable, failing = ([record for record in members if bool(record.failed) == failed] for failed in (False, True))
        _draw_band(axes, usable, measure, verdict_style("healthy").colour, "-")
        if len(failing) > MOST_CURVES:
            _draw_band(axes, failing, measure, verdict_style("full_collapse").colour, "--")
            failing = []
        members = failing
    for verdict in by_severity(map(shown_verdict, members)):
        curves = [
            np.column_stack([record.history.array("epoch"), record.history.array(measure) + nudge])
            for record, nudge in zip(members, _nudges(measure, len(members)), strict=True)
            if shown_verdict(record) == verdict
        ]
        _draw_curves(axes, curves, verdict, len(members))
    axes.autoscale_view()
    return axes


def _draw_band(axes: "Axes", members: Sequence[MemberRecord], measure: str, colour: str, style: str) -> None:
    """Draw the median of members over the epochs, and a band from their 10 % to their 90 % quantile."""
    if not members:
        return
    epochs, values = _on_one_grid(members, measure)
    low, middle, high = np.nanquantile(values, (BAND[0], 0.5, BAND[1]), axis=0)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(epochs, middle, color=colour, linestyle=style, linewidth=1.8)


def _on_one_grid(members: Sequence[MemberRecord], measure: str) -> tuple[Array, Array]:
    """Epochs of the member with the most snapshots, and the values `[member, epoch]` of all members at them."""
    grid = max((record.history.array("epoch") for record in members), key=len)
    rows = np.full((len(members), len(grid)), np.nan)
    for row, record in zip(rows, members, strict=True):
        epochs, values = record.history.array("epoch"), record.history.array(measure)
        row[:] = values if np.array_equal(epochs, grid) else np.interp(grid, epochs, values, right=np.nan)
    rows[~np.isfinite(rows)] = np.nan
    some = ~np.isnan(rows).all(axis=0)  # a quantile of nothing is a warning
    return grid[some], rows[:, some]


def _draw_curves(axes: "Axes", curves: Sequence[Array], verdict: str, among: int) -> None:
    """Draw all curves as one collection: separate line objects would take longer than the training."""
    from matplotlib.collections import LineCollection

    style, alpha = verdict_style(verdict), 0.8 if among < 20 else 0.5
    rasterized = sum(map(len, curves)) > RASTER_FROM
    lines = LineCollection(list(curves), colors=style.colour, linewidths=1.2, alpha=alpha, rasterized=rasterized)
    axes.add_collection(lines, autolim=True)
    x, y = np.array([curve[-1] for curve in curves]).T
    axes.scatter(x, y, s=22, c=style.colour, marker=style.marker, alpha=alpha, linewidths=0.8, rasterized=rasterized)


def _nudges(measure: str, members: int) -> Array:
    """Small vertical shifts that separate members with equal integers."""
    if measure != "live_units":
        return np.zeros(members)
    return 0.12 * ((np.arange(members) + 0.5) / members - 0.5)


def _lines(groups: Groups, measure: str, name: str, alt: str, ylabel: str, logarithmic: bool = False) -> str:
    figure, axes = sheet(PANEL, len(groups), min(COLUMNS, len(groups)))
    low, high = _limits(groups, measure, logarithmic)
    for panel, (title, members) in zip(axes, groups.items(), strict=True):
        draw_lines(panel, members, measure, title)
        panel.set_ylim(low, high)
        if logarithmic and low > 0:
            _logarithmic(panel, low, high)
    name_axes(figure, "epoch", ylabel)
    return inline_svg(figure, name, alt)


def _logarithmic(axes: "Axes", low: float, high: float) -> None:
    """Make the axis logarithmic with at most four labels, written as plain numbers."""
    axes.set_yscale("log", subs=[])
    axes.minorticks_off()
    axes.set_ylim(low, high)
    decades = np.arange(np.ceil(np.log10(low)), np.floor(np.log10(high)) + 1)
    ticks = (
        10.0 ** decades[:: max(1, len(decades) // 4)] if len(decades) > 1 else np.geomspace(low * 1.08, high / 1.08, 3)
    )
    axes.set_yticks(ticks, [number(float(tick), 2) for tick in ticks])


def _limits(groups: Groups, measure: str, logarithmic: bool) -> tuple[float, float]:
    values = np.concatenate(_every(_curves(groups, measure)))
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if not logarithmic:
        return min(low, 0.0) - 0.3, high + 0.3
    if low > 0:
        return low / 1.1, high * 1.1
    return low - 0.05 * (high - low + 1e-9), high + 0.05 * (high - low + 1e-9)


def _with_history(records: Sequence[MemberRecord], measure: str, baseline: Mapping[str, Level] | None) -> Groups:
    return panels([record for record in records if all(_has(record, name) for name in (measure, "epoch"))], baseline)


def _has(record: MemberRecord, name: str) -> bool:
    return name in record.history and record.history.array(name).size > 0


def _curves(groups: Groups, measure: str) -> Curves:
    """Values at each snapshot of each member, by group."""
    return {name: [record.history.array(measure) for record in members] for name, members in groups.items()}


def _every(curves: Curves) -> list[Array]:
    return [curve for alike in curves.values() for curve in alike]


def _verdicts(groups: Groups) -> list[str]:
    return by_severity(shown_verdict(record) for members in groups.values() for record in members)


def _live_claim(curves: Curves) -> str:
    histories = _every(curves)
    lower, higher = (sum(bool(sign * history[-1] > sign * history[0]) for history in histories) for sign in (-1, 1))
    return f"Live units decreased in {lower} of {plural(len(histories), 'member')} and increased in {higher}"


def _falling(curves: Curves) -> str:
    histories = _every(curves)
    return f"{sum(bool(history[-1] < history[0]) for history in histories)} of {len(histories)}"


def _ends(curves: Curves) -> str:
    return "; ".join(
        f"{name} from {number(_median(alike, 0), 2)} to {number(_median(alike, -1), 2)} (median)"
        for name, alike in list(curves.items())[:6]
    )


def _median(curves: Sequence[Array], at: int) -> float:
    values = _known(curves, at)
    return float(np.median(values)) if values.size else float("nan")


def _known(curves: Sequence[Array], at: int) -> Array:
    """Finite values at a snapshot."""
    values = np.array([curve[at] for curve in curves])
    return values[np.isfinite(values)]


def _line_table(curves: Curves) -> Table:
    rows = []
    for name, alike in curves.items():
        last = _known(alike, -1)
        ends = [number(float(last.min())), number(float(last.max()))] if last.size else [DASH, DASH]
        rows.append([name, str(len(alike)), *(number(_median(alike, at)) for at in (0, -1)), *ends])
    header = ["group", "members", "median at first", "median at the end", "least at the end", "most at the end"]
    return Table(header, rows)


def _note(groups: Groups) -> str:
    """Caption: lines, bands, or both."""
    sizes = [len(members) for members in groups.values()]
    if max(sizes) <= MOST_CURVES:
        return ONE_LINE
    return MANY if min(sizes) > MOST_CURVES else f"{ONE_LINE} {MANY}"


MANY = (
    f"More than {MOST_CURVES} members in a panel: median and middle 80 % of the members that do not fail (green), above "
    "them those that fail: a line each, or the same in red where they are more."
)
ONE_LINE = "One line per member, every seed, in the color of its verdict at the end of training; the last mark shows it by shape."
