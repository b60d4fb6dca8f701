"""Examine a model, screen the remedies that its signs suggest, and prove the best ones on fresh seeds."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.auditing import audit
from harness.case import Case, load_case
from harness.data import split_of
from harness.data.rows import Split
from harness.errors import HarnessError
from harness.factors import Level
from harness.prescription.goal import beats_half_of_pca, goal_of, is_poor, seconds_of
from harness.prescription.indications import Candidate, Signs, candidates, contraindication, signs_of
from harness.prescription.prescription import Prescription, PrescriptionInterrupted
from harness.prescription.proof import effects_of, fresh_effects, remedies_of
from harness.prescription.remedy import Remedy
from harness.prescription.screening import ROUNDS, Screening, at_best_rates, screen
from harness.prescription.texts import headline, not_seen, stopped_headline, tried_rows
from harness.prescription.trial import UNTREATED, Trial, cores_for, name_of
<<<<<<< HEAD
from harness.remedies import apply_remedies, why_not_applicable
from harness.remedies.source_code import source_code
from harness.report.remedy_code import remedy_code
from harness.results import COLLAPSED, MemberRecord
from harness.user_code import guarded

if TYPE_CHECKING:
    from harness.effects.remedy_effects import RemedyEffect
=======
from harness.prescription.words import change_of
from harness.remedies import why_not_applicable
from harness.results import MemberRecord, case_fingerprint, results_folder
>>>>>>> main

Cell = Mapping[str, Level]
Says = Callable[[str], None]

EXAMINED, FIRST_EXAMINED, MOST_EXAMINED = 8, 2, 16  # seeds of the model as it is
EXAMINED_SHARE = 0.2  # of the budget, for the seeds after the first ones
SCREENING_SHARE = 0.5  # of the remaining time
RATES_SHARE = 0.25  # of the time that remains after the screening


def prescribe(
    case: "Case | str | Path",
    budget: str | float = "5m",
    seeds: int | None = None,
    try_only: Sequence[str] | None = None,
    goal: str = "usable",
    workers: int | None = None,
    says: Says = lambda text: None,
    root: Path | None = None,
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
        root: folder that contains `mlruns/`, where results of a case in a file are stored; None means the current one.

    Returns:
        The prescription. Its remedies are ranked by what was seen on the fresh seeds alone.

    Raises:
        HarnessError: for a request that cannot be carried out.
        PrescriptionInterrupted: on Ctrl-C, with what was seen until then; stored results are used by the next call.
    """
    search = Search(case, budget, seeds, goal, workers, says, root)
    chosen = None if try_only is None else [change_of(word, search.case) for word in try_only]
    try:
        search.examine()
        if chosen is not None or search.is_wrong:
            search.choose(chosen)
            search.screen()
            search.prove()
    except KeyboardInterrupt as stop:
        raise PrescriptionInterrupted(search.result(interrupted=True)) from stop
    return search.result()


class Search:
    """A search for a remedy, with everything seen so far.

    Args:
        case, budget, seeds, goal, workers, says, root: as in `prescribe`.
    """

    def __init__(
        self,
        case: "Case | str | Path",
        budget: str | float,
        seeds: int | None,
        goal: str,
        workers: int | None,
        says: Says,
        root: Path | None,
    ) -> None:
        self.started = time.perf_counter()
        self.budget, self.meets, self.seeds, self.says = seconds_of(budget), goal_of(goal), seeds, says
        if seeds is not None and seeds < 2:
            raise HarnessError(f"seeds: expected at least 2, got {seeds}")
        # a `Case` may differ from the one in the file that it was loaded from: it is trained as it is given
        reference = None if isinstance(case, Case) else str(case)
        self.case = case if isinstance(case, Case) else load_case(case)
        self.split: Split = split_of(self.case)
        self.trial = _trial(self.case, reference, self.split, workers, root or Path.cwd())
        self.faults: Sequence[Any] = ()
        self.findings: tuple[Mapping[str, Any], ...] = ()
        self.untreated: list[MemberRecord] = []
        self.signs: Signs | None = None
        self.tried: list[Candidate] = []
        self.excluded: list[Candidate] = []
        self.screening = Screening()
        self.remedies: tuple[Remedy, ...] = ()
        self.fresh: range = range(0)
        self.finalists: list[Cell] = []
        self.notes: list[str] = []

    @property
    def remaining(self) -> float:
        """Seconds left of the budget."""
        return self.budget - (time.perf_counter() - self.started)

    @property
    def is_wrong(self) -> bool:
        """True if the audit names a fault, or a seed of the model as it is misses the goal."""
        return bool(self.faults) or not all(self.meets(record) for record in self.untreated)

    def examine(self) -> None:
        """Audit the case, and train it as it is on a few seeds; fewer where a member takes long."""
        self.says(f"examining: audit, and the model as it is; the budget is {self.budget:.0f} s")
        examined = audit(self.case, during_training=True)
        self.faults = examined.faults
        self.findings = tuple(finding.to_dict() for finding in examined.findings)
        self.trial.train([UNTREATED], range(FIRST_EXAMINED))
        per_member = self.trial.seconds_per_member
        affordable = int(EXAMINED_SHARE * self.budget / per_member) if per_member else EXAMINED
        seeds = range(min(EXAMINED, max(FIRST_EXAMINED, affordable)))
        self.trial.train([UNTREATED], seeds)
        self.untreated = self.trial.results(UNTREATED, seeds)
        if len(seeds) < affordable and 0 < sum(map(self.meets, self.untreated)) < len(seeds):
            # some seeds fail: the screening needs more of those, since only they can show a cure
            seeds = range(min(MOST_EXAMINED, affordable))
            self.trial.train([UNTREATED], seeds)
            self.untreated = self.trial.results(UNTREATED, seeds)
        self.signs = signs_of(self.case, examined, self.untreated)
        if all(self.meets(record) for record in self.untreated) and is_poor(self.untreated):
            self.meets = beats_half_of_pca(self.untreated)

    def choose(self, chosen: Sequence[Cell] | None) -> None:
        """Choose the changes to try: those that the signs suggest, or the given ones."""
        assert self.signs is not None
        if chosen is None:
            self.tried, self.excluded = candidates(self.case, self.split, self.signs)
            return
        for cell in chosen:
            reason = contraindication(cell, self.signs) or why_not_applicable(self.case, cell, self.split)
            (self.excluded if reason else self.tried).append(Candidate(cell, reason or "asked for"))

    def screen(self) -> None:
        """Train the changes in rounds, and the best ones at other learning rates."""
        cells = [candidate.cell for candidate in self.tried]
        if not cells:
            return
        seconds = max(1.0, SCREENING_SHARE * self.remaining)
        failing = [record.seed for record in self.untreated if not self.meets(record)]
        order = (*failing, *(seed for seed in range(ROUNDS[-1]) if seed not in failing))
        screen(self.trial, cells, self.meets, seconds, self.says, self.screening, order)
        self.finalists = list(self.screening.finalists)
        if self.finalists and self.case.fit is None:
            self._choose_rates()

