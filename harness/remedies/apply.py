"""Application of remedies: a case and the levels of a variant give a treated case, again an ordinary case."""

import inspect
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from harness.case import PENALTY_WEIGHT, Case
from harness.data import split_of
from harness.data.rows import Rows, Split
from harness.errors import HarnessError
from harness.factors import FACTORS, OWN_FIRST, Level, check_level
from harness.loss_terms import BoundLosses, bind_losses, check_terms
from harness.models import build_model
from harness.remedies.catalogue import REMEDIES, case_number
from harness.remedies.dormant_units import auxk_loss
from harness.remedies.free_bits import KlTerm, divergences_of, kl_term
from harness.remedies.gradients import gradient_norms
from harness.remedies.initial_values import DEFAULT, Factory, InitialWeights, ZeroBias
from harness.remedies.layout import ModelLayout, inspect_model
from harness.remedies.not_applicable import RemedyNotApplicable
from harness.remedies.optimizer_settings import with_schedules
from harness.remedies.posterior import log_variance
from harness.remedies.wrapper import TreatedModel, Treatment


def apply_remedies(case: Case, levels: Mapping[str, Level], split: Split | None = None) -> Case:
    """Return the case under the remedies named in `levels`.

    Args:
        case: any case; it is not changed.
        levels: factor -> level; other factors keep the case's own level.
        split: its rows, if available.

    Returns:
        A case whose model wraps the author's (`.model`) and whose loss acts on it; the case itself if the program
        does not change.

    Raises:
        RemedyNotApplicable: when a remedy cannot be applied to this model.
        HarnessError: for unknown levels.
    """
    levels = weight_by_name(case, {name: check_level(name, value, case.numbers) for name, value in levels.items()})
    _check_fit(case, levels)
    split = split or split_of(case)
    case = _with_units(case, levels)
    layout = inspect_model(bind_losses(case, split.train.targets), split.train.inputs)
    treatment = treatment_of(case, levels, layout)
    kl = None
    if treatment.floor and treatment.own_penalty:
        kl = kl_term(case, split.train.inputs, split.train.targets, calls_model=layout.scope != "loss")
    if not treatment.centered:
        return _apply(case, treatment, layout, kl)
    if split.train.quantities is None:
        raise RemedyNotApplicable("inputs: the model takes rows of integers (tokens), which have no mean")
    return _center_inputs(_apply(case, treatment, layout, kl), split)


def weight_by_name(case: Case, levels: Mapping[str, Level]) -> dict[str, Level]:
    """Return the levels, with factor `beta` renamed to the case's weight of its penalties.

    If the case has another weight and also a number `beta`, the factor `beta` is that number.

    Raises:
        HarnessError: when the levels use both names for the weight.
    """
    name = case.weight_name
    if PENALTY_WEIGHT not in levels or name == PENALTY_WEIGHT or PENALTY_WEIGHT in case.numbers:
        return dict(levels)
    if name in levels:
        raise HarnessError(
            f"{PENALTY_WEIGHT} and {name} are one number of {case.name}, the weight of its penalties; expected one of them"
        )
    return {name if factor == PENALTY_WEIGHT else factor: level for factor, level in levels.items()}


def why_not_applicable(case: Case, levels: Mapping[str, Level], split: Split | None = None) -> str | None:
    """Return the reason why the levels cannot be applied to this case; None if they can."""
    try:
        apply_remedies(case, levels, split)
    except RemedyNotApplicable as error:
        return str(error)
    return None


def same_as_default(case: Case, levels: Mapping[str, Level], layout: ModelLayout) -> dict[str, bool]:
    """Return, per level, True if it changes nothing of this case, such as `relu` on an output that already is one."""
    return {
        name: treatment_of(case, {name: level}, layout) == Treatment()
        for name, level in levels.items()
        if name in REMEDIES
    }


def treatment_of(case: Case, levels: Mapping[str, Level], layout: ModelLayout) -> Treatment:
    """Return the combined treatment of the levels in this model."""
    treatment = Treatment()
    for name, level in levels.items():
        if _is_number(name, case) and level != "matched":
            treatment = case_number(name, level, treatment, name in case.numbers)
    for name, remedy in REMEDIES.items():
        if name in levels and not _is_number(name, case):
            treatment = remedy(levels[name], case, layout, treatment)
    return treatment


