"""The experiment's question, answered in five lines: what reduces collapse, what does not, what worsens it, what else.

Nothing is said to work unless it is confirmed, and nothing is said to have no effect: what was not shown is said with
the interval that is left.
"""

import math
from collections.abc import Sequence

from harness.effects.analysis import Effects
from harness.effects.cells import Cell
from harness.effects.effect import CONFIRMING_SEEDS, Effect
from harness.grid.factorial import changes

SHOWN = 4
NO_RECONSTRUCTION = "What else: no reconstruction was judged, so whether a live code is of use is not known."


def summarize(effects: Effects) -> list[str]:
    """Five lines: how common collapse is, what reduces it, what worsens it or was not shown, what else, the scope.

    Where each variant is the baseline with something changed, and nothing is averaged, each is named against the
    baseline itself.
    """
    base = _baseline_cell(effects)
    if base is not None and base.judged and is_one_at_a_time(effects):
        return [_baseline_alone(effects, base), *_changes_alone(effects, base), effects.scope]
    found = sorted((each for each in effects.of("collapsed") if each.estimable), key=lambda each: each.estimate)
    confirmed = [each for each in found if each.confirmed]
    return [
        _how_common(effects),
        _reduces(found, confirmed, effects.design.seeds),
        _others(found, confirmed, effects),
        _what_else(effects),
        effects.scope,
    ]


def phrase(effect: Effect) -> str:
    """An effect in words and numbers.

    >>> phrase(Effect("level", "batchnorm", "on", "off", "collapsed", -0.5, -0.6, -0.4, p_adjusted=0.002, seeds=10))
    'batchnorm on (against off) -50 points [-60, -40], adjusted p .002, 10 seeds'
    """
    unit = 100 if effect.outcome in ("collapsed", "live_fraction") else 1
    form = _form(unit * effect.estimate) if unit == 100 else "+.2f"
    bounds = f"[{_signed(effect.low * unit, form)}, {_signed(effect.high * unit, form)}]"
    if not math.isfinite(effect.low):
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


def _baseline_alone(effects: Effects, base: Cell) -> str:
    others = len(effects.cells) - 1
    rest = "the other variant is" if others == 1 else f"each of the other {others} variants is"
    return (
        f"How often: {base.collapsed} of {base.judged} seeds of the baseline ({base.variant}) collapsed, 95 % interval "
        f"{base.low:.2f} to {base.high:.2f}; {rest} the baseline but for the change that is named"
        f"{_lost(effects)}.{_of_no_use(effects)}"
    )


def _changes_alone(effects: Effects, base: Cell) -> list[str]:
    """The changes that reduce collapse, those that worsen it or were not shown, and the R2, against the baseline."""
    pairs = _single_changes(effects, base, "collapsed")
    pairs.sort(key=lambda pair: pair[1].estimate if pair[1] else 0.0)
    tested = [(cell, effect) for cell, effect in pairs if effect is not None]
    fewer = [_alone(base, cell, effect) for cell, effect in tested if effect.confirmed and effect.estimate < 0]
    more = [_alone(base, cell, effect) for cell, effect in tested if effect.confirmed and effect.estimate > 0]
    unsure = [_alone(base, cell, effect) for cell, effect in tested if not effect.confirmed]
    untested = [_alone(base, cell, None) for cell, effect in pairs if effect is None]
    nothing = _nothing_confirmed(effects.design.seeds)
    reduced = "; ".join(fewer) or (nothing if base.collapsed else "the baseline collapsed in no seed")
    parts = [f"Worsens it: {'; '.join(more) or nothing}"]
    parts += [f"not shown either way (95 % intervals in points): {'; '.join(unsure)}"] if unsure else []
    parts += [f"not tested: {'; '.join(untested)}"] if untested else []
    return [f"Reduces collapse: {reduced}.", f"{'; '.join(parts)}.", _fits_alone(effects, base)]


