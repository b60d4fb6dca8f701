"""Construction of a case's model from a seed, and the dtype in which it takes the case's rows."""

import inspect
import warnings

import torch
from torch import Tensor, nn

from harness.capture import eval_mode
from harness.case import Case, set_seed
from harness.errors import HarnessError
from harness.user_code import failure, guarded


def build_model(case: Case, seed: int, batch: Tensor) -> nn.Module:
    """Build the case's model with the initial weights of `seed`, on the batch's device.

    torch's global random state is restored.

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
        raise HarnessError(
            f"{case.name}: Case.model: expected a function that returns an nn.Module, got a {type(model).__name__} from it"
        )
    return model.to(batch.device)


def model_keywords(case: Case, batch: Tensor) -> dict[str, int]:
    """Return the keywords of the model factory: the width of the input if it takes `features`."""
    parameters = inspect.signature(case.model).parameters
    return {"features": int(batch[0].numel())} if "features" in parameters else {}


def input_dtype(case: Case, inputs: Tensor) -> torch.dtype:
    """Return the dtype in which a case's model takes these rows, `[sample, *feature]`.

    The model's own precision for floats and for integers that it takes as floats (pixels); int64 for integers that it
    refuses as floats (tokens), or that a 16-bit float would round. Tested on two rows, with the loss. If parameters differ
    in precision, the first precision in which the model takes rows.
    """
    sample = inputs[:2]
    if sample.is_complex() or not sample.numel():
        return torch.float32  # no rows: the check of rows reports it
    try:
        model = build_model(case, 0, sample)
    except Exception:  # the error is reported when the model is used
        return torch.float32
    dtypes = precisions(model)
    integral = not sample.is_floating_point()
    if len(dtypes) == 1 and not integral:
        return dtypes[0]
    taken = next((dtype for dtype in dtypes if accepts_rows(case, model, sample.to(dtype))), None)
    if integral and (taken is None or _rounds(inputs, taken)) and accepts_rows(case, model, sample.long()):
        return torch.int64
    return taken or dtypes[0]


def accepts_rows(case: Case, model: nn.Module, rows: Tensor) -> bool:
    """Return True if the model and the case's loss run on these rows."""
    with torch.random.fork_rng(), eval_mode(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with guarded():
                model(rows)
                case.losses(model, rows, **case.loss_arguments(case.numbers))
        except IndexError:  # a token past the end of its table: the model looks rows up, so it takes integers
            return not rows.is_floating_point()
        except Exception:  # the author's code may raise anything
            return False
    return True


def _rounds(inputs: Tensor, dtype: torch.dtype) -> bool:
    return dtype in SIXTEEN_BITS and bool((inputs.to(dtype).double() != inputs.double()).any())


def own_precision(model: nn.Module) -> torch.dtype:
    """Return the precision of the first floating parameter, else of the first floating buffer, else float32.

    >>> own_precision(nn.Linear(2, 2).double())
    torch.float64
    """
    return precisions(model)[0]


def precisions(model: nn.Module) -> list[torch.dtype]:
    """Return the precisions of the parameters, the model's own first; those of its buffers if it has no parameter.

    >>> precisions(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).double()))
    [torch.float32, torch.float64]
    """
    for tensors in (model.parameters(), model.buffers()):
        dtypes = dict.fromkeys(tensor.dtype for tensor in tensors if tensor.is_floating_point())
        if dtypes:
            return list(dtypes)
    return [torch.float32]


def precision_for(model: nn.Module, rows: Tensor) -> torch.dtype:
    """Return the precision of training: that of the rows, or of the model if the rows are integers.

    >>> precision_for(nn.Embedding(9, 2), torch.tensor([[1, 2]]))
    torch.float32
    """
    return rows.dtype if rows.is_floating_point() else own_precision(model)


def cast_floats(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast floats to another precision; integers, which are indices, are unchanged.

    >>> cast_floats(torch.tensor([1.5]), torch.float64), cast_floats(torch.tensor([3]), torch.float64)
    (tensor([1.5000], dtype=torch.float64), tensor([3]))
    """
    return rows.to(dtype) if rows.is_floating_point() else rows


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums and products: at least float32, because squares of 16-bit floats overflow.

    >>> accumulation_dtype(torch.bfloat16), accumulation_dtype(torch.float64)
    (torch.float32, torch.float64)
    """
    return torch.promote_types(dtype, torch.float32)


SIXTEEN_BITS = (torch.float16, torch.bfloat16)