def _check_fit(case: Case, levels: Mapping[str, Level]) -> None:
    """Refuse levels that a case's own `fit` would not use.

    Raises:
        RemedyNotApplicable: for another penalty, another number or other inputs.
    """
    if case.fit is None:
        return
    for name, level in levels.items():
        default = FACTORS[name].default if name in FACTORS else None
        unchanged = level == default or level == {**case.train, **case.numbers}.get(name)
        if unchanged or name in (
            "bias_init",
            "weight_init",
            "activation",
            "batchnorm",
            "dropout",
            "output_activation",
            "units",
        ):
            continue
        if name in ("penalty", "free_bits", "beta", "rho", case.penalty_weight):
            raise RemedyNotApplicable(
                f"{name}: a penalty needs `losses` that the harness trains; Case.fit trains by itself"
            )
        raise RemedyNotApplicable(f"{name}: Case.fit trains by itself and does not use this factor")


def _is_number(name: str, case: Case) -> bool:
    """Return True for a number of the case or its training, False for a remedy."""
    return name not in REMEDIES or (name in OWN_FIRST and name in case.numbers)


def matched_beta(case: Case, levels: Mapping[str, Level], split: Split, seeds: int = 5) -> float:
    """Return the beta at which the penalties' gradient at the bottleneck has the norm of the objective's, at initialization.

    Returns:
        The mean over `seeds` initializations, on the first batch of the training rows; 0 for a penalty without a
        gradient there, which no beta can match.

    Raises:
        RemedyNotApplicable: when the weight of the case's penalties is not its number `beta`.
    """
    if case.penalty_weight not in (None, PENALTY_WEIGHT) and PENALTY_WEIGHT in case.numbers:
        raise RemedyNotApplicable(
            f"{PENALTY_WEIGHT}: `matched` stands for a weight of the penalties, which {case.name} calls"
            f" {case.penalty_weight!r}; vary {case.penalty_weight} by numbers"
        )
    treated = apply_remedies(
        case, {name: value for name, value in levels.items() if (name, value) != (PENALTY_WEIGHT, "matched")}, split
    )
    treated = bind_losses(treated, split.train.targets)
    batch = split.train.inputs[: treated.training()["batch_size"]]
    numbers = {**treated.numbers, treated.weight_name: 1.0}
    ratios = []
    for seed in range(seeds):
        norms = gradient_norms(treated, build_model(treated, seed, batch), batch, numbers)
        penalty = sum(value for name, value in norms.items() if name != treated.objective)
        ratios.append(norms[treated.objective] / penalty if penalty else 0.0)
    return float(sum(ratios) / len(ratios))


def _with_units(case: Case, levels: Mapping[str, Level]) -> Case:
    if "units" not in levels:
        return case
    if "units" not in inspect.signature(case.model).parameters:
        raise RemedyNotApplicable("units: Case.model takes no keyword `units`, so its bottleneck's width cannot be set")
    return replace(case, model=Factory(case.model, {"units": int(levels["units"])}))


def _apply(case: Case, treatment: Treatment, layout: ModelLayout, kl: KlTerm | None) -> Case:
    case = with_schedules(_with_numbers(case, treatment), treatment)
    if treatment.weights != DEFAULT:
        case = replace(case, model=InitialWeights(case.model, treatment.weights))
    if treatment.zero_bias:
        case = replace(case, model=ZeroBias(case.model))
    if treatment.own_penalty and treatment.edits_nothing and kl is None:
        return case
    inside = "" if case.bottleneck.startswith("out:") else "model."
    return replace(
        case,
        model=_TreatedFactory(case, treatment, layout),
        losses=TreatedLosses(case, treatment, layout.scope == "loss", kl) if case.has_losses else case.losses,
        bottleneck=f"{inside}{case.bottleneck}",
        posterior=_in_wrapper(case.posterior),
        penalty_weight=case.penalty_weight if treatment.own_penalty else case.weight_name,
    )


def _in_wrapper(posterior: str | None) -> str | None:
    return posterior if posterior is None or posterior.startswith("out:") else f"model.{posterior}"


