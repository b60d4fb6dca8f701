"""The effects averaged over the other factors, in words: they come second, after each remedy alone.

Nothing is called effective unless it is confirmed, and nothing is called without effect: what is not confirmed is given
with its interval.
"""

import math
from collections.abc import Sequence

from harness.effects.analysis import Effects
from harness.effects.cells import Cell
from harness.effects.effect import CONFIRMING_SEEDS, Effect
from harness.grid.factorial import changes

SHOWN = 4
NO_RECONSTRUCTION = "What else: no reconstruction was judged, so it is unknown whether the code is useful."


def averaged_lines(effects: Effects) -> list[str]:
    """Lines on the averaged effects: what reduces collapse, what worsens it or is not confirmed, R2, and the scope.

    Empty where no effect averages over variants, since then each remedy alone says the same.
    """
    if is_one_at_a_time(effects):
        return []
    levels = sorted(
        (effect for effect in effects.of("collapsed") if effect.estimable), key=lambda effect: effect.estimate
    )
    confirmed = [effect for effect in levels if effect.confirmed]
    return [
        _how_common(effects),
        _reduces(levels, confirmed, effects.design.seeds),
        _others(levels, confirmed, effects),
        _what_else(effects),
        effects.scope,
    ]


def phrase(effect: Effect) -> str:
    """Effect in words and numbers.

    >>> phrase(Effect("level", "batchnorm", "on", "off", "collapsed", -0.5, -0.6, -0.4, p_adjusted=0.002, seeds=10))
    'batchnorm on (against off) -50 points [-60, -40], adjusted p 0.002, 10 seeds'
    """
    unit = 100 if effect.outcome in ("collapsed", "live_fraction") else 1
    form = _form(unit * effect.estimate) if unit == 100 else "+.2f"
    bounds = f"[{_signed(effect.low * unit, form)}, {_signed(effect.high * unit, form)}]"
    if not effect.low < effect.high:
        bounds = f"({effect.interval})"
    points = " points" if unit == 100 else ""
    sure = f"adjusted p {_p(effect.p_adjusted)}, {effect.seeds} seeds"
    return (
        f"{_named(effect)} {_signed(effect.estimate * unit, form)}{points} {bounds}, {sure}{_doubt(effect, unit, form)}"
    )


def is_one_at_a_time(effects: Effects) -> bool:
    """True where every level stands in one variant beside the baseline, so that no effect averages over variants."""
    return len(effects.cells) > 1 and all(effect.pairs <= 1 for effect in effects.of("collapsed"))


def _baseline_cell(effects: Effects) -> Cell | None:
    return next((cell for cell in effects.cells if not changes(cell.levels, effects.baseline)), None)


def _how_common(effects: Effects) -> str:
    judged = sum(cell.judged for cell in effects.cells)
    collapsed = sum(cell.collapsed for cell in effects.cells)
    missing = _lost(effects)
    base = _baseline_cell(effects)
    if not judged:
        return f"How often: not estimable, no member has a verdict{missing}."
    text = f"How often: {collapsed} of {judged} judged members collapsed{missing}"
    if base is None or not base.judged:
        return f"{text}; the baseline itself was not judged.{_of_no_use(effects)}"
    share = f"{base.collapsed} of {base.judged} seeds, 95 % interval {base.low:.2f} to {base.high:.2f}"
    return f"{text}; of the baseline ({base.variant}) {share}.{_of_no_use(effects)}"


def _of_no_use(effects: Effects) -> str:
    """Members that did not collapse and reconstruct no better than the mean."""
    living = [outcome for cell in effects.cells for outcome in cell.outcomes if outcome["category"] == "not collapsed"]
    idle = sum(bool(outcome["output_fault"]) for outcome in living)
    return f" Not collapsed but useless: {idle} of {len(living)} reconstruct no better than the mean." if idle else ""


def _reduces(levels: Sequence[Effect], confirmed: Sequence[Effect], seeds: int) -> str:
    helps = [effect for effect in confirmed if effect.estimate < 0]
    if helps:
        averaged = ", averaged over the other factors" if any(effect.pairs > 1 for effect in levels) else ""
        return f"Reduces collapse (share collapsed{averaged}): {_listed(helps)}."
    if not levels:
        return "Reduces collapse: nothing can be said, no level has a matched baseline with verdicts."
    best, limit = levels[0], _nothing_confirmed(seeds)
    if best.estimate >= 0:
        return f"Reduces collapse: no level did in these seeds ({limit})."
    return f"Reduces collapse: {limit}; the largest reduction seen is {phrase(best)}."


