"""Share of units that are constant from each step on: cumulative curves of members that fail and of the others."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.report.format import DASH, number, shortened
from harness.report.groups import Groups, panels
from harness.report.style import verdict_style
from harness.report.svg import TITLE_HEIGHT, RenderedFigure, Table, inline_svg, name_axes, safe, sheet
from harness.results.records import Level, MemberRecord
from harness.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 2
PANEL = (184.0, 90.0)
FAILED, USABLE = verdict_style("full_collapse").colour, verdict_style("healthy").colour


def deaths_picture(
    records: Sequence[MemberRecord], baseline: Mapping[str, Level] | None = None
) -> RenderedFigure | None:
    """Cumulative share of units that never varied again, one panel per group; None where every unit varies."""
    groups = panels([record for record in records if record.died_at], baseline)
    steps = [step for members in groups.values() for record in members for step in record.died_at if step is not None]
    if not steps:
        return None
    last = max(1.0, float(max(steps)), *(_last_step(record) for record in records))
    figure, axes = sheet(PANEL, len(groups), min(COLUMNS, len(groups)))
    for panel, (name, members) in zip(axes, groups.items(), strict=True):
        draw_deaths(panel, members, last, name)
    name_axes(figure, "step (0 = initialization)", "share of units constant")
    born = sum(step == 0 for step in steps)
    title = (
        f"{born} of {plural(len(steps), 'constant unit')} were so from initialization on, "
        f"{len(steps) - born} became constant during training"
    )
    alt = f"Cumulative share of constant units over the steps, members that fail apart from the others. {title}."
    table = Table(
        ["group", "units", "constant at initialization", "constant later", "median step of the later"], _deaths(groups)
    )
    return RenderedFigure("deaths", title, alt, inline_svg(figure, "deaths", alt), table, NOTE)


def draw_deaths(axes: "Axes", members: Sequence[MemberRecord], last: float, title: str) -> "Axes":
    """Draw the cumulative share of constant units by step: red for members that fail, green for the others."""
    import seaborn

    for colour, style, chosen in (
        (USABLE, "-", [record for record in members if not record.failed]),
        (FAILED, "--", [record for record in members if record.failed]),
    ):
        steps = [step for record in chosen for step in record.died_at]
        if steps:
            # a unit that varies at the end would come after everything that is drawn
            values = np.array([-last, *(2 * last if step is None else step for step in steps)], dtype=float)
            weights = np.array([0.0] + [1.0] * len(steps))  # without weight: it only lets the curve begin at 0
            seaborn.ecdfplot(x=values, weights=weights, ax=axes, color=colour, linestyle=style, linewidth=1.6)
    axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlabel("")
    axes.set_ylabel("")
    axes.set_title(safe(shortened(title, 30)), loc="left", y=TITLE_HEIGHT, fontsize=11)
    return axes


def _last_step(record: MemberRecord) -> float:
    steps = record.history.array("step") if "step" in record.history else np.empty(0)
    return float(steps[-1]) if steps.size else 0.0


def _deaths(groups: Groups) -> list[list[str]]:
    rows = []
    for name, members in groups.items():
        steps = [step for record in members for step in record.died_at]
        later = [step for step in steps if step]
        middle = number(float(np.median(later))) if later else DASH
        rows.append([name, str(len(steps)), str(sum(step == 0 for step in steps)), str(len(later)), middle])
    return rows


NOTE = (
    "Red, dashed: members that fail; green: the others. Step 0 is the initialization, before any training. "
    "A unit is constant from the first snapshot since which it never varied, whether it always fires or never does."
)