def _single_changes(effects: Effects, base: Cell, outcome: str) -> list[tuple[Cell, Effect | None]]:
    """Every variant but the baseline, with the effect of the level that it changes; None if it changes more, or was lost."""
    by_level = {(effect.factor, effect.level): effect for effect in effects.of(outcome) if effect.estimable}
    changed = [(cell, list(changes(cell.levels, base.levels).items())) for cell in effects.cells if cell is not base]
    return [(cell, by_level.get(levels[0]) if len(levels) == 1 else None) for cell, levels in changed]


def _alone(base: Cell, cell: Cell, effect: Effect | None) -> str:
    """One change: the seeds that collapsed without it and with it, and how sure that is."""
    name = ", ".join(f"{factor} {level}" for factor, level in changes(cell.levels, base.levels).items())
    counts = f"{name}: {base.collapsed} of {base.judged} -> {cell.collapsed} of {cell.judged}"
    if effect is None:
        return counts
    if effect.confirmed:
        return f"{counts} (adjusted p {_p(effect.p_adjusted)}{_doubt(effect, 100, _form(100 * effect.estimate))})"
    return f"{counts} ({_interval(effect)})"


def _fits_alone(effects: Effects, base: Cell) -> str:
    """The R2 without and with each change: a live code is not yet a good one."""
    tested = [(cell, effect) for cell, effect in _single_changes(effects, base, "r2") if effect is not None]
    if not tested:
        return NO_RECONSTRUCTION
    sure = [(_mean_r2(cell), effect) for cell, effect in tested if effect.confirmed]
    sure.sort(key=lambda pair: -pair[0])
    confirmed = [f"{effect.factor} {effect.level} {mean:.2f}" for mean, effect in sure]
    others = "no other change is confirmed" if confirmed else "no change is confirmed"
    return (
        f"What else: R2 of the reconstruction, {_mean_r2(base):.2f} at the baseline: {'; '.join([*confirmed, others])}."
    )


def _mean_r2(cell: Cell) -> float:
    fits = [outcome["r2"] for outcome in cell.outcomes if outcome["r2"] is not None]
    return sum(fits) / len(fits) if fits else math.nan


def _how_common(effects: Effects) -> str:
    judged = sum(cell.judged for cell in effects.cells)
    collapsed = sum(cell.collapsed for cell in effects.cells)
    lost = _lost(effects)
    base = _baseline_cell(effects)
    if not judged:
        return f"How often: not estimable, no member has a verdict{lost}."
    text = f"How often: {collapsed} of {judged} judged members collapsed{lost}"
    if base is None or not base.judged:
        return f"{text}; the baseline itself was not judged.{_of_no_use(effects)}"
    share = f"{base.collapsed} of {base.judged} seeds, 95 % interval {base.low:.2f} to {base.high:.2f}"
    return f"{text}; of the baseline ({base.variant}) {share}.{_of_no_use(effects)}"


def _of_no_use(effects: Effects) -> str:
    """A code that is not collapsed, and of which the decoder makes nothing: as bad, and counted nowhere else."""
    living = [each for cell in effects.cells for each in cell.outcomes if each["category"] == "not collapsed"]
    idle = sum(bool(each["output_fault"]) for each in living)
    where = f"in {idle} of the {len(living)} that did not collapse"
    return f" Of no use: {where} the reconstruction is no better than the mean of the rows." if idle else ""


def _reduces(found: Sequence[Effect], confirmed: Sequence[Effect], seeds: int) -> str:
    helps = [each for each in confirmed if each.estimate < 0]
    if helps:
        averaged = ", averaged over the other factors" if any(effect.pairs > 1 for effect in found) else ""
        return f"Reduces collapse (share collapsed{averaged}): {_listed(helps)}."
    if not found:
        return "Reduces collapse: nothing can be said, no level has a matched baseline with verdicts."
    best, limit = found[0], _nothing_confirmed(seeds)
    if best.estimate >= 0:
        return f"Reduces collapse: no level did in these seeds ({limit})."
    return f"Reduces collapse: {limit}; the largest reduction seen is {phrase(best)}."


def _nothing_confirmed(seeds: int) -> str:
    return (
        f"fewer than {CONFIRMING_SEEDS} seeds confirm nothing" if seeds < CONFIRMING_SEEDS else "nothing is confirmed"
    )


