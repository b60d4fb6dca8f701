"""Effect of a level, an interaction or a contrast on one outcome, with its interval over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from harness.effects.matched_blocks import Array, MatchedBlock, block_differences, seed_means, worst_cases
from harness.effects.member_table import NOT_RUN, MemberTable
from harness.effects.outcomes import OUTCOMES, Outcome
from harness.effects.robust import robust_summary
from harness.effects.seed_intervals import Interval, agree, detectable_effect, mean_interval
from harness.effects.sign_flip import flip_method, sign_flip_p

CONFIRMING_SEEDS = 8
SIGNIFICANT = 0.05
NAN = math.nan


@dataclass(frozen=True)
class EffectSpec:
    """The two sides of a comparison: pairs of factors and levels for an interaction, partial cells for a contrast."""

    kind: str
    factor: str
    level: Any
    baseline: Any


@dataclass(frozen=True)
class Effect:
    """A comparison and its result.

    Args:
        kind: "level", "interaction" or "contrast".
        factor, level, baseline: the level is compared with the baseline of this factor.
        outcome: collapsed, live_fraction, r2 or r2_not_collapsed.
        estimate: mean over seeds of the per-seed mean difference, level minus baseline; from -1 to 1 for shares (twice
            that for interactions); NaN where no block is complete.
        low, high: 95 % interval over seeds. interval: its method.
        p: exact sign flip of whole seeds. p_adjusted: Benjamini-Hochberg over the experiment's family. test: the method.
        seeds: number of seeds with a difference. seeds_up, seeds_down, seeds_equal: the same by direction.
        blocks: number of complete blocks (matched variants x seeds). discordant: blocks with a difference. Both are
            description only: the blocks of one seed share an initialization and are not independent evidence.
        pairs: number of matched sets of variants. pairs_refused: sets in which a variant failed on every seed.
        deviation: standard deviation of the per-seed differences. detectable: true effect found in 4 of 5 repetitions.
        diverged, failed, unjudged, not_run: number of members of the blocks without an outcome.
        worst_low, worst_high: the estimate if these members (except those not run) had the worst or the best outcome.
        iqm, iqm_low, iqm_high: interquartile mean of the per-seed differences, from 20 seeds on. robust: its method, or
            the reason for its absence.
        confirmed: at least 8 seeds, adjusted p at most 0.05, and an interval without 0.
        differences: difference of every seed, None where a seed has none.
        note: a caveat in words.
    """

    kind: str
    factor: str
    level: Any
    baseline: Any
    outcome: str
    estimate: float = NAN
    low: float = NAN
    high: float = NAN
    interval: str = ""
    p: float = NAN
    p_adjusted: float = NAN
    test: str = ""
    seeds: int = 0
    seeds_up: int = 0
    seeds_down: int = 0
    seeds_equal: int = 0
    blocks: int = 0
    discordant: int = 0
    pairs: int = 0
    pairs_refused: int = 0
    deviation: float = NAN
    detectable: float = NAN
    diverged: int = 0
    failed: int = 0
    unjudged: int = 0
    not_run: int = 0
    worst_low: float = NAN
    worst_high: float = NAN
    iqm: float = NAN
    iqm_low: float = NAN
    iqm_high: float = NAN
    robust: str = ""
    confirmed: bool = False
    differences: tuple[float | None, ...] = ()
    note: str = ""

    @property
    def estimable(self) -> bool:
        """True where any block is complete."""
        return math.isfinite(self.estimate)

    @property
    def improves(self) -> bool:
        """True where the estimate points to the better side."""
        return self.estimate * OUTCOMES[self.outcome].better > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON under the names of the attributes; non-finite numbers become None."""
        return {attribute.name: _plain(getattr(self, attribute.name)) for attribute in fields(self)}


def measure_effect(table: MemberTable, spec: EffectSpec, outcome: Outcome, blocks: Sequence[MatchedBlock]) -> Effect:
    """Estimate the effect on one outcome over the complete blocks; p is adjusted later, with its family."""
    usable = [block for block in blocks if not table.refused[list(block.variants)].any()]
    differences = block_differences(usable, table.values[outcome.name])
    per_seed = seed_means(differences)
    finite = per_seed[np.isfinite(per_seed)]
    counts = _missing(table, usable)
    described = {
        **vars(spec),
        "outcome": outcome.name,
        **counts,
        "pairs": len(blocks),
        "pairs_refused": len(blocks) - len(usable),
        "note": _note(blocks, usable, differences, finite, counts),
    }
    if not finite.size:
        return Effect(**described)
    return Effect(**described, **_estimated(table, outcome, usable, differences, per_seed))


