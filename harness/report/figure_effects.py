"""The forest plot: what each level does, with its interval and every seed."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.effects import Effect
from harness.effects.outcomes import OUTCOMES
from harness.report.format import DASH, bounds, number, plural, probability, shortened
from harness.report.style import INK
from harness.report.svg import Margins, RenderedFigure, Table, inline_svg, safe, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BETTER, WORSE, OPEN = "#1a9a6c", "#d1495b", "#85898f"
ROW = 40
MOST_ROWS = 60


def forest(effects: Sequence[Effect], outcome: str, name: str = "forest") -> RenderedFigure | None:
    """Every estimable effect on one outcome; None where there is none."""
    found = [each for each in effects if each.outcome == outcome and each.estimable][:MOST_ROWS]
    if not found:
        return None
    figure, (axes,) = sheet((420, ROW * len(found)), margins=Margins(left=12, right=12, top=6, bottom=42))
    draw_forest(axes, found)
    title, alt = _claim(found, outcome), _alt(found, outcome)
    name = f"{name}-{outcome.replace('_', '-')}"
    left_out = sum(each.outcome == outcome for each in effects) - len(found)
    return RenderedFigure(name, title, alt, inline_svg(figure, name, alt), _table(found, left_out))


def draw_forest(axes: "Axes", effects: Sequence[Effect]) -> "Axes":
    """One row an effect, the label above its interval: estimate, 95 % interval, and each seed as a small mark."""
    for row, each in enumerate(effects):
        _draw_row(axes, len(effects) - 1 - row, each)
    axes.set_ylim(-0.45, len(effects) - 0.45)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(False, axis="y")
    against = "first experiment" if effects[0].kind == "comparison" else "baseline level"
    axes.set_xlabel(f"change of {OUTCOMES[effects[0].outcome].title} against the {against}")
    return axes


def _draw_row(axes: "Axes", y: float, effect: Effect) -> None:
    colour, marker = _look(effect)
    axes.plot([0, 0], [y - 0.4, y + 0.14], color=INK, linewidth=1)
    seeds = [each for each in effect.differences if each is not None]
    axes.plot(seeds, [y - 0.25] * len(seeds), "|", color=INK, alpha=0.55, markersize=6, markeredgewidth=1)
    if math.isfinite(effect.low) and math.isfinite(effect.high):
        axes.plot([effect.low, effect.high], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
    face = colour if effect.confirmed else "none"
    axes.plot([effect.estimate], [y], marker, color=colour, markersize=8, markerfacecolor=face, markeredgewidth=2)
    axes.text(0, y + 0.17, safe(label(effect, 62)), transform=axes.get_yaxis_transform(), va="bottom", fontsize=10)


def label(effect: Effect, length: int = 200) -> str:
    """What is compared."""
    if effect.kind == "comparison":
        return shortened(effect.factor, length)
    if effect.kind == "contrast":
        return shortened(f"{effect.level} against {effect.baseline}", length)
    return shortened(f"{effect.factor}: {effect.level} against {effect.baseline}", length)


def _look(effect: Effect) -> tuple[str, str]:
    if not effect.confirmed:
        return OPEN, "o"
    return (BETTER, "s") if effect.improves else (WORSE, "D")


def _claim(effects: Sequence[Effect], outcome: str) -> str:
    confirmed = sum(each.confirmed for each in effects)
    title = OUTCOMES[outcome].title
    said = plural(confirmed, "effect") if confirmed else "No effect"
    return f"{said} on {title} confirmed, of {len(effects)} estimated"


def _alt(effects: Sequence[Effect], outcome: str) -> str:
    parts = [f"{label(each)} {number(each.estimate, 2)} {bounds(each.low, each.high)}" for each in effects[:6]]
    more = f", and {len(effects) - 6} more in the table" if len(effects) > 6 else ""
    return f"Forest plot of the change of {OUTCOMES[outcome].title}: {'; '.join(parts)}{more}."


def _table(effects: Sequence[Effect], left_out: int) -> Table:
    header = ["compared", "change", "95 % interval", "p", "adjusted p", "seeds", "up / down / equal", "blocks (differ)"]
    rows = [
        [
            label(each),
            number(each.estimate),
            bounds(each.low, each.high, 3) or each.interval or DASH,
            probability(each.p),
            probability(each.p_adjusted),
            f"{each.seeds}{', confirmed' if each.confirmed else ''}",
            f"{each.seeds_up} / {each.seeds_down} / {each.seeds_equal}",
            f"{each.blocks} ({each.discordant})",
        ]
        for each in effects
    ]
    return Table(header, rows, left_out=left_out)
