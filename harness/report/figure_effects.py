"""Forest plot of the effects: one row per comparison, one panel per outcome, with intervals and every seed."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from harness.effects import Effect
from harness.effects.outcomes import OUTCOMES, Outcome
from harness.report.format import DASH, bounds, number, probability, shortened
from harness.report.style import INK
from harness.report.svg import RASTER_FROM, TITLE_HEIGHT, Margins, RenderedFigure, Table, inline_svg, safe, sheet
from harness.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BETTER, WORSE, OPEN = "#1a9a6c", "#d1495b", "#85898f"
ROW = 26
PANEL_WIDTH = 128
MOST_ROWS = 40
LONGEST_LABEL = 32
MARGINS = Margins(left=204, right=10, top=26, bottom=58, between=14)
Rows = dict[str, dict[str, Effect]]


def forest(
    effects: Sequence[Effect], name: str = "forest", outcomes: Sequence[str] = tuple(OUTCOMES)
) -> RenderedFigure | None:
    """Forest plot of all estimable effects, with one panel per outcome; None where there is none.

    Args:
        effects: comparisons on any of the outcomes. name: identifier of the figure. outcomes: the panels, in order.
    """
    chosen = [effect for effect in effects if effect.outcome in outcomes and effect.estimable]
    rows = _rows(chosen)
    if not rows:
        return None
    panels = [OUTCOMES[outcome] for outcome in outcomes if any(outcome in row for row in rows.values())]
    svg = inline_svg(_drawn(rows, panels, chosen[0].kind), name, alt := _alt(rows, panels))
    table = _table([row[panel.name] for panel in panels for row in rows.values() if panel.name in row])
    left_out = sum(effect.outcome in outcomes for effect in effects) - len(table.rows)
    return RenderedFigure(
        name, _claim(rows, panels), alt, svg, Table(table.header, table.rows, left_out=left_out), wide=True
    )


def _rows(effects: Sequence[Effect]) -> Rows:
    """Comparison -> outcome -> effect, at most 40 comparisons."""
    rows: Rows = {}
    for effect in effects:
        rows.setdefault(label(effect), {})[effect.outcome] = effect
    return dict(list(rows.items())[:MOST_ROWS])


def _drawn(rows: Rows, panels: Sequence[Outcome], kind: str) -> "Figure":
    figure, axes = sheet((PANEL_WIDTH, ROW * len(rows)), len(panels), len(panels), MARGINS)
    for panel, outcome in zip(axes, panels, strict=True):
        draw_forest(panel, [row.get(outcome.name) for row in rows.values()], outcome)
    effects = [next(iter(row.values())) for row in rows.values()]
    labels = [safe(shortened(_short_label(effect), LONGEST_LABEL)) for effect in effects]
    axes[0].set_yticks(range(len(rows)), labels)
    against = "first experiment" if kind == "comparison" else "baseline"
    axes[0].text(-0.04, 1.0, f"against the {against}", transform=axes[0].transAxes, ha="right", va="bottom", fontsize=9)
    return figure


def draw_forest(axes: "Axes", effects: Sequence[Effect | None], outcome: Outcome) -> "Axes":
    """Draw one row per effect: estimate, 95 % interval, and every seed; a row without an effect stays empty."""
    axes.axvline(0, color=INK, linewidth=1)
    _draw_seeds(axes, effects)
    for row, effect in enumerate(effects):
        if effect is not None:
            _draw_estimate(axes, row, effect)
    axes.set_ylim(len(effects) - 0.4, -0.6)
    axes.set_yticks(range(len(effects)), [""] * len(effects))
    axes.locator_params(axis="x", nbins=3)
    axes.grid(False, axis="y")
    axes.set_title(safe(outcome.title), loc="left", y=TITLE_HEIGHT, fontsize=10)
    better = "better →" if outcome.better > 0 else "← better"
    axes.set_xlabel(f"change\n{better}", loc="right" if outcome.better > 0 else "left")
    axes.set_ylabel("")
    return axes


def _draw_seeds(axes: "Axes", effects: Sequence[Effect | None]) -> None:
    """Draw the difference of every seed below its estimate."""
    import seaborn

    points = [
        (difference, row)
        for row, effect in enumerate(effects)
        if effect is not None
        for difference in effect.differences
        if difference is not None
    ]
    if points:
        values, rows = zip(*points, strict=True)
        look = {"color": INK, "alpha": 0.35, "size": 2.6, "jitter": 0.22, "linewidth": 0}
        before = len(axes.collections)
        with _same_jitter():
            # at their numbers and not at categories: a row without seeds keeps its height
            seaborn.stripplot(x=values, y=rows, orient="h", native_scale=True, ax=axes, legend=False, **look)
        for points_of_row in axes.collections[before:]:
            points_of_row.set_rasterized(len(values) > RASTER_FROM)


@contextmanager
def _same_jitter() -> Iterator[None]:
    """Seed NumPy's global generator, from which seaborn draws the jitter, and restore its state afterwards."""
    state = np.random.get_state()  # noqa: NPY002 - the generator that seaborn uses
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _draw_estimate(axes: "Axes", row: int, effect: Effect) -> None:
    colour, marker = _look(effect)
    if math.isfinite(effect.low) and math.isfinite(effect.high):
        axes.plot([effect.low, effect.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
    face = colour if effect.confirmed else "none"
    axes.plot([effect.estimate], [row], marker, color=colour, markersize=6.5, markerfacecolor=face, markeredgewidth=1.6)


def label(effect: Effect, length: int = 200) -> str:
    """Name of the comparison."""
    if effect.kind == "comparison":
        return shortened(effect.factor, length)
    if effect.kind == "contrast":
        return shortened(f"{effect.level} against {effect.baseline}", length)
    return shortened(f"{effect.factor}: {effect.level} against {effect.baseline}", length)


def _short_label(effect: Effect) -> str:
    """Name of the comparison beside its row, where the head of the column names the baseline."""
    return f"{effect.factor}: {effect.level}" if effect.kind == "level" else label(effect)


def _look(effect: Effect) -> tuple[str, str]:
    if not effect.confirmed:
        return OPEN, "o"
    return (BETTER, "s") if effect.improves else (WORSE, "D")


def _claim(rows: Rows, panels: Sequence[Outcome]) -> str:
    counts = [
        f"{sum(row[panel.name].confirmed for row in rows.values() if panel.name in row)} on {panel.title}"
        for panel in panels
    ]
    return f"Confirmed effects of {plural(len(rows), 'comparison')}: {', '.join(counts)}"


def _alt(rows: Rows, panels: Sequence[Outcome]) -> str:
    first = panels[0]
    effects = [row[first.name] for row in rows.values() if first.name in row]
    parts = [
        f"{label(effect)} {number(effect.estimate, 2)} {bounds(effect.low, effect.high)}" for effect in effects[:6]
    ]
    remainder = f", and {len(effects) - 6} more in the table" if len(effects) > 6 else ""
    names = ", ".join(panel.title for panel in panels)
    return f"Forest plot with one panel each for {names}. Change of {first.title}: {'; '.join(parts)}{remainder}."


def _table(effects: Sequence[Effect]) -> Table:
    header = ["compared", "outcome", "change", "95 % interval", "p", "adjusted p", "seeds", "up / down / equal"]
    header.append("seeds (with a difference)")
    rows = [
        [
            label(effect),
            OUTCOMES[effect.outcome].title,
            number(effect.estimate),
            bounds(effect.low, effect.high, 3) or effect.interval or DASH,
            probability(effect.p),
            probability(effect.p_adjusted),
            f"{effect.seeds}{', confirmed' if effect.confirmed else ''}",
            f"{effect.seeds_up} / {effect.seeds_down} / {effect.seeds_equal}",
            f"{effect.blocks} ({effect.discordant})",
        ]
        for effect in effects
    ]
    return Table(header, rows)
