"""From a case and the levels of a variant to the treated case: an ordinary case again."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import PENALTY_WEIGHT, Case
from harness.data import split_of
from harness.data.rows import Rows, Split
from harness.errors import HarnessError
from harness.factors import Level, check_level
from harness.loss_terms import check_terms
from harness.models import build_model
from harness.remedies.catalogue import REMEDIES, RemedyNotApplicable, case_number
from harness.remedies.gradients import gradient_norms
from harness.remedies.layout import ModelLayout, inspect_model
from harness.remedies.wrapper import TreatedModel, Treatment


def apply_remedies(case: Case, levels: Mapping[str, Level], split: Split | None = None) -> Case:
    """The case under the remedies that `levels` names.

    Args:
        case: any case; it stays as it is.
        levels: factor -> level; factors that are not named stay as the case has them.
        split: its rows, where they are at hand already.

    Returns:
        A case whose model wraps the author's (`.model`) and whose loss acts on it; the case itself where nothing
        of the program changes.

    Raises:
        Refused: when a remedy finds no place in this model.
        HarnessError: for levels that do not exist.
    """
    levels = weight_by_name(case, {name: check_level(name, value, case.numbers) for name, value in levels.items()})
    split = split or split_of(case)
    case = _with_units(case, levels)
    places = inspect_model(case, split.train.inputs[:4])
    recipe = treatment_of(case, levels, places)
    if not recipe.centred:
        return _apply(case, recipe, places)
    if split.train.quantities is None:
        raise RemedyNotApplicable("inputs: the model takes the rows as whole numbers (tokens), and those have no mean")
    return _centred(_apply(case, recipe, places), split)


def weight_by_name(case: Case, levels: Mapping[str, Level]) -> dict[str, Level]:
    """The levels, with that of the factor `beta` under the name that the case gives the weight of its penalties.

    A case whose weight has another name may have a number `beta` of its own: then the factor is that number.

    Raises:
        HarnessError: when both names are there for one number.
    """
    name = case.penalty_weight or PENALTY_WEIGHT
    if PENALTY_WEIGHT not in levels or name == PENALTY_WEIGHT or PENALTY_WEIGHT in case.numbers:
        return dict(levels)
    if name in levels:
        raise HarnessError(
            f"{PENALTY_WEIGHT} and {name} are one number of {case.name}, the weight of its penalties; expected one of them"
        )
    return {name if factor == PENALTY_WEIGHT else factor: level for factor, level in levels.items()}


def why_not_applicable(case: Case, levels: Mapping[str, Level], split: Split | None = None) -> str | None:
    """Why the levels cannot be applied to this case; None when they can."""
    try:
        apply_remedies(case, levels, split)
    except RemedyNotApplicable as error:
        return str(error)
    return None


def same_as_default(case: Case, levels: Mapping[str, Level], places: ModelLayout) -> dict[str, bool]:
    """Which of the levels change nothing of this case: `relu` on an output that already is one."""
    return {
        name: treatment_of(case, {name: level}, places) == Treatment()
        for name, level in levels.items()
        if name in REMEDIES
    }


def treatment_of(case: Case, levels: Mapping[str, Level], places: ModelLayout) -> Treatment:
    """What the levels add up to at the places of this model."""
    recipe = Treatment()
    for name, level in levels.items():
        if name not in REMEDIES and level != "matched":
            recipe = case_number(name, level, recipe)
    for name, remedy in REMEDIES.items():
        if name in levels:
            recipe = remedy(levels[name], case, places, recipe)
    return recipe


def matched_beta(case: Case, levels: Mapping[str, Level], split: Split, seeds: int = 5) -> float:
    """The beta at which the penalties' gradient at the bottleneck has the norm of the reconstruction's, at birth.

    Returns:
        The mean over `seeds` initialisations, on the first batch of the training rows; 0 when the penalty has no
        gradient there (no beta can match it).

    Raises:
        Refused: when the weight of the case's penalties is not its number `beta`.
    """
    if case.penalty_weight not in (None, PENALTY_WEIGHT) and PENALTY_WEIGHT in case.numbers:
        raise RemedyNotApplicable(
            f"{PENALTY_WEIGHT}: `matched` stands for a weight of the penalties, which {case.name} calls"
            f" {case.penalty_weight!r}; vary {case.penalty_weight} by numbers"
        )
    treated = apply_remedies(
        case, {name: value for name, value in levels.items() if (name, value) != (PENALTY_WEIGHT, "matched")}, split
    )
    batch = split.train.inputs[: treated.training()["batch_size"]]
    numbers = {**treated.numbers, treated.penalty_weight or PENALTY_WEIGHT: 1.0}
    ratios = []
    for seed in range(seeds):
        norms = gradient_norms(treated, build_model(treated, seed, batch), batch, numbers)
        penalty = sum(value for name, value in norms.items() if name != "reconstruction")
        ratios.append(norms["reconstruction"] / penalty if penalty else 0.0)
    return float(sum(ratios) / len(ratios))


def _with_units(case: Case, levels: Mapping[str, Level]) -> Case:
    if "units" not in levels:
        return case
    if "units" not in inspect.signature(case.model).parameters:
        raise RemedyNotApplicable("units: Case.model takes no keyword `units`, so its bottleneck's width cannot be set")
    return replace(case, model=_Factory(case.model, {"units": int(levels["units"])}))


def _apply(case: Case, recipe: Treatment, places: ModelLayout) -> Case:
    case = _with_numbers(case, recipe)
    if recipe.zero_bias:
        case = replace(case, model=_ZeroBias(case.model))
    if recipe.own_penalty and recipe.edits_nothing:
        return case
    inside = "" if case.bottleneck.startswith("out:") else "model."
    return replace(
        case,
        model=_TreatedFactory(case, recipe, places),
        losses=TreatedLosses(case, recipe, places.scope == "loss"),
        bottleneck=f"{inside}{case.bottleneck}",
        penalty_weight=case.penalty_weight if recipe.own_penalty else case.penalty_weight or PENALTY_WEIGHT,
    )


def _with_numbers(case: Case, recipe: Treatment) -> Case:
    """The case with the recipe's numbers; `rho` only where a penalty of the variant reads it.

    Raises:
        Refused: when the author's loss weighs itself and takes no number that the factor could set.
    """
    treated = replace(case, numbers={**case.numbers, **recipe.numbers}, train={**case.train, **recipe.train})
    if not recipe.own_penalty:
        return treated
    taken = treated.loss_keywords()
    if case.penalty_weight is None and PENALTY_WEIGHT in recipe.numbers and PENALTY_WEIGHT not in taken:
        raise RemedyNotApplicable(
            f"{PENALTY_WEIGHT}: the loss weighs itself (penalty_weight=None), and takes no number of that name; vary a"
            " number that it takes"
        )
    if "rho" not in recipe.numbers:
        return treated
    if "rho" not in taken:
        numbers = {name: value for name, value in treated.numbers.items() if name != "rho" or name in case.numbers}
        return replace(treated, numbers={**numbers, **{k: v for k, v in case.numbers.items() if k == "rho"}})
    # a target that repeats the number follows it
    return replace(treated, target=None) if case.target == case.numbers.get("rho") else treated


def _centred(case: Case, split: Split) -> Case:
    mean = split.train.inputs.mean(dim=0)
    train, evaluation = (replace(rows, inputs=rows.inputs - mean) for rows in (split.train, split.evaluation))
    return replace(case, data=_Given(train), evaluation=_Given(evaluation), labels=None, factors=None)


class _Given:
    """Rows that are at hand, as the function that a case wants."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __call__(self) -> Rows:
        return self.rows


