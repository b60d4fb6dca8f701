"""Proof on fresh seeds: the finalists and the model as it is, on seeds that screening never saw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, median
from typing import TYPE_CHECKING

from harness.case import Case
from harness.data.rows import Split
from harness.factors import Level, default_level
from harness.models import build_model
from harness.prescription.goal import Meets
from harness.prescription.remedy import Remedy
from harness.prescription.screening import USEFUL_GAIN
from harness.prescription.trial import UNTREATED, Trial, name_of
from harness.remedies import apply_remedies
from harness.results import MemberRecord
from harness.source_changes import change_code

if TYPE_CHECKING:
    from harness.effects.remedy_effects import RemedyEffect

Cell = Mapping[str, Level]
Says = Callable[[str], None]

FRESH = 1000  # first seed of the proof; screening never sees it
MOST_SEEDS, LEAST_SEEDS = 32, 8
ENOUGH_SEEDS = 24
DISCORDANT = 6  # pairs that change one way have a mid-p of 0.5 ** 6 = 0.016
WORDS = ("works", "helps", "live_not_better_than_mean", "undecided", "no_effect_seen", "equal", "worse")


@dataclass(frozen=True)
class Design:
    """Factors and baseline of a proof, in which every change is a remedy."""

    factors: Mapping[str, Sequence[Level]]
    baseline: Mapping[str, Level]


def fresh_effects(
    trial: Trial,
    finalists: Sequence[Cell],
    seeds: int | None,
    seconds: float,
    meets: Meets,
    says: Says,
    failing: float = 0.25,
) -> tuple[list["RemedyEffect"], range, list[str]]:
    """Train the finalists and the untreated model on fresh seeds, and compare them pair by pair.

    Args:
        trial: trains the members.
        finalists: the changes.
        seeds: number of fresh seeds; None for as many as the time allows.
        seconds: time of the proof. Where it is short, finalists are dropped rather than the seeds that a cure needs.
        meets: True for a member that meets the goal.
        says: told of the proof.
        failing: share of the seeds that fail as they are.

    Returns:
        The effects of the finalists, the fresh seeds, and remarks on what was left out for want of time.
    """
    proved, notes = list(finalists), []
    affordable = _affordable(trial, proved, seconds)
    while seeds is None and len(proved) > 1 and affordable < enough_seeds(failing):
        notes.append(f"{name_of(proved.pop())} was not proved for want of time")
        affordable = _affordable(trial, proved, seconds)
    count = seeds or max(LEAST_SEEDS, min(MOST_SEEDS, affordable))
    if seeds is None and affordable < LEAST_SEEDS:
        notes.append(f"the proof took {LEAST_SEEDS} seeds, more than the budget allows: fewer could show nothing")
    fresh = range(FRESH, FRESH + count)
    cells = [UNTREATED, *proved]
    expected = trial.expected(cells, fresh)
    says(f"proof: {len(proved)} changes and the model as it is on {count} fresh seeds, about {expected:.0f} s")
    trial.train(cells, fresh)
    return effects_of(trial, proved, fresh, meets), fresh, notes


def enough_seeds(failing: float) -> int:
    """Seeds at which a cure can be shown, from the share of the seeds that fail.

    >>> enough_seeds(1.0), enough_seeds(0.4), enough_seeds(0.0)
    (8, 15, 24)
    """
    return min(ENOUGH_SEEDS, max(LEAST_SEEDS, ceil(DISCORDANT / failing))) if failing else ENOUGH_SEEDS


def effects_of(trial: Trial, cells: Sequence[Cell], seeds: Sequence[int], meets: Meets) -> list["RemedyEffect"]:
    """Compare the cells with the untreated model on the seeds that have results."""
    from harness.effects.remedy_effects import remedy_effects

    case = trial.case
    records = [record for cell in (UNTREATED, *cells) for record in trial.results(cell, seeds)]
    names = dict.fromkeys(name for cell in cells for name in cell)
    baseline = {name: default_level(name, case.numbers, case.training()) for name in names}

    def misses(record: MemberRecord) -> bool | None:
        return None if record.failed is None else not meets(record)

    return list(remedy_effects(records, Design({}, baseline), misses))


def remedies_of(
    trial: Trial, effects: Sequence["RemedyEffect"], split: Split, fresh: Sequence[int]
) -> tuple[Remedy, ...]:
    """Return the remedies with their side effects and code, best first."""
    remedies = [_remedy(effect, trial, split, fresh) for effect in effects]
    ordered: list[Remedy] = []
    for remedy in remedies:  # insertion: R2 values within `USEFUL_GAIN` do not rank, so this is no order of numbers
        position = next((i for i, ranked in enumerate(ordered) if _is_better(remedy, ranked)), len(ordered))
        ordered.insert(position, remedy)
    return tuple(ordered)


def _is_better(first: Remedy, second: Remedy) -> bool:
    """True for a better word; then fewer failures, more R2, fewer changes, a kept penalty, a diff of the source."""
    if first.word != second.word:
        return WORDS.index(first.word) < WORDS.index(second.word)
    if first.failed_after != second.failed_after:
        return first.failed_after < second.failed_after
    gain = (first.r2_after or 0.0) - (second.r2_after or 0.0)
    if abs(gain) > USEFUL_GAIN:
        return gain > 0
    return _cost(first) < _cost(second)


def _cost(remedy: Remedy) -> tuple[int, bool, bool]:
    """Number of changes, True if they take away what the author asks of the code, True if they are more than a diff."""
    return len(remedy.remedy), remedy.remedy.get("penalty") == "none", not remedy.is_diff


def _affordable(trial: Trial, finalists: Sequence[Cell], seconds: float) -> int:
    """Seeds on which the finalists and the untreated model can be trained in the time; stored results are free."""
    count = MOST_SEEDS
    while count > 1:
        if trial.expected([UNTREATED, *finalists], range(FRESH, FRESH + count)) <= seconds:
            return count
        count -= 1
    return count


def _remedy(effect: "RemedyEffect", trial: Trial, split: Split, fresh: Sequence[int]) -> Remedy:
    """The row of the proof, with the side effects, the code and the treatment."""
    case, cell = trial.case, effect.remedy
    before, after = trial.results(UNTREATED, fresh), trial.results(cell, fresh)
    values = effect.to_dict()
    names = (
        *("word", "seeds", "failed_before", "failed_after", "collapsed_before", "collapsed_after", "low", "high", "p"),
        *("p_adjusted", "r2_before", "r2_after", "seeds_needed"),
    )

    def treat(untreated: Case) -> Case:
        return apply_remedies(untreated, cell, split)

    return Remedy(
        remedy=cell,
        **{name: values[name] for name in names},
        live_before=_mean_live(before),
        live_after=_mean_live(after),
        frequency_before=_mean_frequency(before),
        frequency_after=_mean_frequency(after),
        seconds_before=_median_seconds(before),
        seconds_after=_median_seconds(after),
        parameters_before=_parameters(case, split),
        parameters_after=_parameters(treat(case), split),
        new_state=_new_state(case, treat(case), split),
        code=change_code(case, cell, split),
        treat=treat,
        case=case,
        split=split,
    )


def _mean_live(records: Sequence[MemberRecord]) -> float | None:
    values = [record.live_units for record in records if record.status == "ok"]
    return fmean(values) if values else None


def _mean_frequency(records: Sequence[MemberRecord]) -> float | None:
    """Mean activation frequency over units and members; None where the activation has no off state."""
    values = [
        unit["activation_frequency"]
        for record in records
        if record.status == "ok"
        for unit in record.diagnosis.plain().get("units", ())
        if unit.get("activation_frequency") is not None
    ]
    return fmean(values) if values else None


def _median_seconds(records: Sequence[MemberRecord]) -> float:
    return median([record.seconds for record in records] or [0.0])


def _parameters(case: Case, split: Split) -> int:
    model = build_model(case, 0, split.train.inputs[:4])
    return sum(parameter.numel() for parameter in model.parameters())


def _new_state(case: Case, treated: Case, split: Split) -> tuple[str, ...]:
    """Names in the state dict of the treated model that a state dict of the untreated model lacks, or has in another shape."""
    rows = split.train.inputs[:4]
    before, after = (build_model(arm, 0, rows).state_dict() for arm in (case, treated))
    after = {name.removeprefix("model."): value for name, value in after.items()}
    return tuple(name for name, value in after.items() if name not in before or before[name].shape != value.shape)
