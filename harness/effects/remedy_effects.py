"""Effect of each remedy alone against the baseline: failed seeds before and after, paired by seed, and one word."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from harness.effects.paired_shares import ALPHA, PairedCounts, discordant_power, mcnemar_mid_p, newcombe_paired
from harness.effects.seed_intervals import Interval, mean_interval
from harness.grid.factorial import changes
from harness.measures.statistics import benjamini_hochberg
from harness.results.records import COLLAPSED, NO_BETTER_THAN_MEAN, Level, MemberRecord

NAN = math.nan
Block = tuple[int, int]  # split and seed
Fails = Callable[[MemberRecord], bool | None]
CURED_SHARE = 0.1  # of the seeds: a remedy with more failures helps, but does not work
NARROW = 0.25  # half-width of the interval within which no effect is seen
LEAST_GAIN = 0.05  # of R2, where nothing fails and R2 is the goal
GOOD_SHARE = 0.8  # of the R2 of PCA with as many components as units
POWER = 0.8
MOST_SEEDS = 400
WORDS = ("works", "helps", "live_not_better_than_mean", "undecided", "no_effect_seen", "equal", "worse")


class RemedyDesign(Protocol):
    """The parts of an experiment that the rows of the answer depend on."""

    @property
    def factors(self) -> Mapping[str, Sequence[Level]]: ...
    @property
    def baseline(self) -> Mapping[str, Level]: ...


@dataclass(frozen=True)
class RemedyEffect:
    """One remedy against the baseline; changes are after minus before.

    Args:
        remedy: factor -> level of every changed factor. variant: name of the cell.
        seeds: seeds of either arm; with several splits of the rows, pairs of seed and split.
        failed_before, failed_after, collapsed_before, collapsed_after: numbers of seeds.
        lost_before, lost_after: members without a result for an outside reason.
        change: change of the failed share over complete pairs, from -1 to 1; low, high: Newcombe's paired 95 % interval.
        p: mid-p of the exact McNemar test. p_adjusted: Benjamini-Hochberg over the rows.
        worst_low, worst_high: the interval when every lost member of the baseline counts as usable, and every lost
            member of the remedy as failed.
        r2_before, r2_after: mean R2. gain_low, gain_high: 95 % Student t interval of the paired gain of R2.
        collapsed_p: adjusted mid-p of the same test on collapsed instead of failed seeds.
        word: the first of these that applies. "equal": every stored number is equal. "works" (at most 10 % of the seeds
            fail) or "helps": fewer seeds fail, p_adjusted < .05. "worse": more fail, p_adjusted < .05.
            "live_not_better_than_mean": fewer collapse, no fewer fail. Where no seed of either arm fails, the gain of R2
            decides between these words. "no_effect_seen": the interval of the change lies within -.25 and .25.
            "undecided": anything else.
        seeds_needed: seeds that would decide an undecided row in 4 of 5 repetitions; None where unknown.
    """

    remedy: dict[str, Level]
    variant: str
    seeds: int
    failed_before: int
    failed_after: int
    collapsed_before: int
    collapsed_after: int
    lost_before: int = 0
    lost_after: int = 0
    change: float = NAN
    low: float = NAN
    high: float = NAN
    p: float = NAN
    p_adjusted: float = NAN
    worst_low: float = NAN
    worst_high: float = NAN
    r2_before: float = NAN
    r2_after: float = NAN
    gain_low: float = NAN
    gain_high: float = NAN
    collapsed_p: float = NAN
    word: str = "undecided"
    seeds_needed: int | None = None

    @property
    def name(self) -> str:
        """The changed factors with their levels."""
        return ", ".join(f"{factor} {level}" for factor, level in self.remedy.items())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON under the names of the attributes; non-finite numbers become None."""
        values = {attribute.name: getattr(self, attribute.name) for attribute in fields(self)}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


