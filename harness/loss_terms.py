"""Evaluation and checks of the terms that a case's loss returns."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import Tensor, nn

from harness.case import Case
from harness.errors import HarnessError
from harness.user_code import guarded


def loss_terms(case: Case, model: nn.Module, batch: Tensor) -> Mapping[str, Any]:
    """Return the checked terms of `losses` on `[sample, *feature]` with the case's own numbers.

    Raises:
        HarnessError: when the loss fails, or returns terms that `check_terms` refuses.
    """
    try:
        with guarded():
            terms = case.losses(model, batch, **{name: case.numbers[name] for name in case.loss_keywords()})
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
    if not hasattr(terms, "items"):
        raise HarnessError(f"{where}: expected a mapping with a {case.objective!r} term, got {_kind(terms)}")
    if case.objective not in terms:
        names = ", ".join(map(str, terms)) or "none"
        raise HarnessError(f"{where}: expected a term {case.objective!r}, got {names}")
    for name, value in terms.items():
        if not isinstance(value, Tensor | Real):
            raise HarnessError(f"{where}: term {name!r}: expected a scalar tensor or a number, got {_kind(value)}")
        if isinstance(value, Tensor) and value.ndim:
            raise HarnessError(
                f"{where}: term {name!r}: expected a scalar, got shape {list(value.shape)}; reduce it, for example with .mean()"
            )
    return terms


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
