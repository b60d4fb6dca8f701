"""Examine a model, screen the remedies that its signs suggest, and prove the best ones on fresh seeds."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.auditing import audit
from harness.case import Case, load_case
from harness.data import split_of
from harness.data.rows import Split
from harness.errors import HarnessError, did_you_mean
from harness.factors import Level, check_level, default_level, known_factors
from harness.models import build_model
from harness.prescription.indications import Candidate, Signs, candidates, contraindication, signs_of
from harness.prescription.prescription import Prescription, Remedy
from harness.prescription.screening import Screening, screen
from harness.prescription.trial import UNTREATED, Trial, cores_for, name_of
from harness.remedies import apply_remedies, why_not_applicable
from harness.remedies.source_code import source_code
from harness.report.remedy_code import remedy_code
from harness.results import COLLAPSED, MemberRecord
from harness.user_code import guarded

if TYPE_CHECKING:
    from harness.effects.remedy_effects import RemedyEffect

Cell = Mapping[str, Level]


@dataclass(frozen=True)
class Design:
    """Factors and baseline of a proof, in which every change is a remedy."""

    factors: Mapping[str, Sequence[Level]]
    baseline: Mapping[str, Level]


Says = Callable[[str], None]

EXAMINED = 8  # seeds of the model as it is
FRESH = 1000  # first seed of the proof; screening never sees it
MOST_SEEDS, LEAST_SEEDS = 32, 8
ENOUGH_SEEDS = (
    24  # a failure in 2 of 5 seeds that is cured is shown with this many; fewer finalists rather than fewer seeds
)
SCREENING_SHARE = 0.5  # of the budget
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
USABLE = 0.5  # share of the R2 of PCA with as many components as units below which a model is worth improving


def prescribe(
    case: "Case | str | Path",
    budget: str | float = "5m",
    seeds: int | None = None,
    try_only: Sequence[str] | None = None,
    goal: str = "usable",
    workers: int | None = None,
    says: Says = lambda text: None,
) -> Prescription:
    """Find the remedy that works on a case, and prove it on seeds that the search never saw.

    Args:
        case: a case, the name of a shipped one, or the path of a case file.
        budget: wall time, such as `"90s"`, `"5m"` or seconds as a number. The time of the audit counts.
        seeds: fresh seeds of the proof; None takes as many as the budget allows, from 8 to 32.
        try_only: changes to try, as words: a factor with its level (`"bias_init=zero"`), or the level alone
            (`"leaky_relu"`); a factor of two levels may stand alone (`"batchnorm"`). None lets the signs decide.
        goal: outcome that counts: `"live"` (not collapsed), `"usable"` (not failed), or a bound such as `"r2>0.4"`.
        workers: worker processes; None means one per core. A case made in this process is trained in it.
        says: told of each step, in a line.

    Returns:
        The prescription. Its remedies are ranked by what was seen on the fresh seeds alone.

    Raises:
        HarnessError: for a request that cannot be carried out.
    """
    started = time.perf_counter()
    seconds, meets = seconds_of(budget), goal_of(goal)
    if seeds is not None and seeds < 2:
        raise HarnessError(f"seeds: expected at least 2, got {seeds}")
    # a `Case` may differ from the one in the file that it was loaded from: it is trained as it is given
    reference = None if isinstance(case, Case) else str(case)
    case = case if isinstance(case, Case) else load_case(case)
    split = split_of(case)
    chosen = None if try_only is None else [_cell(word, case) for word in try_only]
    trial = Trial(case, reference, cores_for(reference) if workers is None else workers)

    says("examining: audit, and the model as it is")
    examined = audit(case, during_training=True)
    trial.train([UNTREATED], range(EXAMINED))
    untreated = trial.results(UNTREATED, range(EXAMINED))
    signs = signs_of(case, examined, untreated)
    if all(meets(record) for record in untreated) and _is_poor(untreated):
        meets = _beats(untreated)
    examination: dict[str, Any] = {
        "findings": tuple(finding.to_dict() for finding in examined.findings),
        "untreated": dict(Counter(record.verdict or record.status for record in untreated)),
    }
    if not examined.faults and all(meets(record) for record in untreated) and chosen is None:
        headline = f"Nothing is wrong with {case.name}: 0 of {len(untreated)} seeds fail, and the audit names no fault."
        return Prescription(case.name, headline, False, **examination, seconds=time.perf_counter() - started)

    tried, excluded = _changes(case, split, signs, chosen)
    spent = time.perf_counter() - started
    screening = screen(
        trial, [candidate.cell for candidate in tried], meets, max(1.0, SCREENING_SHARE * (seconds - spent)), says
    )
    remedies, notes = _proof(
        trial, screening, case, split, seeds, seconds - (time.perf_counter() - started), meets, says
    )
    wrong = bool(examined.faults) or not all(meets(record) for record in untreated)
    return Prescription(
        case.name,
        _headline(case, remedies, untreated, meets, tried),
        wrong,
        tuple(remedies),
        tuple(_tried_row(candidate, screening) for candidate in tried),
        tuple({"name": name_of(candidate.cell), "reason": candidate.reason} for candidate in excluded),
        **examination,
        notes=(*screening.notes, *notes),
        seconds=time.perf_counter() - started,
    )


def seconds_of(budget: str | float) -> float:
    """Return a budget in seconds.

    >>> seconds_of("5m"), seconds_of("90s"), seconds_of(30)
    (300.0, 90.0, 30.0)

    Raises:
        HarnessError: for anything else, and for no time at all.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(budget))
    seconds = float(match[1]) * UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise HarnessError(f"budget: expected a time such as 90s, 5m or 1h, got {budget!r}")
    return seconds