@dataclass(frozen=True)
class BaselineOutcome:
    """Outcome of the baseline cell: numbers of seeds (pairs of seed and split), mean R2, symptom -> failed seeds, splits."""

    levels: dict[str, Level]
    variant: str
    seeds: int
    failed: int
    collapsed: int
    lost: int
    r2: float
    symptoms: dict[str, int]
    splits: int = 1


@dataclass(frozen=True)
class _Row:
    """A row before its p is adjusted over all rows, with the facts that its word depends on.

    Args:
        effect: the row, with the word still open. equal: True where both arms have equal stored results.
        collapsed_p: mid-p of the collapsed seeds, not adjusted.
        fixed, broken: share of the complete pairs that fail only before, and only after, the remedy.
        pca_r2: highest R2 of PCA with as many components as units, over the members with the remedy.
    """

    effect: RemedyEffect
    equal: bool
    collapsed_p: float
    fixed: float
    broken: float
    pca_r2: float


def has_failed(record: MemberRecord) -> bool | None:
    """True where the trained model cannot be used; None where the member has no result to judge.

    Failed means: diverged, collapsed, values that are not finite, or a reconstruction no better than the mean.
    """
    return record.failed


def has_collapsed(record: MemberRecord) -> bool:
    """True where the layer of a judged member collapsed."""
    return record.status == "ok" and record.verdict in COLLAPSED


def symptom(record: MemberRecord) -> str:
    """Most telling name of a failure: a flag of the layer or output, the verdict, or "diverged"."""
    if record.status == "diverged":
        return "diverged"
    if "single_unit_dominance" in record.flags and record.verdict in COLLAPSED:
        return "single_unit_dominance"
    if has_collapsed(record) or record.verdict in NO_BETTER_THAN_MEAN or record.verdict == "invalid":
        return record.verdict
    return "mean_output"


def baseline_outcome(records: Sequence[MemberRecord], baseline: Mapping[str, Level]) -> BaselineOutcome | None:
    """Summarize the baseline cell; None where it has no member."""
    members = {record.block: record for record in records if not changes(record.levels, baseline)}
    if not members:
        return None
    outcomes = _outcomes(members, sorted(members), has_failed)
    symptoms = Counter(symptom(record) for record in members.values() if has_failed(record))
    first = next(iter(members.values()))
    return BaselineOutcome(
        levels=dict(first.levels),
        variant=first.variant,
        seeds=len(members),
        failed=outcomes.count(True),
        collapsed=sum(map(has_collapsed, members.values())),
        lost=outcomes.count(None),
        r2=_mean_r2(members),
        symptoms=dict(symptoms.most_common()),
        splits=len({split for split, _ in members}),
    )


def remedy_effects(
    records: Sequence[MemberRecord], design: RemedyDesign, fails: Fails | None = None
) -> tuple[RemedyEffect, ...]:
    """Compare each remedy with the baseline cell, seed by seed.

    Args:
        records: the members of the experiment. design: its factors and baseline. fails: True for a member that fails,
            None for one without a result; by default `has_failed`.

    Returns:
        One effect per remedy, best first. A remedy is a cell that differs from the baseline in one factor; every cell
        is a remedy where no factors are crossed. Empty without a baseline cell.
    """
    cells: dict[frozenset[tuple[str, Level]], dict[Block, MemberRecord]] = {}
    for record in records:
        cells.setdefault(frozenset(changes(record.levels, design.baseline).items()), {})[record.block] = record
    baseline = cells.pop(frozenset(), None)
    if baseline is None:
        return ()
    crossed = any(len(levels) > 1 for levels in design.factors.values()) and not getattr(design, "remedies", None)
    rows = [
        _row(baseline, members, design, fails or has_failed)
        for cell, members in cells.items()
        if not crossed or len(cell) == 1
    ]
    return tuple(sorted(_judged(rows), key=_rank))


