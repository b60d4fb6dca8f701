"""Case: a model factory, its data, its named loss terms, and the position of the bottleneck."""

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from harness.errors import HarnessError, did_you_mean
from harness.factors import training_numbers
from harness.sibling_imports import hidden_sibling, own_name, sibling_imports, with_siblings
from harness.user_code import CaseExit, failure, guarded

TRAIN_DEFAULTS: dict[str, Any] = {
    "epochs": 30,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "snapshot_every": 1,
    "device": "auto",
    "warmup": 0.0,
    "warmup_cycles": 1,
}
CASES_FOLDER = Path(__file__).parent / "cases"
SUPPLIED = ("target", "step", "progress")  # keywords of `losses` that are no numbers of the case
RAMP = "penalty ramp"  # key of the share of the penalties' weight in use; no keyword can have this name
NOT_AUDITED = "the case trains by its own function and has no `losses`, so it was not audited"
PENALTY_WEIGHT = "beta"  # the keyword that weighs penalties, unless a case says otherwise


@dataclass(frozen=True)
class Case:
    """A model as its author wrote it, with everything needed to train and to judge it.

    Args:
        model: `() -> nn.Module`, or with the keywords `features`, `units` (input and bottleneck width). The harness
            seeds torch before it calls it.
        data: `() -> Tensor[sample, ...]`, `(tensor, labels)`, a torch `Dataset`, or `Rows`; read into memory once. The
            model gets the rows in its own precision; integers stay integers if it takes only those. If `losses` names
            `target`, it returns `(inputs, targets)` or a `Dataset` of such pairs; targets have any shape per row.
        losses: `(model, batch, **numbers) -> {"reconstruction": scalar, ...}`; every other key is a penalty. It gets
            the numbers that its signature names; a loss that ends in `**numbers` gets all of them, except the penalties'
            weight unless its signature names the weight or `penalty_weight` is None. A signature that names `target`,
            `step` or `progress` gets the rows' targets, the number of steps done, and the share of training done.
        bottleneck: dotted name of the module whose following activation is judged, or `"out:0"` for the first output.
        evaluation: the same as `data` for held-out rows; None takes a fixed fifth of the rows, the same for all seeds.
        reconstruction: the output that is the reconstruction (`"out:1"`); None for the one shaped like the batch. Tokens,
            and an output of another size than a row, have no R2.
        numbers: keywords that `losses` names; each may be a factor.
        train: training numbers (epochs, batch_size, learning_rate, snapshot_every, device, warmup: the share of
            training over which the penalties' weight rises linearly from 0, and warmup_cycles: the number of equal
            parts of training, each with such a rise); an experiment's own win.
        penalty_weight: name of the number that multiplies the penalties of a loss whose signature does not name it (1
            if `numbers` has no `beta`). A loss that names it applies it; None means that the loss weighs itself. A loss
            with `**numbers` that does not name the weight does not get it, so that it is never applied twice.
        objective: the term that is no penalty; another name for contrastive, clustering and supervised models.
        posterior: where the log-variance of the bottleneck's latent is: a dotted module name, or an output such as
            `"out:2"`; None for a layer that is not the mean of a posterior.
        target: the penalty's target activation; by default `numbers["rho"]` where there is one.
        labels: one class per row of `data`, for mutual information; `evaluation` has labels and factors of its own.
        factors: `{name: one value per row of data}`, integers as classes, floats as continuous factors.
        optimizer: `(parameters) -> Optimizer`; None means Adam at `learning_rate`.
        scheduler: `(optimizer, steps) -> scheduler`, with the number of steps of the training; its `step()` is called
            after every optimizer step. None for a constant learning rate.
        clip: largest norm of a model's gradient, to which larger gradients are scaled down; None for no limit.
        fit: `(model, seed) -> None`, which trains the model in place of the harness; members then train alone, and
            `losses` may be left out. Under a remedy that edits the forward pass, the model is a wrapper whose `.model`
            is the author's. Factors of penalties and training numbers do not apply.
        name: name in reports; the stem of the case's file, if any.
        source: the case's file, if any.

    Raises:
        HarnessError: when a field has the wrong type.
    """

    model: Callable[..., nn.Module]
    data: Callable[[], Any]
    losses: Callable[..., Mapping[str, Tensor]] = None  # type: ignore[assignment]  # None only beside `fit`
    bottleneck: str = ""
    evaluation: Callable[[], Any] | None = None
    reconstruction: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    penalty_weight: str | None = PENALTY_WEIGHT
    objective: str = "reconstruction"
    posterior: str | None = None
    target: float | None = None
    labels: Any = None
    factors: Mapping[str, Any] | None = None
    optimizer: Callable[..., Optimizer] | None = None
    scheduler: Callable[..., Any] | None = None
    clip: float | None = None
    fit: Callable[[nn.Module, int], None] | None = None
    name: str = "case"
    source: Path | None = None

    def __post_init__(self) -> None:
        if self.losses is None and self.fit is not None:
            object.__setattr__(self, "losses", no_losses)
        for key in ("model", "data", "losses"):
            if not callable(getattr(self, key)):
                raise HarnessError(f"Case.{key}: expected a function, got {_kind(getattr(self, key))}")
        for key in ("evaluation", "optimizer", "scheduler", "fit"):
            if getattr(self, key) is not None and not callable(getattr(self, key)):
                raise HarnessError(f"Case.{key}: expected a function or None, got {_kind(getattr(self, key))}")
        if not isinstance(self.bottleneck, str) or not self.bottleneck:
            raise HarnessError(
                f"Case.bottleneck: expected the dotted name of a module or 'out:0', got {self.bottleneck!r}"
            )
        if not isinstance(self.objective, str) or not self.objective:
            raise HarnessError(f"Case.objective: expected the name of a term, got {_kind(self.objective)}")
        if self.posterior is not None and (not isinstance(self.posterior, str) or not self.posterior):
            raise HarnessError(
                f"Case.posterior: expected a dotted module name, an output such as 'out:2', or None, got {_kind(self.posterior)}"
            )
        for key in ("numbers", "train", "factors"):
            mapping = getattr(self, key)
            if not isinstance(mapping, Mapping) and not (key == "factors" and mapping is None):
                raise HarnessError(f"Case.{key}: expected {{name: value}}, got {_kind(mapping)}")
        for name, value in self.numbers.items():
            if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.ndim == 0):
                raise HarnessError(f"Case.numbers[{name!r}]: expected a number, got {_kind(value)}")
        self._check_penalty_weight()
        _check_clip(self.clip)
        object.__setattr__(self, "train", training_numbers(self.train, "Case.train"))

    @property
    def has_losses(self) -> bool:
        """False if the case trains by `fit` and has no `losses`."""
        return self.losses is not no_losses

    @property
    def weight_name(self) -> str:
        """Name of the number that weighs the penalties: `penalty_weight`, or `beta` where the loss weighs itself."""
        return self.penalty_weight or PENALTY_WEIGHT

    @property
    def rho(self) -> float | None:
        """Target activation of the penalty, declared or taken from `numbers["rho"]`."""
        return self.target if self.target is not None else self.numbers.get("rho")

    def loss_keywords(self) -> tuple[str, ...]:
        """Return the keywords of `numbers` that `losses` gets, in the order of `numbers`."""
        named_keywords, takes_any = self._named, self._takes_any_number
        return tuple(
            name for name in self.numbers if name in named_keywords or (takes_any and name != self.penalty_weight)
        )

    def supplied_keywords(self) -> tuple[str, ...]:
        """Return those of `target`, `step` and `progress` that the signature of `losses` names, unless they are numbers."""
        keywords = self._named
        return tuple(name for name in SUPPLIED if name in keywords and name not in self.numbers)

    def loss_arguments(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keywords of `losses` from `values`: its numbers, and its targets, step and progress if present.

        >>> def losses(model, batch, rho, step): ...
        >>> case = Case(nn.Identity, lambda: None, losses, "0", numbers={"rho": 0.1, "beta": 1.0})
        >>> case.loss_arguments({**case.numbers, "step": 3, "progress": 0.5})
        {'rho': 0.1, 'step': 3}
        """
        names = (*self.loss_keywords(), *(name for name in self.supplied_keywords() if name in values))
        return {name: values[name] for name in names}

    @property
    def needs_target(self) -> bool:
        """True if `losses` names `target` without a default value."""
        if "target" not in self.supplied_keywords():
            return False
        parameter = self._parameters["target"]
        return parameter.default is parameter.empty

    @property
    def weighs_itself(self) -> bool:
        """True if `losses` applies the penalties' weight itself."""
        declared = getattr(
            self.losses, "weighs_itself", None
        )  # set by a treated loss, whose penalty may be the harness's
        return (
            bool(declared)
            if declared is not None
            else self.penalty_weight is None or self.penalty_weight in self._named
        )

    def weight(self, numbers: Mapping[str, Any]) -> Any:
        """Return the factor by which the harness multiplies the penalties: 1 for a loss that weighs itself.

        >>> case = Case(nn.Identity, lambda: None, lambda model, batch: {}, "0", numbers={"beta": 0.1})
        >>> case.weight(case.numbers), replace(case, penalty_weight=None).weight(case.numbers)
        (0.1, 1.0)
        """
        return 1.0 if self.weighs_itself or self.penalty_weight is None else numbers.get(self.penalty_weight, 1.0)

    def total(self, terms: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Any:
        """Return the objective plus the penalties, weighted unless the loss weighs itself.

        `numbers[RAMP]`, if present, multiplies the penalties in any case.
        """
        penalties = [value for name, value in terms.items() if name != self.objective]
        if not penalties:
            return terms[self.objective]
        weight = self.weight(numbers) * numbers[RAMP] if RAMP in numbers else self.weight(numbers)
        return terms[self.objective] + weight * sum(penalties[1:], start=penalties[0])

    def loss_failure(self, error: Exception) -> str:
        """Return the message for a loss that raised this error, with advice if it reads a weight that it does not get."""
        sentence = f"{self.name}: losses(model, batch) {failure(error)}"
        name = self.penalty_weight
        if not (
            isinstance(error, KeyError) and error.args == (name,) and name in self.numbers and self._takes_any_number
        ):
            return sentence
        return (
            f"{sentence}; the harness multiplies the penalties by {name!r}, so a loss with **numbers does not get it:"
            f" write penalty_weight=None if the loss weighs itself, or name the keyword, as in losses(model, batch, {name})"
        )

    def ramp(self, progress: float) -> float:
        """Return the share of the penalties' weight in use at this progress of training, from 0 to 1.

        >>> case = Case(nn.Identity, lambda: None, lambda model, batch: {}, "0", train={"warmup": 0.5})
        >>> [case.ramp(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 0.5, 1.0, 1.0]

        With `warmup_cycles` above 1 the weight starts again at 0 in each cycle: Fu et al. 2019, Cyclical annealing
        schedule, arXiv 1903.10145.
        """
        training = self.training()
        warmup, cycles = training["warmup"], training["warmup_cycles"]
        position = progress if cycles == 1 or progress >= 1 else progress * cycles % 1
        return min(1.0, position / warmup) if warmup else 1.0

    def training(self) -> dict[str, Any]:
        """Return the case's training numbers, completed with the defaults."""
        return {**TRAIN_DEFAULTS, **self.train}

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        """Parameters of `losses`, read once since every step asks for them."""
        return inspect.signature(self.losses).parameters

    @cached_property
    def _named(self) -> set[str]:
        """Keywords in the signature of `losses`."""
        return {
            parameter.name
            for parameter in self._parameters.values()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }

    @cached_property
    def _takes_any_number(self) -> bool:
        """True if `losses` ends in `**numbers`."""
        return any(parameter.kind is parameter.VAR_KEYWORD for parameter in self._parameters.values())

    def _check_penalty_weight(self) -> None:
        name = self.penalty_weight
        if name is not None and (not isinstance(name, str) or not name):
            raise HarnessError(f"Case.penalty_weight: expected the name of a number or None, got {_kind(name)}")
        if name is not None and name != PENALTY_WEIGHT and name not in self.numbers:
            raise HarnessError(f"Case.penalty_weight: {did_you_mean('number of the case', name, self.numbers)}")


def no_losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Return no terms: the loss of a case that trains by `fit` and has no `losses`."""
    return {}


def load_case(name: str | Path) -> Case:
    """Return the shipped case of this name, or the module-level `case` of a Python file, which is run as code.

    Raises:
        HarnessError: when the case does not exist, or its file cannot be run or has no `case`.
    """
    path = _case_file(name)
    case = getattr(run_file(path), "case", None)
    if not isinstance(case, Case):
        raise HarnessError(f"{path}: expected a module-level `case = harness.Case(...)`, got {_kind(case)}")
    return replace(case, name=path.stem, source=path.resolve())


def set_seed(seed: int) -> None:
    """Call `torch.manual_seed`, without the stack trace that torch stores for a later accelerator if there is none."""
    (torch if torch.accelerator.is_available() else torch.default_generator).manual_seed(seed)


def shipped_cases() -> list[str]:
    """Return the names of the shipped cases."""
    return sorted(path.stem for path in CASES_FOLDER.glob("*.py") if not path.stem.startswith("_"))


def _case_file(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise HarnessError(f"{path}: no such file; a case is a Python file with a module-level `case`")
        return path
    if str(name) not in shipped_cases():
        raise HarnessError(f"{did_you_mean('case', name, shipped_cases())}; or give the path of a .py file")
    return CASES_FOLDER / f"{name}.py"


def run_file(path: Path) -> ModuleType:
    """Run a Python file as a module, with the modules beside it importable.

    Raises:
        HarnessError: when the file does not exist or cannot be run.
    """
    if not path.is_file():
        raise HarnessError(f"{path}: no such file")
    if path.parent.resolve() == CASES_FOLDER:
        return importlib.import_module(f"harness.cases.{path.stem}")
    spec = importlib.util.spec_from_file_location(own_name(path), path)
    if spec is None or spec.loader is None:
        raise HarnessError(f"{path}: cannot be loaded as a Python module")
    module = importlib.util.module_from_spec(spec)
    try:
        with guarded(), with_siblings(module), sibling_imports(path.parent.resolve()):
            spec.loader.exec_module(module)
    except Exception as error:
        raise _not_run(path, error) from error
    return module


def _not_run(path: Path, error: Exception) -> HarnessError:
    """Return the error for a case's file that cannot be run."""
    if isinstance(error, HarnessError):
        return HarnessError(f"{path}: {error}")
    advice = ""
    if isinstance(error, CaseExit):
        advice = '; put code of the script itself under `if __name__ == "__main__":`'
    elif hidden := hidden_sibling(path.parent.resolve(), error):
        advice = f"; {hidden} beside it was not imported, because a module of that name was loaded before: rename it"
    return HarnessError(f"{path}: running it {failure(error)}{advice}")


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} {value!r}"[:80]


def _check_clip(clip: Any) -> None:
    number = isinstance(clip, Real) and not isinstance(clip, bool)
    if clip is not None and not (number and math.isfinite(clip) and clip > 0):
        raise HarnessError(f"Case.clip: expected a number above 0 or None, got {_kind(clip)}")


def check_target(case: Case) -> None:
    """Check that the target is a finite number or None.

    Raises:
        HarnessError: when it is neither.
    """
    target = case.target
    number = isinstance(target, Real) and not isinstance(target, bool)
    if target is not None and not (number and math.isfinite(target)):
        raise HarnessError(f"{case.name}: target: expected a number or None, got {target!r}")


def build_optimizer(case: Case, model: nn.Module) -> Optimizer | None:
    """Return the case's own optimizer over the model's parameters; None for a case without one.

    Raises:
        HarnessError: when the function fails or returns another type.
    """
    if case.optimizer is None:
        return None
    try:
        with guarded():
            optimizer = case.optimizer(list(model.parameters()))
    except Exception as error:
        raise HarnessError(f"{case.name}: optimizer(parameters) {failure(error)}") from error
    if not isinstance(optimizer, Optimizer):
        raise HarnessError(
            f"{case.name}: optimizer(parameters): expected a torch.optim.Optimizer, got {optimizer!r};"
            " for example `optimizer=lambda parameters: Adam(parameters)`"
        )
    return optimizer


def training_optimizer(case: Case, model: nn.Module) -> Optimizer:
    """Return the optimizer of a training: the case's own, at the learning rate of `train` if it has one; else Adam.

    Raises:
        HarnessError: as `build_optimizer`.
    """
    optimizer = build_optimizer(case, model)
    if optimizer is None:
        trained = [value for value in model.parameters() if value.requires_grad]
        return torch.optim.Adam(trained, lr=float(case.training()["learning_rate"]))
    if "learning_rate" in case.train:
        for group in optimizer.param_groups:
            group["lr"] = case.train["learning_rate"]
    return optimizer
