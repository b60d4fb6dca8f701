"""Outputs of a model as a flat tuple, and their roles."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_map

from harness.capture.tensor_map import TensorMap
from harness.errors import HarnessError


def flatten_units(values: Tensor) -> Tensor:
    """Return `[sample, ...]` as `[sample, unit]`: every number of a sample is a unit.

    >>> import torch
    >>> flatten_units(torch.zeros(5, 2, 3)).shape
    torch.Size([5, 6])
    """
    return values.reshape(len(values), -1)


def reconstruction_of(outputs: tuple[Any, ...], batch: Tensor, which: str | None) -> Tensor | None:
    """Return the output that is compared with the batch: the declared one, or the last one shaped like the batch.

    Raises:
        HarnessError: when the declared output does not exist.
    """
    if which is not None:
        return output_named(outputs, which)
    candidates = [output for output in outputs if isinstance(output, Tensor) and comparable(output, batch)]
    # a flattened copy of the batch counts where no output has the shape of the batch
    candidates = [output for output in candidates if output.shape == batch.shape] or candidates
    return candidates[-1] if candidates else None


def comparable(output: Tensor, batch: Tensor) -> bool:
    """Return True where R2 of an output about the batch is defined: both are floats, with as many numbers a row.

    >>> import torch
    >>> rows, tokens = torch.zeros(5, 2, 3), torch.zeros(5, 4).long()
    >>> comparable(torch.zeros(5, 6), rows), comparable(torch.zeros(5, 4), rows), comparable(torch.zeros(5, 4), tokens)
    (True, False, False)
    """
    same_size = output.dim() > 0 and output.numel() == batch.numel() and len(output) == len(batch)
    return same_size and output.is_floating_point() and batch.is_floating_point()


def why_no_r2(outputs: tuple[Any, ...], batch: Tensor, which: str | None) -> str:
    """Return the reason why no output is compared with the batch; an empty text where one is."""
    if not batch.is_floating_point():
        return "the model takes the rows as whole numbers (tokens), and R2 is not defined for tokens"
    output = reconstruction_of(outputs, batch, which)
    if output is None:
        return "no output of the model is shaped like the batch; name it in Case.reconstruction"
    if comparable(output, batch):
        return ""
    return f"the output {which!r} of a row is {_kind(output)}, and the row itself {_kind(batch)}"


def _kind(values: Tensor) -> str:
    size = f"{values[0].numel()} numbers" if values.dim() else "one number for the whole batch"
    return size if values.is_floating_point() else f"{size} of {values.dtype}"


def outputs_of(output: Any) -> tuple[Any, ...]:
    """Return a model's output as a flat tuple: a tensor alone, the members of a tuple or list, or the values of a mapping."""
    if isinstance(output, Tensor):
        return (output,)
    if isinstance(output, Mapping):
        return tuple(output.values())
    if hasattr(output, "__dataclass_fields__"):
        return tuple(getattr(output, name) for name in output.__dataclass_fields__)
    return tuple(output) if isinstance(output, tuple | list) else (output,)


def output_named(outputs: tuple[Any, ...], which: str) -> Tensor:
    """Return the output with a name like `out:1`.

    Raises:
        HarnessError: for a name of another form, or an index beyond the last output.
    """
    index = which.removeprefix("out:")
    if not which.startswith("out:") or not index.isdigit():
        raise HarnessError(f"{which!r}: expected 'out:0' for the first output, 'out:1' for the second, ...")
    if int(index) >= len(outputs):
        raise HarnessError(f"{which!r}: the model has {len(outputs)} outputs; the last is 'out:{len(outputs) - 1}'")
    output = outputs[int(index)]
    if not isinstance(output, Tensor):
        raise HarnessError(
            f"{which!r}: expected a tensor, got a {type(output).__name__}; let the model return its tensors side by side, "
            "as in `return code, reconstruction`"
        )
    return output


def first_value(output: Any) -> Tensor | PackedSequence | None:
    """Return the first tensor or packed sequence of an output, or None."""
    if isinstance(output, PackedSequence):
        return output
    return next((value for value in outputs_of(output) if isinstance(value, Tensor | PackedSequence)), None)


def first_tensor(output: Any) -> Tensor | None:
    """Return the first tensor of an output, or None; of a packed sequence its data, one row per token."""
    value = first_value(output)
    return value.data if isinstance(value, PackedSequence) else value


def with_first_tensor(output: Any, value: Tensor) -> Any:
    """Return the output with its first tensor replaced.

    >>> import torch
    >>> with_first_tensor({"name": "enc", "code": torch.zeros(1)}, torch.ones(1))
    {'name': 'enc', 'code': tensor([1.])}
    """
    if isinstance(output, PackedSequence):
        return PackedSequence(value, *output[1:])
    outputs = outputs_of(output)
    position = next(index for index, item in enumerate(outputs) if isinstance(item, Tensor | PackedSequence))
    if isinstance(outputs[position], PackedSequence):
        value = with_first_tensor(outputs[position], value)
    if isinstance(output, Mapping):
        return type(output)({**output, list(output)[position]: value})  # type: ignore[call-arg]
    if hasattr(output, "__dataclass_fields__"):
        return replace(output, **{list(output.__dataclass_fields__)[position]: value})
    if not isinstance(output, tuple | list):
        return value
    items = [*output[:position], value, *output[position + 1 :]]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)


def with_replaced(output: Any, replacements: TensorMap[Tensor]) -> Any:
    """Return the output with the tensors of the table replaced.

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