def are_equal(before: Mapping[Block, MemberRecord], after: Mapping[Block, MemberRecord]) -> bool:
    """True where both arms have the same seeds and bitwise equal stored results.

    Terms of the penalty are not compared, so that a penalty without gradient equals no penalty.
    """
    if before.keys() != after.keys():
        return False
    evidence = any(
        record.history or record.unit_history or record.diagnosis or record.losses for record in before.values()
    )
    return evidence and all(_trace(before[seed]) == _trace(after[seed]) for seed in before)


def _trace(record: MemberRecord) -> tuple[object, ...]:
    common = ("step", "loss/reconstruction", "r2", "live_units", "effective_rank")
    return (
        record.status,
        record.verdict,
        record.live_units,
        record.units,
        record.r2,
        record.losses.get("reconstruction"),
        tuple(record.died_at),
        tuple(record.history.array(name).tobytes() for name in common if name in record.history),
        record.unit_history.to_bytes(),
        record.diagnosis.to_bytes(),
    )


def _row(
    before: Mapping[Block, MemberRecord], after: Mapping[Block, MemberRecord], design: RemedyDesign, fails: Fails
) -> _Row:
    seeds = sorted({*before, *after})
    failed = [_outcomes(arm, seeds, fails) for arm in (before, after)]
    pairs = [(was, now) for was, now in zip(*failed, strict=True) if was is not None and now is not None]
    counts = _counts(pairs)
    # a lost member of the baseline counts as usable, a lost member of the remedy as failed
    worst = _counts([(was is True, now is not False) for was, now in zip(*failed, strict=True)])
    interval = newcombe_paired(counts) if pairs else Interval(NAN, NAN, "no complete pair")
    worst_interval = newcombe_paired(worst)
    collapsed = _counts(
        [
            (has_collapsed(before[seed]), has_collapsed(after[seed]))
            for seed in seeds
            if _complete(seed, fails, before, after)
        ]
    )
    gain = _gain(before, after)
    first = next(iter(after.values()))
    effect = RemedyEffect(
        remedy=dict(changes(first.levels, design.baseline)),
        variant=first.variant,
        seeds=len(seeds),
        failed_before=failed[0].count(True),
        failed_after=failed[1].count(True),
        collapsed_before=sum(map(has_collapsed, before.values())),
        collapsed_after=sum(map(has_collapsed, after.values())),
        lost_before=failed[0].count(None),
        lost_after=failed[1].count(None),
        change=(counts.after - counts.before) / counts.pairs if pairs else NAN,
        low=interval.low,
        high=interval.high,
        p=mcnemar_mid_p(counts.fixed, counts.broken) if pairs else NAN,
        worst_low=worst_interval.low,
        worst_high=worst_interval.high,
        r2_before=_mean_r2(before),
        r2_after=_mean_r2(after),
        gain_low=gain.low,
        gain_high=gain.high,
    )
    size = max(counts.pairs, 1)
    collapsed_p = mcnemar_mid_p(collapsed.fixed, collapsed.broken) if collapsed.pairs else NAN
    return _Row(
        effect, are_equal(before, after), collapsed_p, counts.fixed / size, counts.broken / size, _pca_r2(after)
    )


def _judged(rows: Sequence[_Row]) -> list[RemedyEffect]:
    adjusted = benjamini_hochberg(np.array([row.effect.p for row in rows]))
    collapsed = benjamini_hochberg(np.array([row.collapsed_p for row in rows]))
    effects = []
    for row, p, collapsed_p in zip(rows, adjusted, collapsed, strict=True):
        effect = replace(row.effect, p_adjusted=float(p), collapsed_p=float(collapsed_p))
        word = _word(effect, row)
        needed = _seeds_needed(row, len(rows)) if word == "undecided" else None
        effects.append(replace(effect, word=word, seeds_needed=needed))
    return effects


