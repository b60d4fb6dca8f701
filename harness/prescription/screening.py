"""Successive halving over changes: all of them on few seeds, the better ones on more.

The seeds are paired: each change meets the initial weights, split and batch order that the untreated model meets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from harness.factors import Level
from harness.prescription.trial import UNTREATED, Trial, name_of
from harness.results import MemberRecord

Cell = Mapping[str, Level]

ROUNDS = (4, 8, 16)  # seeds after each round
KEPT = (6, 3)  # changes that enter the second and the third round
MOST_FINALISTS = 3
USEFUL_GAIN = 0.02  # of R2: a smaller difference between two changes does not rank them


@dataclass(frozen=True)
class Score:
    """Rank of a change: fewer failed members first, then more R2.

    Args:
        failed: share of the members that failed, from 0 to 1.
        r2: median R2 of all members; minus infinity where there is no reconstruction.
    """

    failed: float
    r2: float

    def better_than(self, score: "Score") -> bool:
        """True when this change fails less, or as often with clearly more R2."""
        if self.failed != score.failed:
            return self.failed < score.failed
        return self.r2 > score.r2 + USEFUL_GAIN


@dataclass(frozen=True)
class Screening:
    """Outcome of the rounds.

    Args:
        seeds: seeds that the rounds saw.
        scores: score of each change by its name, at the last round that it entered.
        finalists: changes that are proved on fresh seeds, best first.
        dropped: round after which a change was dropped, by its name.
        notes: remarks for the reader, such as time that was short.
    """

    seeds: tuple[int, ...]
    scores: Mapping[str, Score]
    finalists: tuple[Cell, ...]
    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def score_of(records: Sequence[MemberRecord], meets: Callable[[MemberRecord], bool]) -> Score:
    """Score the members of a change; `meets` is True for a member that meets the goal."""
    if not records:
        return Score(1.0, float("-inf"))
    values = [float("-inf") if record.r2 is None else record.r2 for record in records]
    return Score(sum(not meets(record) for record in records) / len(records), median(values))


def screen(
    trial: Trial,
    cells: Sequence[Cell],
    meets: Callable[[MemberRecord], bool],
    seconds: float,
    says: Callable[[str], None] = lambda text: None,
) -> Screening:
    """Train the changes in rounds, and return the one to three that are worth a proof.

    Args:
        trial: trains the members.
        cells: the changes.
        meets: True for a member that meets the goal.
        seconds: time that the rounds may take; a round that would not fit is left out, and said.
        says: told of each round.
    """
    remaining, seeds, notes = list(cells), tuple(range(ROUNDS[0])), []
    scores: dict[str, Score] = {}
    dropped: dict[str, int] = {}
    for number, count in enumerate(ROUNDS):
        wanted_seeds = tuple(range(count))
        expected = trial.seconds_per_member * (len(remaining) + 1) * (count - len(seeds) if number else count)
        if number and trial.seconds + expected > seconds:
            notes.append(f"round {number + 1} of {len(ROUNDS)} was left out: it would take {expected:.0f} s")
            break
        seeds = wanted_seeds
        says(f"round {number + 1}: {len(remaining)} changes on {count} seeds")
        trial.train([UNTREATED, *remaining], seeds)
        scores |= {name_of(cell): score_of(trial.results(cell, seeds), meets) for cell in [UNTREATED, *remaining]}
        remaining = ranked(remaining, scores)
        if number == 1:
            remaining = _with_pairs(remaining)
        if number < len(KEPT):
            for cell in remaining[KEPT[number] :]:
                dropped[name_of(cell)] = number + 1
            remaining = remaining[: KEPT[number]] if number == 0 else remaining
    untreated = scores[name_of(UNTREATED)]
    scored = ranked([cell for cell in remaining if name_of(cell) in scores], scores)
    finalists = [cell for cell in scored if scores[name_of(cell)].better_than(untreated)]
    return Screening(seeds, scores, tuple(_distinct(finalists, scores)[:MOST_FINALISTS]), dropped, tuple(notes))


def ranked(cells: Sequence[Cell], scores: Mapping[str, Score]) -> list[Cell]:
    """Sort changes: fewest failures, then most R2, then fewest factors changed."""
    return sorted(cells, key=lambda cell: (scores[name_of(cell)].failed, -scores[name_of(cell)].r2, len(cell)))


def _with_pairs(cells: Sequence[Cell]) -> list[Cell]:
    """The best three changes, and the best two of them together where they change different factors."""
    best = list(cells[:MOST_FINALISTS])
    pairs = (
        [{**first, **second} for first, second in [best[:2]] if not set(first) & set(second)] if len(best) > 1 else []
    )
    return [*best, *pairs]


def _distinct(cells: Sequence[Cell], scores: Mapping[str, Score]) -> list[Cell]:
    """Leave out a combination that is no better than one of its parts."""
    single = [cell for cell in cells if len(cell) == 1]
    return [
        cell
        for cell in cells
        if len(cell) == 1
        or not any(
            set(part.items()) <= set(cell.items()) and not scores[name_of(cell)].better_than(scores[name_of(part)])
            for part in single
        )
    ]
