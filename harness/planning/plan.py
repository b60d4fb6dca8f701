"""The plan of an experiment: what it runs, what it costs, and what it can detect. Nothing is trained or written."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.grid.experiment import Experiment
from harness.grid.factorial import changes
from harness.grid.names import cell_name
from harness.grid.stack_plan import stacks
from harness.planning import cost
from harness.planning.cost import Detectable, Training
from harness.user_code import guarded

if TYPE_CHECKING:
    from harness.case import Case
    from harness.data.rows import Split
    from harness.training import VmapSupport

CONFIRMING_SEEDS = 8
FAILED_SHARES = (0.2, 0.4, 0.8)  # of the baseline, for which the power is stated
MOST_MATCHED = 64  # variants whose beta is computed for the plan; each takes a hundredth of a second
LARGE = "the model is too large to share a stack; its members train one after another"
REMEDIES = (
    "penalty",
    "bias_init",
    "activation",
    "batchnorm",
    "dropout",
    "output_activation",
    "inputs",
    "units",
    "free_bits",
)


@dataclass(frozen=True)
class PlannedStack:
    """Members of one structure.

    Args:
        members: their number.
        why: the levels that they share.
        alone: the reason why they train one by one instead of as one batched program; None if they stack.
    """

    members: int
    why: str
    alone: str | None = None


@dataclass(frozen=True)
class NotApplicable:
    """A level that cannot be applied to the case, with the reason; its members become rows with the status failed."""

    levels: str
    reason: str
    members: int


@dataclass(frozen=True)
class RemedyPower:
    """Probability that a remedy which cures every failure is confirmed.

    Args:
        failed: failed share of the baseline, from 0 to 1; the remedy's is 0.
        remedies: number of remedies that are compared with the baseline.
        probability: from 0 to 1, by the exact McNemar test with mid-p and Benjamini-Hochberg.
    """

    failed: float
    remedies: int
    probability: float


@dataclass(frozen=True)
class Plan:
    """Everything that is known before training starts; `minutes`, `megabytes` and `metric_rows` are estimates."""

    experiment: str
    case: str
    data: str | None
    factors: dict[str, list[Any]]
    baseline: dict[str, Any]
    interactions: list[list[str]]
    contrasts: list[list[str]]
    seeds: int
    splits: int
    members: int
    variants: list[str]
    stacks: list[PlannedStack]
    not_applicable: list[NotApplicable]
    matched_beta: dict[str, float]
    rows: dict[str, int]
    steps_per_epoch: int
    member_steps: int
    metric_rows: int
    megabytes: float
    minutes: float
    detectable: list[Detectable]
    power: list[RemedyPower]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values, with the names of the fields."""
        return asdict(self)


@dataclass(frozen=True)
class _PlannedExperiment:
    """An experiment, its case with the experiment's training numbers, and its rows."""

    experiment: Experiment
    case: "Case"
    split: "Split"


def plan(experiment: Experiment, earlier: Mapping[str, float] | None = None, rate: float | None = None) -> Plan:
    """Plan an experiment.

    Args:
        experiment: to be planned.
        earlier: standard deviation, over seeds, of each factor's per-seed differences, from earlier results.
        rate: member-steps per second and core, from earlier results.

    Raises:
        HarnessError: if the case or its data cannot be used.
    """
    subject = _subject(experiment)
    refused = _refused(subject)
    cut = stacks(experiment)
    stacking = _stacking(subject, {level for name, level, _ in refused if name == "penalty"})
    sites = [str(stack.members[0].variant.levels.get("penalty", "as_posted")) for stack in cut]
    reasons = [_alone(stacking.get(site)) for site in sites]
    training = Training(subject.case.training(), len(subject.split.train))
    steps = cost.member_steps(training, cut)
    units, terms, no_r2 = _looked_at(subject)
    rows = cost.metric_rows(training, cut, units, terms)
    members = len(experiment.members())
    return Plan(
        experiment=experiment.name,
        case=experiment.case,
        data=experiment.data,
        factors={name: list(experiment.levels(name)) for name in experiment.factors},
        baseline=dict(experiment.baseline),
        interactions=[list(pair) for pair in experiment.interactions],
        contrasts=[[cell_name(cell) for cell in pair] for pair in experiment.contrasts],
        seeds=len(experiment.seeds),
        splits=experiment.splits,
        members=members,
        variants=[variant.name for variant in experiment.variants()],
        stacks=[PlannedStack(len(stack.members), stack.why, why) for stack, why in zip(cut, reasons, strict=True)],
        not_applicable=[_not_applicable(experiment, *stack) for stack in refused],
        matched_beta=_matched(subject),
        rows={"train": len(subject.split.train), "evaluation": len(subject.split.evaluation)},
        steps_per_epoch=training.steps_per_epoch(experiment.baseline),
        member_steps=sum(steps),
        metric_rows=rows,
        megabytes=round(cost.megabytes(rows, members), 1),
        minutes=round(
            cost.minutes(steps, [len(stack.members) for stack in cut], [why is not None for why in reasons], rate), 2
        ),
        detectable=cost.detectable(experiment.blocks, earlier),
        power=_power(experiment),
        notes=[*_split_numbers(experiment, stacking), *no_r2, *_notes(experiment, rate)],
    )