def _word(effect: RemedyEffect, row: _Row) -> str:
    """The first word that applies."""
    significant = effect.p_adjusted < ALPHA
    if row.equal:
        return "equal"
    # p decides; the interval of the worst case decides only where members are lost
    certain = effect.worst_high < 0 or not (effect.lost_before or effect.lost_after)
    if effect.change < 0 and significant and certain:
        return "works" if effect.failed_after <= CURED_SHARE * effect.seeds else "helps"
    if effect.change > 0 and significant:
        return "worse"
    fewer_collapsed = effect.collapsed_after < effect.collapsed_before and effect.collapsed_p < ALPHA
    if fewer_collapsed and effect.failed_after >= effect.failed_before:
        return "live_not_better_than_mean"
    nothing_lost = not (effect.lost_before or effect.lost_after)
    if effect.failed_before == effect.failed_after == 0 and nothing_lost and math.isfinite(effect.gain_low):
        return _r2_word(effect, row.pca_r2)
    return "no_effect_seen" if effect.low >= -NARROW and effect.high <= NARROW else "undecided"


def _r2_word(effect: RemedyEffect, pca_r2: float) -> str:
    """The word where nothing fails and R2 is the goal."""
    if effect.gain_low > LEAST_GAIN:
        return "works" if effect.r2_after >= GOOD_SHARE * pca_r2 else "helps"
    if effect.gain_high < -LEAST_GAIN:
        return "worse"
    return "no_effect_seen" if effect.gain_low >= -LEAST_GAIN and effect.gain_high <= LEAST_GAIN else "undecided"


def _seeds_needed(row: _Row, tests: int) -> int | None:
    """Seeds at which the observed shares would be confirmed in 4 of 5 repetitions; None beyond 400 seeds."""
    larger, smaller = max(row.fixed, row.broken), min(row.fixed, row.broken)
    if larger == smaller:
        return None
    for seeds in range(row.effect.seeds + 4, MOST_SEEDS + 1, 4):
        if discordant_power(seeds, larger, smaller, tests) >= POWER:
            return seeds
    return None


def _outcomes(arm: Mapping[Block, MemberRecord], seeds: Sequence[Block], fails: Fails) -> list[bool | None]:
    return [fails(arm[seed]) if seed in arm else None for seed in seeds]


def _complete(seed: Block, fails: Fails, *arms: Mapping[Block, MemberRecord]) -> bool:
    return all(seed in arm and fails(arm[seed]) is not None for arm in arms)


def _counts(pairs: Sequence[tuple[Any, Any]]) -> PairedCounts:
    tally = [(bool(was), bool(now)) for was, now in pairs]
    return PairedCounts(
        *(tally.count(outcome) for outcome in ((True, True), (True, False), (False, True), (False, False)))
    )


def _mean_r2(arm: Mapping[Block, MemberRecord]) -> float:
    fits = [record.r2 for record in arm.values() if record.r2 is not None and math.isfinite(record.r2)]
    return float(np.mean(fits)) if fits else NAN


def _gain(before: Mapping[Block, MemberRecord], after: Mapping[Block, MemberRecord]) -> Interval:
    """Interval of the paired gain of R2."""
    return mean_interval(np.array([_gain_of(before[seed], after[seed]) for seed in before if seed in after]))


def _gain_of(before: MemberRecord, after: MemberRecord) -> float:
    return NAN if before.r2 is None or after.r2 is None else after.r2 - before.r2


def _pca_r2(arm: Mapping[Block, MemberRecord]) -> float:
    """R2 of PCA with as many components as units; NaN where no member has it."""
    complete = [record.pca_r2[-1] for record in arm.values() if len(record.pca_r2) >= record.units > 0]
    return max(complete, default=NAN)


def _rank(effect: RemedyEffect) -> tuple[int, float, float]:
    """Best first: the word, then the change of the failed share, then R2."""
    change = effect.change if math.isfinite(effect.change) else 1.0
    r2 = effect.r2_after if math.isfinite(effect.r2_after) else -math.inf
    return WORDS.index(effect.word), change, -r2