def _nothing_confirmed(seeds: int) -> str:
    return (
        f"fewer than {CONFIRMING_SEEDS} seeds confirm nothing" if seeds < CONFIRMING_SEEDS else "nothing is confirmed"
    )


def _others(levels: Sequence[Effect], confirmed: Sequence[Effect], effects: Effects) -> str:
    worse = [effect for effect in reversed(confirmed) if effect.estimate > 0]
    open_ones = [effect for effect in levels if not effect.confirmed]
    parts = [f"Worsens it: {_listed(worse)}" if worse else "Worsens it: nothing confirmed"]
    if open_ones:
        listed = ", ".join(
            _brief(effect) for effect in sorted(open_ones, key=lambda effect: abs(effect.estimate), reverse=True)[:6]
        )
        remainder = f" and {len(open_ones) - 6} more" if len(open_ones) > 6 else ""
        parts.append(f"inconclusive (95 % intervals, percentage points): {listed}{remainder}")
    crossed = [effect for effect in effects.interactions if effect.outcome == "collapsed" and effect.confirmed]
    if crossed:
        parts.append(
            f"effects that depend on each other: {', '.join(dict.fromkeys(effect.factor for effect in crossed))}"
        )
    not_estimable = [f"{effect.factor} {effect.level}" for effect in effects.of("collapsed") if not effect.estimable]
    if not_estimable:
        parts.append(f"not estimable: {', '.join(dict.fromkeys(not_estimable))}")
    return "; ".join(parts) + "."


def _what_else(effects: Effects) -> str:
    fits = [effect for effect in effects.of("r2") if effect.estimable]
    confirmed = sorted((effect for effect in fits if effect.confirmed), key=lambda effect: -abs(effect.estimate))
    if confirmed:
        return f"What else: {_live(effects)}R2 of the reconstruction: {_listed(confirmed)}."
    if not fits:
        return NO_RECONSTRUCTION
    largest = max(fits, key=lambda effect: abs(effect.estimate))
    return f"What else: {_live(effects)}R2 of the reconstruction: no confirmed change; the largest seen is {phrase(largest)}."


def _live(effects: Effects) -> str:
    """Confirmed effects on the share of live units, which differs also where full collapse is rare."""
    confirmed = [effect for effect in effects.of("live_fraction") if effect.estimable and effect.confirmed]
    ordered = sorted(confirmed, key=lambda effect: -abs(effect.estimate))
    return f"share of live units: {_listed(ordered)}. " if ordered else ""


def _lost(effects: Effects) -> str:
    counts: dict[str, int] = {}
    for cell in effects.cells:
        for category, count in cell.counts.items():
            counts[category] = counts.get(category, 0) + count
    missing = [
        f"{count} {category}" for category, count in counts.items() if category not in ("collapsed", "not collapsed")
    ]
    return f" (another {', '.join(missing)})" if missing else ""


def _listed(effects: Sequence[Effect]) -> str:
    remainder = f"; and {len(effects) - SHOWN} more" if len(effects) > SHOWN else ""
    return "; ".join(phrase(effect) for effect in effects[:SHOWN]) + remainder


def _brief(effect: Effect) -> str:
    return f"{_named(effect)} {_interval(effect)}"


def _interval(effect: Effect) -> str:
    """The 95 % interval of a share, in points."""
    if not effect.low < effect.high:
        return effect.interval
    form = _form(100 * max(abs(effect.low), abs(effect.high)))
    return f"{_signed(100 * effect.low, form)} to {_signed(100 * effect.high, form)}"


def _doubt(effect: Effect, unit: float, form: str) -> str:
    """Worst case of the effect, where members have no verdict."""
    unjudged = effect.diverged + effect.failed + effect.unjudged
    worst = f"{_signed(effect.worst_low * unit, form)} to {_signed(effect.worst_high * unit, form)}"
    return f", with {unjudged} members lost: {worst} at worst" if unjudged and math.isfinite(effect.worst_low) else ""


def _form(points: float) -> str:
    """Format of percentage points: a decimal below 10."""
    return "+.0f" if abs(points) >= 9.5 else "+.1f"


def _named(effect: Effect) -> str:
    return f"{effect.factor} {effect.level} (against {effect.baseline})"


def _signed(value: float, form: str) -> str:
    text = format(value, form)
    return "0" if set(text) <= set("+-0.") else text


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    return f"{value:.2g}" if value < 1 else "1"