<<<<<<< HEAD
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
=======
    def prove(self) -> None:
        """Train the finalists and the model as it is on fresh seeds."""
        if not self.finalists:
            return
        effects, self.fresh, notes = fresh_effects(
            self.trial, self.finalists, self.seeds, self.remaining, self.meets, self.says
>>>>>>> main
        )
        self.notes += notes
        self.remedies = remedies_of(self.trial, effects, self.split, self.fresh)

    def result(self, interrupted: bool = False) -> Prescription:
        """Return the prescription of everything seen so far."""
        if interrupted:
            self._prove_with_what_is_there()
        wrong = bool(self.untreated) and self.is_wrong
        return Prescription(
            self.case.name,
            stopped_headline(self) if interrupted and not self.remedies else headline(self),
            wrong,
            self.remedies,
            tried_rows(self.tried, self.screening),
            tuple({"name": name_of(candidate.cell), "reason": candidate.reason} for candidate in self.excluded),
            self.findings,
            dict(Counter(record.reported_verdict or record.status for record in self.untreated)),
            (*self.screening.notes, *self.notes, *not_seen(self), *_storage_notes(self.trial)),
            time.perf_counter() - self.started,
            interrupted,
        )

    def _choose_rates(self) -> None:
        """Put the finalists, and the model as it is, at their best learning rates."""
        self.says("other learning rates, for the finalists and for the model as it is")
        rate = float(self.case.training()["learning_rate"])
        seconds = RATES_SHARE * self.remaining
        untreated, *finalists = at_best_rates(
            self.trial, [UNTREATED, *self.finalists], self.meets, rate, seconds, self.screening
        )
        if untreated and untreated not in finalists:
            self.notes.append(f"the model as it is was also proved at its best learning rate: {name_of(untreated)}")
            finalists.append(untreated)
        self.finalists = finalists

    def _prove_with_what_is_there(self) -> None:
        """Compare the fresh seeds that every finalist has, after an interruption."""
        if self.remedies or not self.finalists:
            return
        from harness.prescription.proof import FRESH, MOST_SEEDS

        cells = [UNTREATED, *self.finalists]
        complete = [
            seed for seed in range(FRESH, FRESH + MOST_SEEDS) if all(self.trial.results(cell, [seed]) for cell in cells)
        ]
        if len(complete) > 1:
            effects = effects_of(self.trial, self.finalists, complete, self.meets)
            self.remedies = remedies_of(self.trial, effects, self.split, complete)


def _trial(case: Case, reference: str | None, split: Split, workers: int | None, root: Path) -> Trial:
    """The trial of a case; results are stored if the case is in a file."""
    workers = cores_for(reference) if workers is None else workers
    if reference is None or case.source is None:
        return Trial(case, reference, workers)
    folder = results_folder(f"prescribe {case.name}", root)
    return Trial(case, reference, workers, folder, (split.fingerprint, case_fingerprint(case.source)))


def _storage_notes(trial: Trial) -> tuple[str, ...]:
    if trial.used:
        return (f"{trial.used} members were trained before, and were not trained again",)
    return ()