class TreatedLosses:
    """The author's loss on the author's model, under the recipe; the harness's own penalty where it sets one."""

    def __init__(self, case: Case, recipe: Treatment, everywhere: bool) -> None:
        self.case, self.recipe, self.everywhere = case, recipe, everywhere
        self.weighs_itself = recipe.own_penalty and case.weighs_itself
        names = dict.fromkeys(
            (*case.loss_keywords(), *(("rho",) if recipe.has_target else ()), *(("dropout",) if recipe.dropped else ()))
        )
        kind = inspect.Parameter.KEYWORD_ONLY
        positional = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in ("model", "batch")]
        self.__signature__ = inspect.Signature(
            [*positional, *(inspect.Parameter(name, kind) for name in names if name in case.numbers)]
        )

    def __call__(self, model: TreatedModel, batch: Tensor, **numbers: Any) -> dict[str, Tensor]:
        own = {name: numbers[name] for name in self.case.loss_keywords()}
        with model.at_rate(numbers.get("dropout", model.rate)), model.tap(self.everywhere) as tap:
            terms = self.case.losses(model.model, batch, **own)
        check_terms(self.case, terms)
        if self.recipe.own_penalty:
            return dict(terms)
        name, penalty = self.recipe.penalty
        kept = {"reconstruction": terms["reconstruction"]}
        return {**kept, name: penalty(tap.passes[0], numbers)} if penalty else kept


class _Factory:
    """A model factory with keywords set; a class, so that a treated case can be sent to another process."""

    def __init__(self, model: Callable[..., nn.Module], keywords: Mapping[str, int]) -> None:
        self.model, self.keywords = model, dict(keywords)
        if "features" in inspect.signature(model).parameters:
            self.__signature__ = inspect.Signature([inspect.Parameter("features", inspect.Parameter.KEYWORD_ONLY)])
        else:
            self.__signature__ = inspect.Signature([])

    def __call__(self, **keywords: Any) -> nn.Module:
        return self.model(**self.keywords, **keywords)


class _ZeroBias(_Factory):
    """A model factory whose biases start at zero; weights stay those of the seed."""

    def __init__(self, model: Callable[..., nn.Module]) -> None:
        super().__init__(model, {})

    def __call__(self, **keywords: Any) -> nn.Module:
        model = self.model(**keywords)
        biases = [value for name, value in model.named_parameters() if name.rsplit(".", 1)[-1].endswith("bias")]
        if not biases:
            raise RemedyNotApplicable("bias_init: the model has no bias")
        with torch.no_grad():
            for bias in biases:
                bias.zero_()
        return model


class _TreatedFactory(_Factory):
    """A factory of treated models."""

    def __init__(self, case: Case, recipe: Treatment, places: ModelLayout) -> None:
        super().__init__(case.model, {})
        self.recipe, self.places, self.bottleneck = recipe, places, case.bottleneck

    def __call__(self, **keywords: Any) -> nn.Module:
        return TreatedModel(self.model(**keywords), self.recipe, self.places, self.bottleneck)


def judged_target(case: Case) -> float | None:
    """Target activation of the penalty that a case trains with, treated or not; None where its penalty has none.

    A penalty of the harness's own has `rho` where it is a KL, and no target otherwise (no penalty, L1, a count, top-k).
    The author's penalty has the declared `target`, or the number `rho` of the case.
    """
    losses, target = case.losses, case.rho
    if isinstance(losses, TreatedLosses) and not losses.recipe.own_penalty:
        target = case.numbers["rho"] if losses.recipe.has_target else None
    return float(target) if isinstance(target, Tensor) else target
