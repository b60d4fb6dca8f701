"""The terms that a case's loss returns: named, the reconstruction among them, one number each."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

from torch import Tensor, nn

from harness.case import Case
from harness.errors import HarnessError
from harness.user_code import guarded


def loss_terms(case: Case, model: nn.Module, batch: Tensor) -> Mapping[str, Any]:
    """What `losses` makes of `[sample, *feature]` with the case's own numbers, checked.

    Raises:
        HarnessError: when it fails, or returns what `check_terms` refuses.
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
    """The terms, if they are what a loss has to return: scalar tensors, or plain numbers for what is constant.

    Raises:
        HarnessError: when they are no mapping, name no reconstruction, or one of them is no single number.
    """
    where = f"{case.name}: losses"
    if not hasattr(terms, "items"):
        raise HarnessError(f"{where} must return a mapping with a {case.objective!r} term, it returned {_kind(terms)}")
    if case.objective not in terms:
        names = ", ".join(map(str, terms)) or "none"
        raise HarnessError(f"{where} must name one of its terms {case.objective!r}; it returned {names}")
    for name, value in terms.items():
        if not isinstance(value, Tensor | Real):
            raise HarnessError(f"{where}: the term {name!r} must be a scalar tensor or a number, it is {_kind(value)}")
        if isinstance(value, Tensor) and value.ndim:
            raise HarnessError(
                f"{where}: the term {name!r} must be a scalar, its shape is {list(value.shape)}; reduce it, as with .mean()"
            )
    return terms


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
