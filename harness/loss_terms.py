"""Evaluation and checks of the terms that a case's loss returns."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from harness.case import Case
from harness.errors import HarnessError, well_formed
from harness.user_code import guarded


class BoundLosses:
    """A case's loss with fixed targets, step and progress, for evaluations outside training.

    A batch of n rows gets the first n targets; with `rows`, it gets the targets of the rows that it consists of, if all
    of them are known.
    """

    def __init__(
        self, case: Case, target: Tensor | None, step: int, progress: float, rows: Tensor | None = None
    ) -> None:
        self.losses = self.__wrapped__ = case.losses
        self.target = target
        self.dtype = None if rows is None else rows.dtype
        self.index = {} if rows is None else {content: index for index, content in enumerate(_contents(rows))}
        self.values: dict[str, Any] = {"step": step, "progress": progress}
        self.names = [name for name in case.supplied_keywords() if name != "target" or target is not None]
        self.weighs_itself = case.weighs_itself
        signature = inspect.signature(case.losses)
        parameters = [parameter for name, parameter in signature.parameters.items() if name not in self.names]
        self.__signature__ = signature.replace(parameters=parameters)

    def __call__(self, model: nn.Module, batch: Tensor, **numbers: Any) -> Mapping[str, Any]:
        """Evaluate the loss with its targets, step and progress."""
        values = dict(self.values)
        if self.target is not None:
            target = self.target[self._positions(batch)].to(batch.device)
            floats = target.is_floating_point() and batch.is_floating_point()
            values["target"] = target.to(batch.dtype) if floats else target
        return self.losses(model, batch, **numbers, **{name: values[name] for name in self.names})

    def _positions(self, batch: Tensor) -> Any:
        """Return the positions of the batch's rows among the known rows, or the first positions."""
        first = slice(len(batch))
        if not self.index:
            return first
        with torch._C.DisableTorchFunction():  # not part of the loss, so unseen by whoever records it
            contents = list(_contents(batch.detach().to(self.dtype)))
        positions = [self.index.get(content, -1) for content in contents]
        return first if -1 in positions else positions


def _contents(rows: Tensor) -> Iterator[bytes]:
    """Yield the bytes of each row."""
    for row in rows.cpu().flatten(1).contiguous():
        yield row.view(torch.uint8).numpy().tobytes()


def bind_losses(
    case: Case, target: Tensor | None = None, step: int = 0, progress: float = 0.0, rows: Tensor | None = None
) -> Case:
    """Return the case with `target`, `step` and `progress` of its loss fixed; the case itself if it names none of them.

    Args:
        case: a case, treated or not.
        target: targets of consecutive rows, `[sample, ...]`, of which a batch of n rows gets the first n; None if the
            data have none.
        step: steps done.
        progress: share of training done.
        rows: the rows of the targets, `[sample, *feature]`, by which batches in another order find their targets.
    """
    if not case.supplied_keywords():
        return case
    return replace(case, losses=BoundLosses(case, target, step, progress, None if target is None else rows))


def step_values(target: Tensor | None = None, step: int = 0, progress: float = 0.0) -> dict[str, Any]:
    """Return the values that a training step adds to the numbers of a loss; no `target` if the data have none."""
    values = {"target": target, "step": step, "progress": progress}
    return {name: value for name, value in values.items() if value is not None}


def loss_terms(
    case: Case, model: nn.Module, batch: Tensor, target: Tensor | None = None, step: int = 0, progress: float = 0.0
) -> Mapping[str, Any]:
    """Return the checked terms of `losses` on `[sample, *feature]` with the case's own numbers.

    Args:
        case: a case, treated or not.
        model: its model.
        batch: rows.
        target: targets of the rows, for a loss that names `target`.
        step: steps done, for a loss that names `step`.
        progress: share of training done, for a loss that names `progress`.

    Raises:
        HarnessError: when the case has no loss, the loss fails, or returns terms that `check_terms` refuses.
    """
    try:
        with guarded():
            bound = bind_losses(case, target, step, progress)
            terms = bound.losses(model, batch, **bound.loss_arguments(bound.numbers))
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(case.loss_failure(error)) from error
    return check_terms(case, terms)


def check_terms(case: Case, terms: Any) -> Mapping[str, Any]:
    """Return the terms after checking that they are scalar tensors or plain numbers.

    Raises:
        HarnessError: when they are no mapping, lack the objective, or one of them is not a scalar.
    """
    where = f"{case.name}: losses"
    if not case.has_losses:
        raise HarnessError(f"{where}: expected a function, got None; Case.fit alone has no terms")
    if not hasattr(terms, "items"):
        raise HarnessError(f"{where}: expected a mapping with a {case.objective!r} term, got {_kind(terms)}")
    if case.objective not in terms:
        names = ", ".join(map(str, terms)) or "none"
        raise HarnessError(f"{where}: expected a term {case.objective!r}, got {names}")
    for name, value in terms.items():
        if well_formed(str(name)) != str(name):
            raise HarnessError(f"{where}: expected names of text, got {name!r}, which has half of a surrogate pair")
        if not isinstance(value, Tensor | Real):
            raise HarnessError(f"{where}: term {name!r}: expected a scalar tensor or a number, got {_kind(value)}")
        if isinstance(value, Tensor) and value.ndim:
            raise HarnessError(
                f"{where}: term {name!r}: expected a scalar, got shape {list(value.shape)}; reduce it, for example with .mean()"
            )
    return terms


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