def _power(experiment: Experiment) -> list[RemedyPower]:
    """Return the power of the comparison of each remedy alone with the baseline."""
    from harness.effects.power import mcnemar_power

    cells = [changes(variant.levels, experiment.baseline) for variant in experiment.variants()]
    crossed = any(len(levels) > 1 for levels in experiment.factors.values()) and not experiment.remedies
    remedies = sum(bool(cell) and (len(cell) == 1 or not crossed) for cell in cells)
    if not remedies:
        return []
    seeds = experiment.blocks
    return [
        RemedyPower(share, remedies, round(mcnemar_power(seeds, share, tests=remedies), 3)) for share in FAILED_SHARES
    ]


def _subject(experiment: Experiment) -> _PlannedExperiment:
    from harness.case import load_case
    from harness.data.split import check_splits, split_of

    case = load_case(experiment.case_reference)
    check_splits(case, experiment.splits)
    split = split_of(case, experiment.data_reference)
    return _PlannedExperiment(experiment, replace(case, train={**case.train, **experiment.train}), split)


def _refused(subject: _PlannedExperiment) -> list[tuple[str, Any, str]]:
    """Return every level that cannot be applied to the case, with the reason."""
    from harness.remedies import why_not_applicable

    refused = []
    for name in REMEDIES:
        for level in subject.experiment.levels(name) if name in subject.experiment.factors else ():
            why = why_not_applicable(subject.case, {name: level}, subject.split)
            refused += [] if why is None else [(name, level, why)]
    return refused


def _not_applicable(experiment: Experiment, name: str, level: Any, why: str) -> NotApplicable:
    variants = sum(variant.levels[name] == level for variant in experiment.variants())
    return NotApplicable(f"{name}: {level}", why, variants * experiment.blocks)


def _stacking(subject: _PlannedExperiment, refused: set[Any]) -> "dict[str, VmapSupport]":
    """Check for each penalty whether its members can be batched; the other remedies are not applied."""
    from harness.remedies import apply_remedies
    from harness.training import VmapSupport, check_vmap_support

    def tried(site: str) -> VmapSupport:
        try:
            with guarded():
                return check_vmap_support(
                    apply_remedies(subject.case, {"penalty": site}, subject.split),
                    subject.split.train.inputs,
                    plan=True,
                    targets=subject.split.train.targets,
                )
        except HarnessError:
            raise
        except Exception:  # the case's code may raise anything; its members train one by one, and may fail
            return VmapSupport(None, frozenset(), "it could not be tried")

    factors = subject.experiment.factors
    sites = map(str, subject.experiment.levels("penalty")) if "penalty" in factors else ("as_posted",)
    return {site: tried(site) for site in sites if site not in refused}


def _alone(stacking: "VmapSupport | None") -> str | None:
    return None if stacking is None or stacking.rule is not None else stacking.reason


def _split_numbers(experiment: Experiment, stacking: "Mapping[str, VmapSupport]") -> list[str]:
    """Explain why members of one structure do not share a stack: the loss needs plain numbers, or the model is large."""
    large = any(support.rule is not None and not support.shares for support in stacking.values())
    return [LARGE] * large + [
        f"penalty {site}: the loss takes {name} as a plain number only, so its levels are batched apart"
        for site, support in stacking.items()
        for name in sorted(support.fixed)
        if support.rule is not None and name in experiment.factors
    ]


def _looked_at(subject: _PlannedExperiment) -> tuple[int, int, list[str]]:
    """Count units and loss terms (the largest numbers), and explain a missing R2."""
    from harness.case import build_optimizer
    from harness.loss_terms import bind_losses, loss_terms
    from harness.models import build_model
    from harness.remedies.layout import inspect_model

    case, batch = subject.case, subject.split.train.inputs[: subject.case.training()["batch_size"]]
    units = subject.experiment.levels("units") if "units" in subject.experiment.factors else ()
    model = build_model(case, 0, batch)
    targets = subject.split.train.targets
    terms = loss_terms(case, model, batch, targets) if case.has_losses else {}
    build_optimizer(case, model)
    layout = inspect_model(bind_losses(case, targets), batch)
    widest = max((int(width) for width in units), default=layout.form.units)
    return widest, len(terms), [f"R2 is not available: {layout.no_r2}"] if layout.no_r2 else []


def _matched(subject: _PlannedExperiment) -> dict[str, float]:
    """Return the beta that `matched` stands for in each variant; variants without a penalty gradient are left out."""
    from harness.remedies import matched_beta

    variants = [variant for variant in subject.experiment.variants() if variant.levels.get("beta") == "matched"]
    betas: dict[str, float] = {}
    for variant in variants[:MOST_MATCHED]:
        try:
            betas[variant.name] = matched_beta(subject.case, variant.levels, subject.split)
        except HarnessError:  # reported by `not_applicable`
            continue
    return betas


def _notes(experiment: Experiment, rate: float | None) -> list[str]:
    from harness.effects.analysis import scope_of

    notes = [
        scope_of(len(experiment.seeds), experiment.splits).rstrip(".").replace("Scope", "scope", 1),
        f"minutes: on {cost.CORES} cores, {'at the rate of earlier results' if rate else 'at a typical rate'}",
    ]
    if experiment.blocks < CONFIRMING_SEEDS:
        notes.append(
            f"{experiment.blocks} seeds can confirm no effect (at least {CONFIRMING_SEEDS} are needed): estimates only"
        )
    return notes