def _others(found: Sequence[Effect], confirmed: Sequence[Effect], effects: Effects) -> str:
    worse = [each for each in reversed(confirmed) if each.estimate > 0]
    open_ones = [each for each in found if not each.confirmed]
    parts = [f"Worsens it: {_listed(worse)}" if worse else "Worsens it: nothing confirmed"]
    if open_ones:
        shown = ", ".join(
            _brief(each) for each in sorted(open_ones, key=lambda each: abs(each.estimate), reverse=True)[:6]
        )
        more = f" and {len(open_ones) - 6} more" if len(open_ones) > 6 else ""
        parts.append(f"not shown either way (95 % intervals in points): {shown}{more}")
    crossed = [each for each in effects.interactions if each.outcome == "collapsed" and each.confirmed]
    if crossed:
        parts.append(f"effects that depend on each other: {', '.join(dict.fromkeys(each.factor for each in crossed))}")
    lost = [f"{each.factor} {each.level}" for each in effects.of("collapsed") if not each.estimable]
    if lost:
        parts.append(f"not estimable: {', '.join(dict.fromkeys(lost))}")
    return "; ".join(parts) + "."


def _what_else(effects: Effects) -> str:
    fits = [each for each in effects.of("r2") if each.estimable]
    confirmed = sorted((each for each in fits if each.confirmed), key=lambda each: -abs(each.estimate))
    if confirmed:
        return f"What else: {_live(effects)}R2 of the reconstruction: {_listed(confirmed)}."
    if not fits:
        return NO_RECONSTRUCTION
    largest = max(fits, key=lambda each: abs(each.estimate))
    return f"What else: {_live(effects)}R2 of the reconstruction: no confirmed change; the largest seen is {phrase(largest)}."


def _live(effects: Effects) -> str:
    """Where whole collapse is rare, the share of units that stay live still tells the remedies apart."""
    confirmed = [each for each in effects.of("live_fraction") if each.estimable and each.confirmed]
    ordered = sorted(confirmed, key=lambda each: -abs(each.estimate))
    return f"share of live units: {_listed(ordered)}. " if ordered else ""


def _lost(effects: Effects) -> str:
    counts: dict[str, int] = {}
    for cell in effects.cells:
        for kind, count in cell.counts.items():
            counts[kind] = counts.get(kind, 0) + count
    said = [f"{count} {kind}" for kind, count in counts.items() if kind not in ("collapsed", "not collapsed")]
    return f" (beside them {', '.join(said)})" if said else ""


def _listed(effects: Sequence[Effect]) -> str:
    more = f"; and {len(effects) - SHOWN} more" if len(effects) > SHOWN else ""
    return "; ".join(phrase(each) for each in effects[:SHOWN]) + more


def _brief(effect: Effect) -> str:
    return f"{_named(effect)} {_interval(effect)}"


def _interval(effect: Effect) -> str:
    """The 95 % interval of a share, in points."""
    if not math.isfinite(effect.low):
        return effect.interval
    form = _form(100 * max(abs(effect.low), abs(effect.high)))
    return f"{_signed(100 * effect.low, form)} to {_signed(100 * effect.high, form)}"


def _doubt(effect: Effect, unit: float, form: str) -> str:
    """The effect at worst, where members of it left no verdict."""
    lost = effect.diverged + effect.failed + effect.unjudged
    worst = f"{_signed(effect.worst_low * unit, form)} to {_signed(effect.worst_high * unit, form)}"
    return f", with {lost} members lost: {worst} at worst" if lost and math.isfinite(effect.worst_low) else ""


def _form(points: float) -> str:
    """Whole points, and a decimal where they are few."""
    return "+.0f" if abs(points) >= 9.5 else "+.1f"


def _named(effect: Effect) -> str:
    return f"{effect.factor} {effect.level} (against {effect.baseline})"


def _signed(value: float, form: str) -> str:
    shown = format(value, form)
    return "0" if set(shown) <= set("+-0.") else shown


def _p(value: float) -> str:
    if not math.isfinite(value):
        return "not known"
    return f"{value:.2g}".replace("0.", ".", 1) if value < 1 else "1"
