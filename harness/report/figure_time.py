"""Timelines: live units and losses during training, and the step at which each unit died."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.report.format import DASH, number, plural, shortened
from harness.report.groups import Groups, panels
from harness.report.style import LINE, by_severity, shown_verdict, verdict_style
from harness.report.svg import (
    RASTER_FROM,
    TITLE_HEIGHT,
    Margins,
    RenderedFigure,
    Table,
    inline_svg,
    name_axes,
    safe,
    sheet,
)
from harness.results.records import MemberRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Curves = dict[str, list[Array]]
COLUMNS = 2
PANEL = (184.0, 110.0)
DEATH_ROW = 38
MOST_CURVES = 32
"""Number of members of a panel from which its curves are rasterized: each costs half a kilobyte as markup."""


def live_units_picture(records: Sequence[MemberRecord]) -> RenderedFigure | None:
    """Live units at each snapshot, one line per seed."""
    groups = _with_history(records, "live_units")
    if not groups:
        return None
    curves = _curves(groups, "live_units")
    alt = f"Line plots of live units over the epochs, one line per member: {_ends(curves)}."
    svg = _lines(groups, "live_units", "live", alt, "live units")
    return RenderedFigure("live", _live_claim(curves), alt, svg, _line_table(curves), ONE_LINE, _verdicts(groups))


def loss_picture(records: Sequence[MemberRecord], term: str = "reconstruction") -> RenderedFigure | None:
    """One loss term at each snapshot, one line per seed; `total` where there is no such term."""
    name = f"loss/{term}"
    groups = _with_history(records, name)
    if not groups:
        return loss_picture(records, "total") if term != "total" else None
    curves = _curves(groups, name)
    alt = f"Line plots of the loss term {term} over the epochs, one line per member: {_ends(curves)}."
    short = f"loss-{sum(term.encode())}"
    svg = _lines(groups, name, short, alt, f"{term}, training mean", logarithmic=True)
    title = f"The {term} loss falls in {_falling(curves)} members"
    return RenderedFigure(short, title, alt, svg, _line_table(curves), ONE_LINE, _verdicts(groups))


def deaths_picture(records: Sequence[MemberRecord]) -> RenderedFigure | None:
    """Step from which each dead unit never varied again: one mark per unit, one row per group."""
    groups = {name: members for name, members in panels(records).items() if any(record.died_at for record in members)}
    death_steps = [
        step for members in groups.values() for record in members for step in record.died_at if step is not None
    ]
    if not death_steps:
        return None
    figure, (axes,) = sheet((420, DEATH_ROW * len(groups)), margins=Margins(left=12, right=12, top=6, bottom=42))
    draw_deaths(axes, groups)
    born = sum(step == 0 for step in death_steps)
    title = f"{born} of {plural(len(death_steps), 'dead unit')} were already dead at initialization, {len(death_steps) - born} died during training"
    alt = f"One mark per dead unit, at the step from which it never varied. {title}."
    table = Table(
        ["group", "units", "dead at initialization", "died later", "median step of the later deaths"], _deaths(groups)
    )
    note = "Step 0 is the initialization, before any training. Units alive at the end have no mark."
    return RenderedFigure("deaths", title, alt, inline_svg(figure, "deaths", alt), table, note, _verdicts(groups))


def draw_deaths(axes: "Axes", groups: Groups) -> "Axes":
    """Draw one row per group, its name above; seeds lie side by side within the row."""
    for row, (name, members) in enumerate(groups.items()):
        y = len(groups) - 1 - row
        _draw_lost(axes, members, y)
        axes.axhline(y - 0.4, color=LINE, linewidth=0.6)
        units = sum(len(record.died_at) for record in members)
        dead = sum(step is not None for record in members for step in record.died_at)
        text = safe(f"{shortened(name, 44)}: {dead} of {units} dead")
        axes.text(0, y + 0.2, text, transform=axes.get_yaxis_transform(), va="bottom", fontsize=10)
    axes.set_ylim(-0.45, len(groups) - 0.45)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    axes.set_xlabel("step (0 = initialization)")
    return axes


def _draw_lost(axes: "Axes", members: Sequence[MemberRecord], y: float) -> None:
    many = sum(len(record.died_at) for record in members) > RASTER_FROM // 3
    for verdict in by_severity(map(shown_verdict, members)):
        marks = [
            (step, y - 0.3 + 0.45 * (index + 0.5) / len(members))
            for index, record in enumerate(members)
            if shown_verdict(record) == verdict
            for step in record.died_at
            if step is not None
        ]
        if marks:
            x, heights = np.array(marks, dtype=float).T
            style = verdict_style(verdict)
            axes.scatter(
                x, heights, s=16, c=style.colour, marker=style.marker, alpha=0.6, linewidths=0.8, rasterized=many
            )


def draw_lines(axes: "Axes", members: Sequence[MemberRecord], measure: str, title: str) -> "Axes":
    """Draw one line per member over the epochs in the color of its final verdict; the last mark shows it by shape."""
    for verdict in by_severity(map(shown_verdict, members)):
        curves = [
            np.column_stack([record.history.array("epoch"), record.history.array(measure) + nudge])
            for record, nudge in zip(members, _nudges(measure, len(members)), strict=True)
            if shown_verdict(record) == verdict
        ]
        _draw_curves(axes, curves, verdict, len(members))
    axes.autoscale_view()
    axes.set_title(safe(shortened(title, 30)), loc="left", y=TITLE_HEIGHT, fontsize=11)
    return axes


def _draw_curves(axes: "Axes", curves: Sequence[Array], verdict: str, among: int) -> None:
    """Draw all curves as one collection: separate line objects would take longer than the training."""
    from matplotlib.collections import LineCollection

    style, alpha = verdict_style(verdict), 0.8 if among < 40 else 0.35
    rasterized = among > MOST_CURVES or sum(map(len, curves)) > RASTER_FROM
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


def _with_history(records: Sequence[MemberRecord], measure: str) -> Groups:
    return panels([record for record in records if all(_has(record, name) for name in (measure, "epoch"))])


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


def _deaths(groups: Groups) -> list[list[str]]:
    rows = []
    for name, members in groups.items():
        steps = [step for record in members for step in record.died_at]
        later = [step for step in steps if step]
        middle = number(float(np.median(later))) if later else DASH
        rows.append([name, str(len(steps)), str(sum(step == 0 for step in steps)), str(len(later)), middle])
    return rows


ONE_LINE = "One line per member, every seed, in the color of its verdict at the end of training; the last mark shows it by shape."