def goal_of(goal: str) -> Callable[[MemberRecord], bool]:
    """Return the function that is True for a member that meets a goal.

    Raises:
        HarnessError: for a goal that is not `live`, `usable` or `r2>NUMBER`.
    """
    if goal == "live":
        return lambda record: record.status == "ok" and record.verdict not in COLLAPSED
    if goal == "usable":
        return lambda record: not has_failed(record)
    match = re.fullmatch(r"\s*r2\s*>\s*(-?\d*\.?\d+)\s*", goal)
    if match is None:
        raise HarnessError(f"goal: expected live, usable or a bound such as r2>0.4, got {goal!r}")
    bound = float(match[1])
    return lambda record: not has_failed(record) and record.r2 is not None and record.r2 > bound


def has_failed(record: MemberRecord) -> bool:
    """Return True for a member that failed or has no result: it cannot be used."""
    return record.failed is not False


def _is_poor(records: Sequence[MemberRecord]) -> bool:
    """True where the median R2 is below half of that of PCA with as many components as units."""
    pairs = [(record.r2, record.pca_r2[-1]) for record in records if record.r2 is not None and record.pca_r2]
    return bool(pairs) and median(r2 for r2, _ in pairs) < USABLE * median(pca for _, pca in pairs)


def _beats(records: Sequence[MemberRecord]) -> Callable[[MemberRecord], bool]:
    """The goal where nothing fails but the reconstruction is poor: half of the R2 of PCA."""
    bound = USABLE * median(record.pca_r2[-1] for record in records if record.r2 is not None and record.pca_r2)
    return lambda record: not has_failed(record) and record.r2 is not None and record.r2 >= bound


