"""Forest plot of the effects, with intervals and every seed."""

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
    """Forest plot of every estimable effect on one outcome; None where there is none."""
    shown_effects = [effect for effect in effects if effect.outcome == outcome and effect.estimable][:MOST_ROWS]
    if not shown_effects:
        return None
    figure, (axes,) = sheet((420, ROW * len(shown_effects)), margins=Margins(left=12, right=12, top=6, bottom=42))
    draw_forest(axes, shown_effects)
    title, alt = _claim(shown_effects, outcome), _alt(shown_effects, outcome)
    name = f"{name}-{outcome.replace('_', '-')}"
    left_out = sum(effect.outcome == outcome for effect in effects) - len(shown_effects)
    return RenderedFigure(name, title, alt, inline_svg(figure, name, alt), _table(shown_effects, left_out))


def draw_forest(axes: "Axes", effects: Sequence[Effect]) -> "Axes":
    """Draw one row per effect, label above interval: estimate, 95 % interval, and each seed as a small mark."""
    for row, effect in enumerate(effects):
        _draw_row(axes, len(effects) - 1 - row, effect)
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
    seeds = [difference for difference in effect.differences if difference is not None]
    axes.plot(seeds, [y - 0.25] * len(seeds), "|", color=INK, alpha=0.55, markersize=6, markeredgewidth=1)
    if math.isfinite(effect.low) and math.isfinite(effect.high):
        axes.plot([effect.low, effect.high], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
    face = colour if effect.confirmed else "none"
    axes.plot([effect.estimate], [y], marker, color=colour, markersize=8, markerfacecolor=face, markeredgewidth=2)
    axes.text(0, y + 0.17, safe(label(effect, 62)), transform=axes.get_yaxis_transform(), va="bottom", fontsize=10)


def label(effect: Effect, length: int = 200) -> str:
    """Name of the comparison."""
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
    confirmed = sum(effect.confirmed for effect in effects)
    title = OUTCOMES[outcome].title
    subject = plural(confirmed, "effect") if confirmed else "No effect"
    return f"{subject} on {title} confirmed, of {len(effects)} estimated"


def _alt(effects: Sequence[Effect], outcome: str) -> str:
    parts = [
        f"{label(effect)} {number(effect.estimate, 2)} {bounds(effect.low, effect.high)}" for effect in effects[:6]
    ]
    remainder = f", and {len(effects) - 6} more in the table" if len(effects) > 6 else ""
    return f"Forest plot of the change of {OUTCOMES[outcome].title}: {'; '.join(parts)}{remainder}."


def _table(effects: Sequence[Effect], left_out: int) -> Table:
    header = ["compared", "change", "95 % interval", "p", "adjusted p", "seeds", "up / down / equal", "blocks (differ)"]
    rows = [
        [
            label(effect),
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
    return Table(header, rows, left_out=left_out)
