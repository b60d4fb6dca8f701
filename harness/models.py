"""A case's model, built with a seed, and the kind of numbers in which it takes the case's rows."""

import inspect
import warnings

import torch
from torch import Tensor, nn

from harness.capture import eval_mode
from harness.case import Case, set_seed
from harness.errors import HarnessError
from harness.user_code import failure, guarded


def build_model(case: Case, seed: int, batch: Tensor) -> nn.Module:
    """The case's model with the initial weights of `seed`, where the batch is; torch's global random state stays as it was.

    Raises:
        HarnessError: when the factory fails or returns no module.
    """
    with torch.random.fork_rng():
        set_seed(seed)
        try:
            with guarded():
                model = case.model(**model_keywords(case, batch))
        except HarnessError:
            raise
        except Exception as error:
            raise HarnessError(f"{case.name}: building the model {failure(error)}") from error
    if not isinstance(model, nn.Module):
        raise HarnessError(f"{case.name}: Case.model must return an nn.Module, it returned a {type(model).__name__}")
    return model.to(batch.device)


def model_keywords(case: Case, batch: Tensor) -> dict[str, int]:
    """What the model factory is told: the input's width, where it asks for `features`."""
    parameters = inspect.signature(case.model).parameters
    return {"features": int(batch[0].numel())} if "features" in parameters else {}


def input_dtype(case: Case, inputs: Tensor) -> torch.dtype:
    """The kind of numbers in which a case's model takes these rows, `[sample, *feature]`.

    Its own precision, for floats and for integers that it takes as floats (pixels). int64 for integers that it refuses
    as floats and takes as they are (tokens), or that a 16-bit float would round. Tried on two rows, with the loss. Where
    parameters differ in precision, the first that the model takes rows in.
    """
    few = inputs[:2]
    if few.is_complex() or not few.numel():
        return torch.float32  # no rows, which is for the check of rows to say
    try:
        model = build_model(case, 0, few)
    except Exception:  # whatever is wrong with it is told where it is used
        return torch.float32
    known = precisions(model)
    whole = not few.is_floating_point()
    if len(known) == 1 and not whole:
        return known[0]
    taken = next((each for each in known if accepts_rows(case, model, few.to(each))), None)
    if whole and (taken is None or _rounds(inputs, taken)) and accepts_rows(case, model, few.long()):
        return torch.int64
    return taken or known[0]


def accepts_rows(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Whether the model and the case's loss run on these rows."""
    numbers = {name: case.numbers[name] for name in case.loss_keywords()}
    with torch.random.fork_rng(), eval_mode(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with guarded():
                model(rows)
                case.losses(model, rows, **numbers)
        except IndexError:  # a token past the end of its table: that is looked up, so the kind is right
            return not rows.is_floating_point()
        except Exception:  # the author's code may raise anything
            return False
    return True


def _rounds(inputs: Tensor, dtype: torch.dtype) -> bool:
    return dtype in SIXTEEN_BITS and bool((inputs.to(dtype).double() != inputs.double()).any())


def own_precision(model: nn.Module) -> torch.dtype:
    """The precision of a model: of its first floating parameter, else of its first floating buffer, else float32.

    >>> own_precision(nn.Linear(2, 2).double())
    torch.float64
    """
    return precisions(model)[0]


def precisions(model: nn.Module) -> list[torch.dtype]:
    """Every precision that the parameters are in, the model's own first; that of its buffers where it has none.

    >>> precisions(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).double()))
    [torch.float32, torch.float64]
    """
    for held in (model.parameters(), model.buffers()):
        found = dict.fromkeys(each.dtype for each in held if each.is_floating_point())
        if found:
            return list(found)
    return [torch.float32]


def precision_for(model: nn.Module, rows: Tensor) -> torch.dtype:
    """In what a model is trained on rows that it takes: in theirs, or in its own where they are integers.

    >>> precision_for(nn.Embedding(9, 2), torch.tensor([[1, 2]]))
    torch.float32
    """
    return rows.dtype if rows.is_floating_point() else own_precision(model)


def cast_floats(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats in another precision; integers, which name things, stay what they are.

    >>> cast_floats(torch.tensor([1.5]), torch.float64), cast_floats(torch.tensor([3]), torch.float64)
    (tensor([1.5000], dtype=torch.float64), tensor([3]))
    """
    return rows.to(dtype) if rows.is_floating_point() else rows


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums and products of numbers are kept in: at least float32, as the squares of 16-bit floats leave their range.

    >>> accumulation_dtype(torch.bfloat16), accumulation_dtype(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


SIXTEEN_BITS = (torch.float16, torch.bfloat16)