def _cell(word: str, case: Case) -> Cell:
    """The change that a word of `try_only` means."""
    from harness.factors import FACTORS

    name, equals, level = word.partition("=")
    if not equals:
        choices = {choice: factor for factor in FACTORS for choice in FACTORS[factor].choices if factor != "batchnorm"}
        if name in choices:
            name, level = choices[name], name
        elif name == "batchnorm":
            level = "on"
        elif name == "dropout":
            level = "0.2"
        elif name == "zero_bias":
            name, level = "bias_init", "zero"
        else:
            raise HarnessError(f"try: {did_you_mean('change', name, [*known_factors(case.numbers), *choices])}")
    number = re.fullmatch(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?", level)
    return {name: check_level(name, float(level) if number else level, case.numbers)}


def _changes(
    case: Case, split: Split, signs: Signs, chosen: Sequence[Cell] | None
) -> tuple[list[Candidate], list[Candidate]]:
    if chosen is None:
        return candidates(case, split, signs)
    reasons = [(cell, contraindication(cell, signs) or why_not_applicable(case, cell, split)) for cell in chosen]
    tried = [Candidate(cell, "asked for") for cell, reason in reasons if not reason]
    return tried, [Candidate(cell, reason) for cell, reason in reasons if reason]


def _proof(
    trial: Trial,
    screening: Screening,
    case: Case,
    split: Split,
    seeds: int | None,
    seconds: float,
    meets: Callable[[MemberRecord], bool],
    says: Says,
) -> tuple[list[Remedy], list[str]]:
    """Train the finalists and the untreated model on fresh seeds, and compare them pair by pair."""
    from harness.effects.remedy_effects import remedy_effects

    if not screening.finalists:
        return [], []
    finalists, notes = list(screening.finalists), []
    affordable = _affordable(trial, len(finalists), seconds)
    while seeds is None and len(finalists) > 1 and affordable < ENOUGH_SEEDS:
        notes.append(f"{name_of(finalists.pop())} was not proved for want of time")
        affordable = _affordable(trial, len(finalists), seconds)
    count = seeds or max(LEAST_SEEDS, min(MOST_SEEDS, affordable))
    if seeds is None and affordable < LEAST_SEEDS:
        notes.append(f"the proof took {LEAST_SEEDS} seeds, more than the budget allows: fewer could show nothing")
    cells = [UNTREATED, *finalists]
    fresh = range(FRESH, FRESH + count)
    says(f"proof: {len(finalists)} changes and the model as it is on {count} fresh seeds")
    trial.train(cells, fresh)
    records = [record for cell in cells for record in trial.results(cell, fresh)]
    names = dict.fromkeys(name for cell in cells for name in cell)
    baseline = {name: default_level(name, case.numbers, case.training()) for name in names}

    def misses(record: MemberRecord) -> bool | None:
        return None if record.failed is None else not meets(record)

    rows = remedy_effects(records, Design({}, baseline), misses)
    return [_remedy(row, trial, case, split, fresh) for row in rows], notes


def _affordable(trial: Trial, finalists: int, seconds: float) -> int:
    """Seeds on which the finalists and the untreated model can be trained in the time."""
    return int(seconds / max(1e-9, trial.seconds_per_member * (finalists + 1)))


def _remedy(row: "RemedyEffect", trial: Trial, case: Case, split: Split, fresh: Sequence[int]) -> Remedy:
    """The row of the proof, with the side effects, the code and the treatment."""
    cell = row.remedy
    before, after = trial.results(UNTREATED, fresh), trial.results(cell, fresh)
    values = row.to_dict()
    names = (
        *("word", "seeds", "failed_before", "failed_after", "collapsed_before", "collapsed_after", "low", "high", "p"),
        *("p_adjusted", "r2_before", "r2_after"),
    )

    def treat(untreated: Case) -> Case:
        return apply_remedies(untreated, cell, split)

    return Remedy(
        remedy=cell,
        **{name: values[name] for name in names},
        seconds_before=median(record.seconds for record in before),
        seconds_after=median(record.seconds for record in after),
        parameters_before=_parameters(case, split),
        parameters_after=_parameters(treat(case), split),
        code=_code(case, cell, split),
        treat=treat,
        case=case,
        split=split,
    )


def _code(case: Case, cell: Cell, split: Split) -> str:
    """Return the lines of a change for the case's own model; general lines if its code cannot be inspected."""
    try:
        with guarded():
            return source_code(case, cell, split)
    except Exception:  # the case's code may raise anything
        return remedy_code(cell, case.bottleneck)


def _parameters(case: Case, split: Split) -> int:
    model = build_model(case, 0, split.train.inputs[:4])
    return sum(parameter.numel() for parameter in model.parameters())


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


def _headline(
    case: Case,
    remedies: Sequence[Remedy],
    untreated: Sequence[MemberRecord],
    meets: Callable[[MemberRecord], bool],
    tried: Sequence[Candidate],
) -> str:
    fails = sum(not meets(record) for record in untreated)
    best = next((remedy for remedy in remedies if remedy.word in ("works", "helps")), None)
    if best is not None:
        cost = _cost(best)
        return (
            f"{best.name} {best.word}: failed {best.failed_before} -> {best.failed_after} of {best.seeds} fresh seeds of"
            f" {case.name}{cost}."
        )
    if not tried:
        return f"No change that the harness knows applies to {case.name}, where {fails} of {len(untreated)} seeds fail."
    nearest = f"; nearest: {remedies[0]}" if remedies else ""
    return f"None of {len(tried)} changes is proved to help {case.name}, where {fails} of {len(untreated)} seeds fail{nearest}."


def _cost(remedy: Remedy) -> str:
    if remedy.r2_before is None or remedy.r2_after is None:
        return ""
    change = remedy.r2_after - remedy.r2_before
    verb = "gains" if change > 0 else "costs"
    return f", and {verb} {abs(change):.2f} of R2" if abs(change) >= 0.005 else ""
