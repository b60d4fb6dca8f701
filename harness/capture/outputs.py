"""A model's outputs, whatever it returns, and which of them is what."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

from harness.capture.tensor_map import TensorMap
from harness.errors import HarnessError


def flatten_units(values: Tensor) -> Tensor:
    """`[sample, ...]` as `[sample, unit]`: every number that is handed on is a unit.

    >>> import torch
    >>> flatten_units(torch.zeros(5, 2, 3)).shape
    torch.Size([5, 6])
    """
    return values.reshape(len(values), -1)


def reconstruction_of(outputs: tuple[Any, ...], batch: Tensor, which: str | None) -> Tensor | None:
    """The output that is compared with the batch: the one named, or the last one shaped like the batch.

    Raises:
        HarnessError: when the named output does not exist.
    """
    if which is not None:
        return output_named(outputs, which)
    found = [each for each in outputs if isinstance(each, Tensor) and comparable(each, batch)]
    # a flattened copy of the batch counts when nothing has its very shape
    found = [each for each in found if each.shape == batch.shape] or found
    return found[-1] if found else None


def comparable(made: Tensor, batch: Tensor) -> bool:
    """Whether an R2 of an output about the batch exists: both are quantities, as many a row.

    >>> import torch
    >>> rows, tokens = torch.zeros(5, 2, 3), torch.zeros(5, 4).long()
    >>> comparable(torch.zeros(5, 6), rows), comparable(torch.zeros(5, 4), rows), comparable(torch.zeros(5, 4), tokens)
    (True, False, False)
    """
    same_size = made.dim() > 0 and made.numel() == batch.numel() and len(made) == len(batch)
    return same_size and made.is_floating_point() and batch.is_floating_point()


def why_no_r2(outputs: tuple[Any, ...], batch: Tensor, which: str | None) -> str:
    """Why no output is compared with the batch, in a sentence; empty where one is."""
    if not batch.is_floating_point():
        return (
            "the model takes the rows as whole numbers (tokens), which are no quantities that an output could come near"
        )
    made = reconstruction_of(outputs, batch, which)
    if made is None:
        return "no output of the model is shaped like the batch; name it in Case.reconstruction"
    if comparable(made, batch):
        return ""
    return f"the output {which!r} of a row is {_kind(made)}, and the row itself {_kind(batch)}"


def _kind(values: Tensor) -> str:
    size = f"{values[0].numel()} numbers" if values.dim() else "one number for the whole batch"
    return size if values.is_floating_point() else f"{size} of {values.dtype}"


def outputs_of(output: Any) -> tuple[Any, ...]:
    """A model's output as a flat tuple: itself, the members of a tuple or list, or the values of a mapping."""
    if isinstance(output, Tensor):
        return (output,)
    if isinstance(output, Mapping):
        return tuple(output.values())
    if hasattr(output, "__dataclass_fields__"):
        return tuple(getattr(output, name) for name in output.__dataclass_fields__)
    return tuple(output) if isinstance(output, tuple | list) else (output,)


def output_named(outputs: tuple[Any, ...], which: str) -> Tensor:
    """The output of a name like `out:1`.

    Raises:
        HarnessError: for another name, or an output that is not there.
    """
    index = which.removeprefix("out:")
    if not which.startswith("out:") or not index.isdigit():
        raise HarnessError(f"{which!r}: 'out:0' for the first output, 'out:1' for the second, ... is wanted")
    if int(index) >= len(outputs):
        raise HarnessError(f"{which!r}: the model has {len(outputs)} outputs; the last is 'out:{len(outputs) - 1}'")
    found = outputs[int(index)]
    if not isinstance(found, Tensor):
        raise HarnessError(
            f"{which!r}: this output of the model is a {type(found).__name__}, and a tensor is wanted; let the model "
            "give its tensors side by side, as in `return code, reconstruction`"
        )
    return found


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor of an output."""
    return next((each for each in outputs_of(output) if isinstance(each, Tensor)), None)


def with_first_tensor(output: Any, value: Tensor) -> Any:
    """The output with another first tensor, and else as it was.

    >>> import torch
    >>> with_first_tensor({"name": "enc", "code": torch.zeros(1)}, torch.ones(1))
    {'name': 'enc', 'code': tensor([1.])}
    """
    place = next(index for index, each in enumerate(outputs_of(output)) if isinstance(each, Tensor))
    if isinstance(output, Mapping):
        return type(output)({**output, list(output)[place]: value})  # type: ignore[call-arg]
    if hasattr(output, "__dataclass_fields__"):
        return replace(output, **{list(output.__dataclass_fields__)[place]: value})
    if not isinstance(output, tuple | list):
        return value
    items = [*output[:place], value, *output[place + 1 :]]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)


def with_replaced(output: Any, replacements: TensorMap[Tensor]) -> Any:
    """The output with other tensors in place of those of the table, and else as it was.

    >>> import torch
    >>> logits, table = torch.zeros(1), TensorMap[Tensor]()
    >>> table[logits] = torch.ones(1)
    >>> with_replaced({"name": "enc", "logits": logits}, table)
    {'name': 'enc', 'logits': tensor([1.])}
    """
    if not len(replacements):
        return output
    if hasattr(output, "__dataclass_fields__") and not isinstance(output, Mapping):
        fields = {name: getattr(output, name) for name in output.__dataclass_fields__}
        return replace(
            output, **{name: replacements.get(field) for name, field in fields.items() if field in replacements}
        )
    return tree_map(lambda leaf: replacements.get(leaf) if leaf in replacements else leaf, output)