def _with_numbers(case: Case, treatment: Treatment) -> Case:
    """Return the case with the treatment's numbers; `rho` only if a penalty of the variant reads it.

    Raises:
        RemedyNotApplicable: when the author's loss weighs itself and takes no number that the factor could set.
    """
    treated = replace(case, numbers={**case.numbers, **treatment.numbers}, train={**case.train, **treatment.train})
    if not treatment.own_penalty:
        return treated
    taken = treated.loss_keywords()
    if case.penalty_weight is None and PENALTY_WEIGHT in treatment.numbers and PENALTY_WEIGHT not in taken:
        raise RemedyNotApplicable(
            f"{PENALTY_WEIGHT}: the loss weighs itself (penalty_weight=None), and takes no number of that name; vary a"
            " number that it takes"
        )
    if "rho" not in treatment.numbers:
        return treated
    if "rho" not in taken:
        numbers = {name: value for name, value in treated.numbers.items() if name != "rho" or name in case.numbers}
        return replace(treated, numbers={**numbers, **{k: v for k, v in case.numbers.items() if k == "rho"}})
    # a target equal to the number follows the number
    return replace(treated, target=None) if case.target == case.numbers.get("rho") else treated


def _center_inputs(case: Case, split: Split) -> Case:
    mean = split.train.inputs.mean(dim=0)
    train, evaluation = (replace(rows, inputs=rows.inputs - mean) for rows in (split.train, split.evaluation))
    return replace(case, data=_StoredRows(train), evaluation=_StoredRows(evaluation), labels=None, factors=None)


class _StoredRows:
    """Loaded rows as a data function."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __call__(self) -> Rows:
        return self.rows


class TreatedLosses:
    """The author's loss on the author's model under a treatment, or the objective with the harness's own penalty."""

    def __init__(self, case: Case, treatment: Treatment, everywhere: bool, kl: KlTerm | None = None) -> None:
        self.case, self.treatment, self.everywhere, self.kl = case, treatment, everywhere, kl
        self.weighs_itself = treatment.own_penalty and case.weighs_itself
        names = dict.fromkeys(
            (
                *case.loss_keywords(),
                *case.supplied_keywords(),
                *(("rho",) if treatment.has_target else ()),
                *(("dropout",) if treatment.dropped else ()),
                *(("free_bits",) if treatment.floor else ()),
            )
        )
        keyword_only = inspect.Parameter.KEYWORD_ONLY
        positional = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("model", "batch")]
        self.__signature__ = inspect.Signature(
            [
                *positional,
                *(
                    inspect.Parameter(name, keyword_only)
                    for name in names
                    if name in case.numbers or name in case.supplied_keywords()
                ),
            ]
        )

    def __call__(self, model: TreatedModel, batch: Tensor, **numbers: Any) -> dict[str, Tensor]:
        """Return the terms of the treated loss."""
        own, rate = self.case.loss_arguments(numbers), numbers.get("dropout", model.rate)
        recorded: AbstractContextManager[list[Tensor]]
        recorded = nullcontext([]) if self.kl is None else log_variance(self.case, model.model)
        with model.at_rate(rate), model.tap(self.everywhere) as tap, recorded as log_variances:
            terms = self.case.losses(model.model, batch, **own)
        check_terms(self.case, terms)
        if self.treatment.auxk:
            auxiliary = self.treatment.auxk * auxk_loss(self.case, model, tap.passes[0], batch)
            terms = {**terms, self.case.objective: terms[self.case.objective] + auxiliary}
        if self.kl is not None:
            divergences = divergences_of(self.case, tap.passes[0], log_variances)
            floored = self.kl.value(divergences, numbers["free_bits"], numbers, len(batch))
            return {**terms, self.kl.name: floored}
        if self.treatment.own_penalty:
            return dict(terms)
        name, penalty = self.treatment.penalty
        objective = {self.case.objective: terms[self.case.objective]}
        return {**objective, name: penalty(tap.passes[0], numbers)} if penalty else objective


class _TreatedFactory(Factory):
    """Factory of treated models."""

    def __init__(self, case: Case, treatment: Treatment, layout: ModelLayout) -> None:
        super().__init__(case.model, {})
        self.treatment, self.places, self.bottleneck = treatment, layout, case.bottleneck

    def __call__(self, **keywords: Any) -> nn.Module:
        return TreatedModel(self.model(**keywords), self.treatment, self.places, self.bottleneck)


def judged_target(case: Case) -> float | None:
    """Return the target activation of the penalty of a case, treated or not; None for a penalty without one.

    The harness's own KL has the target `rho`; its other penalties (none, L1, count, top-k) have none. The author's
    penalty has the declared `target`, or the number `rho` of the case.
    """
    losses, target = case.losses, case.rho
    losses = losses.losses if isinstance(losses, BoundLosses) else losses
    if isinstance(losses, TreatedLosses) and not losses.treatment.own_penalty:
        target = case.numbers["rho"] if losses.treatment.has_target else None
    return float(target) if isinstance(target, Tensor) else target
