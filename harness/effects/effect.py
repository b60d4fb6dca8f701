"""One effect: what a level, an interaction or a contrast does to one outcome, with its interval, over seeds."""

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
    """What is compared: for an interaction `factor` and levels are pairs, for a contrast they are partial cells."""

    kind: str
    factor: str
    level: Any
    baseline: Any


@dataclass(frozen=True)
class Effect:
    """What is compared, and what came of it.

    Args:
        kind: "level", "interaction" or "contrast".
        factor, level, baseline: level against baseline of this factor.
        outcome: collapsed, live_fraction, r2 or r2_not_collapsed.
        estimate: mean over seeds of the per-seed mean difference, level less baseline; for shares from -1 to 1 (twice
            that for interactions); NaN where no block is complete.
        low, high: 95 % interval over seeds. interval: how it was found.
        p: exact sign flip of whole seeds. p_adjusted: Benjamini-Hochberg over the experiment's family. test: how.
        seeds: that have a difference. seeds_up, seeds_down, seeds_equal: the direction of each seed's difference.
        blocks: complete blocks (matched variants x seeds). discordant: those with a difference. Description only: the
            blocks of one seed share an initialisation and are no independent evidence.
        pairs: matched sets of variants. pairs_refused: those of which a variant failed on every seed.
        deviation: standard deviation of the per-seed differences. detectable: true effect found in 4 of 5 repetitions.
        diverged, failed, unjudged, not_run: members of the blocks that have no outcome.
        worst_low, worst_high: the estimate if these (but for those not run) had had the worst or the best outcome.
        iqm, iqm_low, iqm_high: interquartile mean of the seeds' differences, from 20 seeds. robust: how, or why not.
        confirmed: at least 8 seeds, adjusted p at most .05, and an interval without 0.
        differences: every seed's difference, None where it has none.
        note: what the reader has to know.
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
        """Whether any block is complete."""
        return math.isfinite(self.estimate)

    @property
    def improves(self) -> bool:
        """Whether the estimate points to the better side."""
        return self.estimate * OUTCOMES[self.outcome].better > 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON under the names of the attributes; what is not finite becomes None."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


def measure_effect(
    table: MemberTable, question: EffectSpec, outcome: Outcome, blocks: Sequence[MatchedBlock]
) -> Effect:
    """The effect on one outcome over the blocks that are complete; p is adjusted later, with its family."""
    usable = [block for block in blocks if not table.refused[list(block.variants)].any()]
    differences = block_differences(usable, table.values[outcome.name])
    per_seed = seed_means(differences)
    known = per_seed[np.isfinite(per_seed)]
    counts = _missing(table, usable)
    described = {
        **vars(question),
        "outcome": outcome.name,
        **counts,
        "pairs": len(blocks),
        "pairs_refused": len(blocks) - len(usable),
        "note": _note(blocks, usable, differences, known, counts),
    }
    if not known.size:
        return Effect(**described)
    return Effect(**described, **_estimated(table, outcome, usable, differences, per_seed))


def is_confirmed(effect: Effect) -> bool:
    """At least 8 seeds, adjusted p at most .05, and an interval without 0."""
    apart = effect.low > 0 or effect.high < 0
    return effect.seeds >= CONFIRMING_SEEDS and effect.p_adjusted <= SIGNIFICANT and apart


def _estimated(
    table: MemberTable, outcome: Outcome, usable: Sequence[MatchedBlock], differences: Array, per_seed: Array
) -> dict[str, Any]:
    known = per_seed[np.isfinite(per_seed)]
    reach = sum(weight for weight in usable[0].weights if weight > 0)
    found = mean_interval(known, (-reach, reach) if outcome.bounded else None)
    spread = float(known.std(ddof=1)) if known.size > 1 and not agree(known) else (0.0 if known.size > 1 else NAN)
    middle, robust = _robust(table, outcome, usable, known)
    worst = worst_cases(usable, table.values[outcome.name], _lost(table)) if outcome.bounded else (NAN, NAN)
    directions = np.where(np.abs(known) < 1e-12, 0, np.sign(known))
    complete = differences[np.isfinite(differences)]
    return {
        "estimate": float(known.mean()),
        "low": found.low,
        "high": found.high,
        "interval": found.method,
        "p": sign_flip_p(known),
        "test": flip_method(known.size),
        "seeds": int(known.size),
        "seeds_up": int((directions > 0).sum()),
        "seeds_down": int((directions < 0).sum()),
        "seeds_equal": int((directions == 0).sum()),
        "blocks": int(complete.size),
        "discordant": int((np.abs(complete) > 1e-12).sum()),
        "deviation": spread,
        "detectable": detectable_effect(spread, known.size),
        "worst_low": worst[0],
        "worst_high": worst[1],
        "iqm": middle,
        "iqm_low": robust.low,
        "iqm_high": robust.high,
        "robust": robust.method,
        "differences": tuple(float(each) if math.isfinite(each) else None for each in per_seed),
    }


def _robust(
    table: MemberTable, outcome: Outcome, usable: Sequence[MatchedBlock], known: Array
) -> tuple[float, Interval]:
    if outcome.bounded:
        return NAN, Interval(NAN, NAN, "a share that piles up at its ends has two humps")
    chosen = sorted({variant for block in usable for variant in block.variants})
    kinds = table.categories[chosen]
    mixed = outcome.name == "r2" and bool((kinds == "collapsed").any() and (kinds == "not collapsed").any())
    return robust_summary(known, mixed)


def _lost(table: MemberTable) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Members that were tried and left no verdict."""
    return ~np.isin(table.categories, ["collapsed", "not collapsed", NOT_RUN])


def _missing(table: MemberTable, usable: Sequence[MatchedBlock]) -> dict[str, int]:
    chosen = sorted({variant for block in usable for variant in block.variants})
    kinds = table.categories[chosen]
    return {
        "diverged": int((kinds == "diverged").sum()),
        "failed": int((kinds == "failed").sum()),
        "unjudged": int(np.isin(kinds, ["invalid", "not_testable"]).sum()),
        "not_run": int((kinds == NOT_RUN).sum()),
    }


def _note(
    blocks: Sequence[MatchedBlock],
    usable: Sequence[MatchedBlock],
    differences: Array,
    known: Array,
    counts: dict[str, int],
) -> str:
    if not blocks:
        return "not estimable: no two variants differ in this alone; declare a contrast"
    if not usable:
        return "not estimable: in every matched pair a variant failed on all of its seeds"
    if not known.size:
        return "not estimable: no matched members have this outcome"
    notes = [] if known.size > 1 else ["one seed: a difference, without an interval"]
    if known.size > 1 and agree(known):
        notes.append(f"all {known.size} seeds have the same difference")
    if known.size > 2 and np.abs(known).max() > np.abs(known).sum() / 2:
        notes.append("one seed alone makes more than half of it")
    if np.ptp(np.isfinite(differences).sum(axis=0)) and sum(counts.values()):
        notes.append("seeds rest on different numbers of blocks, as members are missing")
    return "; ".join(notes)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
