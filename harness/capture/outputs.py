"""A model's outputs, whatever it returns, and which of them is what."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from harness.errors import HarnessError


def flat(values: Tensor) -> Tensor:
    """`[sample, ...]` as `[sample, unit]`: every number that is handed on is a unit.

    >>> import torch
    >>> flat(torch.zeros(5, 2, 3)).shape
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
    alike = [each for each in outputs if isinstance(each, Tensor) and each.shape == batch.shape]
    # a flattened copy of the batch counts when nothing has its very shape
    alike = alike or [
        each
        for each in outputs
        if isinstance(each, Tensor) and each.numel() == batch.numel() and len(each) == len(batch)
    ]
    return alike[-1] if alike else None


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