def is_confirmed(effect: Effect) -> bool:
    """True with at least 8 seeds, adjusted p at most 0.05, and an interval without 0."""
    apart = effect.low > 0 or effect.high < 0
    return effect.seeds >= CONFIRMING_SEEDS and effect.p_adjusted <= SIGNIFICANT and apart


def _estimated(
    table: MemberTable, outcome: Outcome, usable: Sequence[MatchedBlock], differences: Array, per_seed: Array
) -> dict[str, Any]:
    finite = per_seed[np.isfinite(per_seed)]
    reach = sum(weight for weight in usable[0].weights if weight > 0)
    interval = mean_interval(finite, (-reach, reach) if outcome.bounded else None)
    spread = float(finite.std(ddof=1)) if finite.size > 1 and not agree(finite) else (0.0 if finite.size > 1 else NAN)
    middle, robust = _robust(table, outcome, usable, finite)
    worst = worst_cases(usable, table.values[outcome.name], _lost(table)) if outcome.bounded else (NAN, NAN)
    directions = np.where(np.abs(finite) < 1e-12, 0, np.sign(finite))
    complete = differences[np.isfinite(differences)]
    return {
        "estimate": float(finite.mean()),
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "p": sign_flip_p(finite),
        "test": flip_method(finite.size),
        "seeds": int(finite.size),
        "seeds_up": int((directions > 0).sum()),
        "seeds_down": int((directions < 0).sum()),
        "seeds_equal": int((directions == 0).sum()),
        "blocks": int(complete.size),
        "discordant": int((np.abs(complete) > 1e-12).sum()),
        "deviation": spread,
        "detectable": detectable_effect(spread, finite.size),
        "worst_low": worst[0],
        "worst_high": worst[1],
        "iqm": middle,
        "iqm_low": robust.low,
        "iqm_high": robust.high,
        "robust": robust.method,
        "differences": tuple(float(difference) if math.isfinite(difference) else None for difference in per_seed),
    }


def _robust(
    table: MemberTable, outcome: Outcome, usable: Sequence[MatchedBlock], finite: Array
) -> tuple[float, Interval]:
    if outcome.bounded:
        return NAN, Interval(NAN, NAN, "not used for shares: they are bimodal")
    chosen = sorted({variant for block in usable for variant in block.variants})
    categories = table.categories[chosen]
    mixed = outcome.name == "r2" and bool((categories == "collapsed").any() and (categories == "not collapsed").any())
    return robust_summary(finite, mixed)


def _lost(table: MemberTable) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Members that ran and have no verdict."""
    return ~np.isin(table.categories, ["collapsed", "not collapsed", NOT_RUN])


def _missing(table: MemberTable, usable: Sequence[MatchedBlock]) -> dict[str, int]:
    chosen = sorted({variant for block in usable for variant in block.variants})
    categories = table.categories[chosen]
    return {
        "diverged": int((categories == "diverged").sum()),
        "failed": int((categories == "failed").sum()),
        "unjudged": int(np.isin(categories, ["invalid", "not_testable"]).sum()),
        "not_run": int((categories == NOT_RUN).sum()),
    }


def _note(
    blocks: Sequence[MatchedBlock],
    usable: Sequence[MatchedBlock],
    differences: Array,
    finite: Array,
    counts: dict[str, int],
) -> str:
    if not blocks:
        return "not estimable: no two variants differ in this alone; declare a contrast"
    if not usable:
        return "not estimable: in every matched pair a variant failed on all of its seeds"
    if not finite.size:
        return "not estimable: no matched members have this outcome"
    notes = [] if finite.size > 1 else ["one seed: no interval"]
    if finite.size > 1 and agree(finite):
        notes.append(f"equal in all {finite.size} seeds")
    if finite.size > 2 and np.abs(finite).max() > np.abs(finite).sum() / 2:
        notes.append("one seed contributes more than half of the estimate")
    if np.ptp(np.isfinite(differences).sum(axis=0)) and sum(counts.values()):
        notes.append("members are missing, so seeds average different numbers of blocks")
    return "; ".join(notes)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
