"""Examine a model, screen the remedies that its signs suggest, and prove the best ones on fresh seeds."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.auditing import audit
from harness.case import NOT_AUDITED, Case, load_case
from harness.data import split_of
from harness.data.rows import Split
from harness.errors import HarnessError
from harness.experiment.cluster import check_on
from harness.factors import Level
from harness.prescription.goal import PCA_SHARE, above, failed_if, goal_of, is_poor, pca_level, seconds_of
from harness.prescription.indications import Candidate, Signs, candidates, contraindication, signs_of
from harness.prescription.prescription import Prescription, PrescriptionInterrupted
from harness.prescription.proof import effects_of, fresh_effects, remedies_of
from harness.prescription.remedy import Remedy
from harness.prescription.screening import LEAST, ROUNDS, Screening, at_best_rates, screen
from harness.prescription.texts import headline, not_seen, stopped_headline, too_few_seeds, tried_rows
from harness.prescription.trial import UNTREATED, Trial, cores_for, name_of
from harness.prescription.words import change_of
from harness.remedies import why_not_applicable
from harness.results import MemberRecord, case_fingerprint, results_folder
from harness.text import plural
from harness.training.schedules import sets_rates_itself

Cell = Mapping[str, Level]
Says = Callable[[str], None]

EXAMINED, FIRST_EXAMINED, MOST_EXAMINED = 8, 2, 16  # seeds of the model as it is
EXAMINED_SHARE = 0.2  # of the remaining time, for the seeds after the first ones
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
    on: str | None = None,
) -> Prescription:
    """Find the remedy that works on a case, and prove it on seeds that the search never saw.

    Args:
        case: a case, the name of a shipped one, or the path of a case file. A `Case` is trained in this process and its
            results are not stored; a name or a path has worker processes, and goes on from stored results.
        budget: wall time, such as `"90s"`, `"5m"` or seconds as a number. The time of the audit counts.
        seeds: fresh seeds of the proof; None takes as many as the budget allows, from 8 to 32.
        try_only: changes to try, as words: a factor with its level (`"bias_init=zero"`), or the level alone
            (`"leaky_relu"`); a factor of two levels may stand alone (`"batchnorm"`). None lets the signs decide.
        goal: outcome that counts: `"live"` (not collapsed), `"usable"` (not failed), or a bound such as `"r2>0.4"`.
        workers: worker processes; None means one per core, and none for a `Case`.
        says: told of each step, in a line.
        root: folder that contains `mlruns/`, where the results are stored; None means the current one.
        on: cluster that trains the members, `ray` or `ray://head:10001`; None for this machine.

    Returns:
        The prescription. Its remedies are ranked by what was seen on the fresh seeds alone.

    Raises:
        HarnessError: for a request that cannot be carried out.
        PrescriptionInterrupted: on Ctrl-C, with what was seen until then; stored results are used by the next call.
    """
    check_on(on, workers == 0)
    search = Search(case, budget, seeds, goal, workers, says, root)
    chosen = None if try_only is None else [change_of(word, search.case) for word in try_only]
    with search.trial.training_on(on, says):
        return _run(search, chosen)


def _run(search: "Search", chosen: "Sequence[Cell] | None") -> Prescription:
    """Carry out a search.

    Raises:
        PrescriptionInterrupted: on Ctrl-C, with what was seen until then.
    """
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
        self.budget, self.seeds, self.says = seconds_of(budget), seeds, says
        self.goal, self.meets, self.failed_if = goal, goal_of(goal), failed_if(goal)
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
        self.lost: list[MemberRecord] = []  # of the model as it is, without a result
        self.signs: Signs | None = None
        self.tried: list[Candidate] = []
        self.excluded: list[Candidate] = []
        self.screening = Screening()
        self.remedies: tuple[Remedy, ...] = ()
        self.fresh: Sequence[int] = ()
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
        report = audit(self.case, during_training=True) if self.case.has_losses else None
        if report is None:
            self.notes.append(NOT_AUDITED)
        else:
            self.faults = report.faults
            self.findings = tuple(finding.to_dict() for finding in report.findings)
        self._train_untreated(range(FIRST_EXAMINED))
        self._train_untreated(range(self._affordable(EXAMINED)))
        if not self.faults and all(map(self.meets, self.untreated)):
            # nothing else will be trained if no seed fails, so all of the time is there for more of them
            self._train_untreated(range(self._affordable(EXAMINED, share=1.0)))
            if len(self.untreated) + len(self.lost) < EXAMINED:
                self.notes.append(too_few_seeds(len(self.untreated), EXAMINED))
        if 0 < sum(map(self.meets, self.untreated)) < len(self.untreated):
            # some seeds fail: the screening needs more of those, since only they can show a cure
            self._train_untreated(range(self._affordable(MOST_EXAMINED)))
        if self.lost:
            seeds = plural(len(self.untreated) + len(self.lost), "seed")
            self.notes.append(f"{len(self.lost)} of {seeds} of the model as it is have no result: {self.lost[0].error}")
        self.signs = signs_of(self.case, self.split, report, self.untreated)
        if self.goal == "usable" and is_poor([record for record in self.untreated if self.meets(record)]):
            components, level = pca_level(self.untreated)
            bound = PCA_SHARE * level
            self.meets = above(bound)
            self.failed_if += f", or R2 up to {bound:.2f}, half of that of PCA with {plural(components, 'component')}"

    def _affordable(self, most: int, share: float = EXAMINED_SHARE) -> int:
        """Seeds of the model as it is that fit a share of the remaining budget."""
        fitting = (
            count
            for count in range(most, FIRST_EXAMINED, -1)
            if self.trial.expected([UNTREATED], range(count)) <= share * self.remaining
        )
        return next(fitting, FIRST_EXAMINED)

    def _train_untreated(self, seeds: range) -> None:
        self.trial.train([UNTREATED], seeds)
        records = self.trial.results(UNTREATED, seeds)
        if len(records) <= len(self.untreated) + len(self.lost):
            return
        self.untreated = [record for record in records if record.status != "failed"]
        self.lost = [record for record in records if record.status == "failed"]
        if not self.untreated:
            raise HarnessError(f"{self.case.name}: training failed on every seed: {self.lost[0].error}")

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
        failing = [record.seed for record in self.untreated if not self.meets(record)]
        order = (*failing, *(seed for seed in range(ROUNDS[-1]) if seed not in failing))
        waiting = [candidate.cell for candidate in self.tried]
        least = (1 - SCREENING_SHARE) * self.remaining  # what the proof keeps
        # times are overestimated at first: what was left out is tried beside the finalists while there is time
        while waiting:
            seconds = max(1.0, self.remaining - least)
            if self.screening.scores and self.trial.expected([UNTREATED, waiting[0]], order[:LEAST]) > seconds:
                break
            self.screening.notes.clear()  # of rounds that were left out
            cells = [*self.screening.finalists, *waiting]
            screen(self.trial, cells, self.meets, seconds, self.says, self.screening, order)
            waiting = [cell for cell in waiting if name_of(cell) not in self.screening.scores]
        if waiting:
            self.notes.append(f"left out for want of time: {', '.join(map(name_of, waiting))}")
            self.tried = [candidate for candidate in self.tried if candidate.cell not in waiting]
        self.finalists = list(self.screening.finalists)
        if self.finalists and self.case.fit is None:
            self._choose_rates()

    def prove(self) -> None:
        """Train the finalists and the model as it is on fresh seeds."""
        if not self.finalists:
            return
        failing = sum(not self.meets(record) for record in self.untreated) / max(1, len(self.untreated))
        effects, self.fresh, notes = fresh_effects(
            self.trial, self.finalists, self.seeds, self.remaining, self.meets, self.says, failing
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
            dict(
                Counter(
                    [record.reported_verdict or record.status for record in self.untreated] + ["lost"] * len(self.lost)
                )
            ),
            (*self.screening.notes, *self.notes, *not_seen(self), *_storage_notes(self.trial)),
            time.perf_counter() - self.started,
            interrupted,
            self.failed_if,
            [record for cell in (UNTREATED, *self.finalists) for record in self.trial.results(cell, self.fresh)],
        )

    def _choose_rates(self) -> None:
        """Put the finalists, and the model as it is, at their best learning rates."""
        if sets_rates_itself(self.case):
            self.notes.append("other learning rates were left out: the case's scheduler sets them itself")
            return
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
            self.fresh = complete
            effects = effects_of(self.trial, self.finalists, complete, self.meets)
            self.remedies = remedies_of(self.trial, effects, self.split, complete)


def _trial(case: Case, reference: str | None, split: Split, workers: int | None, root: Path) -> Trial:
    """The trial of a case; results are stored if the case is in a file."""
    workers = cores_for(reference) if workers is None else workers
    if reference is None or case.source is None:
        return Trial(case, reference, workers, rows=len(split.train))
    folder = results_folder(f"prescribe {case.name}", root)
    return Trial(case, reference, workers, folder, (split.fingerprint, case_fingerprint(case.source)), len(split.train))


def _storage_notes(trial: Trial) -> tuple[str, ...]:
    if trial.used:
        return (f"{trial.used} members were trained before, and were not trained again",)
    return ()
