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
Meets = Callable[[MemberRecord], bool]

ROUNDS = (4, 8, 16)  # seeds after each round
LEAST = 2  # seeds of a first round for which the time is short
KEPT = 6  # changes that enter the second round
MOST_FINALISTS = 3
USEFUL_GAIN = 0.02  # of R2: a smaller difference between two changes does not rank them
RATES = (1 / 3, 3.0)  # times the case's own learning rate
RATE_SEEDS = 8


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


@dataclass
class Screening:
    """Outcome of the rounds so far.

    Args:
        seeds: seeds that the rounds saw.
        scores: score of each change by its name, at the last round that it entered.
        finalists: changes that are proved on fresh seeds, best first.
        dropped: round after which a change was dropped, by its name.
        notes: remarks for the reader, such as time that was short.
    """

    seeds: tuple[int, ...] = ()
    scores: dict[str, Score] = field(default_factory=dict)
    finalists: tuple[Cell, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def score_of(records: Sequence[MemberRecord], meets: Meets) -> Score:
    """Score the members of a change; `meets` is True for a member that meets the goal."""
    if not records:
        return Score(1.0, float("-inf"))
    values = [float("-inf") if record.r2 is None else record.r2 for record in records]
    return Score(sum(not meets(record) for record in records) / len(records), median(values))


def screen(
    trial: Trial,
    cells: Sequence[Cell],
    meets: Meets,
    seconds: float,
    says: Callable[[str], None] = lambda text: None,
    screening: Screening | None = None,
    order: Sequence[int] = tuple(range(ROUNDS[-1])),
) -> Screening:
    """Train the changes in rounds, and return the one to three that are worth a proof.

    Args:
        trial: trains the members.
        cells: the changes.
        meets: True for a member that meets the goal.
        seconds: time that the rounds may take. A round that would not fit is left out, with a note; changes that would
            not fit have no score.
        says: told of each round.
        screening: filled round by round, so that an interruption loses nothing.
        order: the seeds, of which a round takes the first ones. Seeds on which the model as it is fails come first:
            only these can show a cure, and the proof is on other seeds.
    """
    screening = screening or Screening()
    start, remaining = trial.seconds, list(cells)
    first, remaining = _first_round(trial, remaining, order, seconds)
    for number, count in enumerate((first, *ROUNDS[1:])):
        seeds = tuple(order[:count])
        expected = trial.expected([UNTREATED, *remaining], seeds)
        while number and len(remaining) > LEAST and trial.seconds - start + expected > seconds:
            screening.dropped[name_of(remaining.pop())] = number  # a round of few changes is better than none
            expected = trial.expected([UNTREATED, *remaining], seeds)
        if number and trial.seconds - start + expected > seconds:
            screening.notes.append(f"round {number + 1} of {len(ROUNDS)} was left out: it would take {expected:.0f} s")
            break
        screening.seeds = seeds
        says(f"round {number + 1}: {len(remaining)} changes on {len(seeds)} seeds, about {expected:.0f} s")
        trial.train([UNTREATED, *remaining], seeds)
        screening.scores |= scores(trial, [UNTREATED, *remaining], seeds, meets)
        remaining = ranked(remaining, screening.scores)
        screening.finalists = _finalists(remaining, screening.scores)
        if number == 1:
            entrants = _with_pairs(remaining, screening.scores)
            screening.dropped |= {name_of(cell): 2 for cell in remaining if cell not in entrants}
            remaining = entrants
        if number == 0:
            screening.dropped |= dict.fromkeys(map(name_of, remaining[KEPT:]), 1)
            remaining = remaining[:KEPT]
    return screening


def scores(trial: Trial, cells: Sequence[Cell], seeds: Sequence[int], meets: Meets) -> dict[str, Score]:
    """Return the score of each cell by its name."""
    return {name_of(cell): score_of(trial.results(cell, seeds), meets) for cell in cells}


def ranked(cells: Sequence[Cell], scores: Mapping[str, Score]) -> list[Cell]:
    """Sort changes: fewest failures, then most R2, then fewest factors changed."""
    return sorted(cells, key=lambda cell: (scores[name_of(cell)].failed, -scores[name_of(cell)].r2, len(cell)))


def at_best_rates(
    trial: Trial, cells: Sequence[Cell], meets: Meets, rate: float, seconds: float, screening: Screening
) -> list[Cell]:
    """Return each cell at the best of three learning rates, chosen on seeds of the screening.

    Args:
        trial: trains the members.
        cells: the model as it is, and the finalists; a cell that changes the learning rate keeps it.
        meets: True for a member that meets the goal.
        rate: the case's own learning rate.
        seconds: time that this may take; if it would not fit, the cells come back as they are, and that is said.
        screening: gets the scores and the remarks.
    """
    seeds = screening.seeds[:RATE_SEEDS]
    rates = [float(f"{rate * factor:.2g}") for factor in RATES]
    free = [cell for cell in cells if "learning_rate" not in cell]
    grid = [{**cell, "learning_rate": other_rate} for cell in free for other_rate in rates]
    expected = trial.expected(grid, seeds)
    if expected > seconds:
        screening.notes.append(f"other learning rates were left out: they would take {expected:.0f} s")
        return list(cells)
    trial.train(grid, seeds)
    screening.scores |= scores(trial, grid, seeds, meets)
    # on the same seeds as at the other rates
    own = scores(trial, cells, seeds, meets)
    best = []
    for cell in cells:
        choice, score = cell, own[name_of(cell)]
        for candidate in [{**cell, "learning_rate": other_rate} for other_rate in rates] if cell in free else []:
            if screening.scores[name_of(candidate)].better_than(score):
                choice, score = candidate, screening.scores[name_of(candidate)]
        best.append(choice)
    return best


def _first_round(trial: Trial, cells: list[Cell], order: Sequence[int], seconds: float) -> tuple[int, list[Cell]]:
    """Return the seeds and the changes of a first round that fits the time; the first ones of the table are kept."""
    fitting, count = list(cells), ROUNDS[0]
    while len(fitting) > 1 and trial.expected([UNTREATED, *fitting], order[:count]) > seconds:
        if count > LEAST:
            count -= 1
        else:
            fitting.pop()
    return count, fitting


def _with_pairs(cells: Sequence[Cell], scores: Mapping[str, Score]) -> list[Cell]:
    """The best three changes, the best two of them together, and the best with the one of most R2.

    The last ones are the first to be left out where the time is short.
    """
    best = list(cells[:MOST_FINALISTS])
    richest = max(cells, key=lambda cell: scores[name_of(cell)].r2, default=None)
    partners = [cell for cell in (best[1] if len(best) > 1 else None, richest) if cell is not None]
    pairs: list[Cell] = []
    for partner in partners:
        pair = {**best[0], **partner}
        if not set(best[0]) & set(partner) and pair not in pairs:
            pairs.append(pair)
    return [*best[:1], *pairs, *best[1:]]


def _finalists(cells: Sequence[Cell], scores: Mapping[str, Score]) -> tuple[Cell, ...]:
    """The changes that are better than the untreated model; a combination has to be better than its parts."""
    untreated = scores[name_of(UNTREATED)]
    better = [cell for cell in cells if scores[name_of(cell)].better_than(untreated)]
    single = [cell for cell in cells if len(cell) == 1]
    distinct = [
        cell
        for cell in better
        if len(cell) == 1
        or not any(
            set(part.items()) <= set(cell.items()) and not scores[name_of(cell)].better_than(scores[name_of(part)])
            for part in single
        )
    ]
    return tuple(distinct[:MOST_FINALISTS])
