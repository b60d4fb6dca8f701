"""Sentences of a prescription."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from harness.case import Case
from harness.measures.statistics import clopper_pearson
from harness.prescription.goal import Meets
from harness.prescription.indications import Candidate
from harness.prescription.remedy import WORKS, Remedy
from harness.prescription.screening import Screening, ranked
from harness.prescription.trial import UNTREATED, name_of
from harness.results import MemberRecord

COST = 0.005  # of R2: the smallest change that is said
SHARES = (0.2, 0.4, 0.6, 0.8)  # of failed seeds, for the sentence about power
POWER = 0.8


class SearchState(Protocol):
    """The parts of a search that its sentences depend on."""

    @property
    def case(self) -> Case: ...
    @property
    def meets(self) -> Meets: ...
    @property
    def untreated(self) -> Sequence[MemberRecord]: ...
    @property
    def is_wrong(self) -> bool: ...
    @property
    def tried(self) -> Sequence[Candidate]: ...
    @property
    def screening(self) -> Screening: ...
    @property
    def remedies(self) -> Sequence[Remedy]: ...
    @property
    def fresh(self) -> Sequence[int]: ...


def too_few_seeds(examined: int, expected: int) -> str:
    """Return the note on an examination without a failure that had time for few seeds.

    >>> too_few_seeds(2, 8)
    'only 2 seeds fit the budget, not 8: a failing share of up to 0.84 is not excluded (95 %, Clopper-Pearson)'
    """
    share = float(clopper_pearson(0, examined)[1])
    return (
        f"only {examined} seeds fit the budget, not {expected}: a failing share of up to {share:.2f} is not excluded"
        " (95 %, Clopper-Pearson)"
    )


def headline(search: SearchState) -> str:
    """The answer in a sentence."""
    case, records = search.case, search.untreated
    fails = sum(not search.meets(record) for record in records)
    if not search.is_wrong and not search.tried:
        audited = "the audit names no fault" if case.has_losses else "it was not audited"
        doubts = Counter(verdict for record in records if (verdict := record.reported_verdict) != "healthy")
        if not doubts:
            return f"Nothing is wrong with {case.name}: 0 of {len(records)} seeds fail, and {audited}."
        verdicts = ", ".join(f"{number} {name}" for name, number in doubts.items())
        return f"No seed of {case.name} fails (0 of {len(records)}; {verdicts}), and {audited}: nothing was tried."
    best = next((remedy for remedy in search.remedies if remedy.word in WORKS), None)
    if best is not None:
        change = f"failed {best.failed_before} -> {best.failed_after} of {best.seeds} fresh seeds of {case.name}"
        return f"{best.name} {best.word}{_cost(best)}: {change}."
    if not search.tried:
        return f"No change that the harness has applies to {case.name}, where {fails} of {len(records)} seeds fail."
    return (
        f"None of {len(search.tried)} changes is proved to help {case.name}, where {fails} of {len(records)} seeds fail"
        f"{_nearest(search)}."
    )


def stopped_headline(search: SearchState) -> str:
    """The sentence of a search that was stopped before its proof."""
    case, records = search.case, search.untreated
    if not records:
        return f"Stopped while {case.name} was examined."
    fails = sum(not search.meets(record) for record in records)
    return f"Stopped before the proof: {fails} of {len(records)} seeds of {case.name} fail as it is{_nearest(search)}."


def not_seen(search: SearchState) -> tuple[str, ...]:
    """Smallest effect that the proof would have shown, where nothing works."""
    if not search.tried or any(remedy.word in WORKS for remedy in search.remedies):
        return ()
    from harness.effects.paired_shares import discordant_power

    seeds = len(search.fresh) or len(search.screening.seeds)
    family = max(1, len(search.remedies))
    shares = [share for share in SHARES if seeds and discordant_power(seeds, share, 0.0, family) >= POWER]
    if not shares:
        return (f"with {seeds} seeds, not even a cure of {SHARES[-1]:.0%} of the seeds would have been shown reliably",)
    return (
        f"with {seeds} seeds, a cure of failures in {shares[0]:.0%} of the seeds would have been shown in at least"
        f" {POWER:.0%} of repetitions; rarer failures need more seeds",
    )


def tried_rows(tried: Sequence[Candidate], screening: Screening) -> tuple[Mapping[str, Any], ...]:
    """The changes that were tried, with their scores in the screening."""
    return tuple(_tried_row(candidate, screening) for candidate in tried)


def _tried_row(candidate: Candidate, screening: Screening) -> dict[str, Any]:
    name = name_of(candidate.cell)
    score = screening.scores.get(name)
    return {
        "name": name,
        "remedy": dict(candidate.cell),
        "reason": candidate.reason,
        "failed_share": None if score is None else score.failed,
        "r2": None if score is None or score.r2 == float("-inf") else score.r2,
        "dropped_after_round": screening.dropped.get(name),
    }


def _nearest(search: SearchState) -> str:
    """The nearest miss: of the proof, or else of the screening."""
    if search.remedies:
        return f"; nearest: {search.remedies[0]}"
    scores = search.screening.scores
    cells = [candidate.cell for candidate in search.tried if name_of(candidate.cell) in scores]
    if not cells or name_of(UNTREATED) not in scores:
        return ""
    first = ranked(cells, scores)[0]
    after, before = scores[name_of(first)], scores[name_of(UNTREATED)]
    return f"; nearest in the screening: {name_of(first)} (failed share {before.failed:.2f} -> {after.failed:.2f})"


def _cost(remedy: Remedy) -> str:
    if remedy.r2_before is None or remedy.r2_after is None:
        return ""
    change = remedy.r2_after - remedy.r2_before
    if abs(change) < COST:
        return ""
    return f" and gains {change:.2f} of R2" if change > 0 else f", but costs {-change:.2f} of R2"
