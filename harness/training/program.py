"""One structure's program: the author's loss, and what its bottleneck shows, as functions of explicit state."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from harness.capture import NOWHERE, BottleneckTap, code_of, comparable, flatten_units, reconstruction_of
from harness.case import Case
from harness.loss_terms import check_terms
from harness.models import accumulation_dtype, own_precision
from harness.training.kernels import StackKernels
from harness.training.rng import RandomOverride

State = dict[str, Tensor]


@dataclass(frozen=True)
class BottleneckView:
    """What the bottlenecks of a stack did on some rows.

    Args:
        code: the activation in use, `[member, sample, unit]`.
        preactivation: what entered it, the same shape.
        raw: the module's output before any normalisation, the same shape.
        made: the reconstruction, `[member, sample, feature]` of some rows after the others, or what was kept of each
            part; empty without one that can be compared with the rows.
        scale: size of the sums that made each unit, `[member, unit]`, or None where the weights are not at hand.
        activation: its name.
    """

    code: Tensor
    preactivation: Tensor
    raw: Tensor
    made: tuple[Tensor, ...]
    scale: Tensor | None
    activation: str

    @property
    def reconstruction(self) -> Tensor | None:
        """The reconstruction as one tensor, put together each time it is asked for; None without one."""
        return torch.cat(self.made, dim=-2) if self.made else None


class Program(nn.Module):
    """A case's loss as a module, so that `functional_call` can give it any member's state.

    Args:
        case: a case, treated or not.
        model: its model, whose own weights are never used once state is given.
        own_kernels: compute convolutions and BatchNorms as `StackKernels` does.
    """

    def __init__(self, case: Case, model: nn.Module, own_kernels: bool = False) -> None:
        super().__init__()
        self.case, self.model, self.own_kernels = case, model, own_kernels
        self.keywords = case.loss_keywords()
        self.activation = "none"
        self.code_call: tuple[int, int] | None = None  # the call that makes the code, known after the first look
        self.replaces_code = True  # False after a look in which units could not be held
        self._names = first_names(model)
        self._terms_in = accumulation_dtype(own_precision(model))

    def forward(self, batch: Tensor, numbers: Mapping[str, Any]) -> dict[str, Tensor]:
        found = self.case.losses(self.model, batch, **{name: numbers[name] for name in self.keywords})
        terms = check_terms(self.case, found)
        return {
            name: torch.as_tensor(value, dtype=self._terms_in, device=batch.device) for name, value in terms.items()
        }

    def loss(
        self, parameters: State, buffers: State, batch: Tensor, numbers: Mapping[str, Any], draws: Mapping[str, Tensor]
    ) -> tuple[Tensor, tuple[State, State]]:
        """The total of one member, with its terms and the buffers as the forward pass left them."""
        state = self._state("model", {**parameters, **buffers})
        terms = self._called(self, state, (batch, numbers), draws or None)
        left = {name: state[f"model.{name}"] for name in buffers}
        return self.case.total(terms, numbers), (terms, left)

    def see(
        self,
        parameters: State,
        buffers: State,
        rows: Tensor,
        draws: Mapping[str, Tensor],
        held: Tensor | None = None,
        made: bool = True,
    ) -> dict[str, Tensor]:
        """What one member's bottleneck does on these rows, in eval mode, with units held or none."""
        looked = _Looked(self, held, made)
        state = self._state("program.model", {**parameters, **buffers})
        return self._called(looked, state, (rows,), draws)

    def _called(self, module: nn.Module, state: State, arguments: tuple[Any, ...], draws: Any) -> dict[str, Tensor]:
        with ExitStack() as modes:
            if self.own_kernels:
                modes.enter_context(StackKernels())
            if draws is not None:
                modes.enter_context(RandomOverride(draws))
            return functional_call(module, state, arguments, tie_weights=False)

    def _state(self, prefix: str, given: State) -> State:
        return {f"{prefix}.{name}": given[first] for name, first in self._names.items()}

    def look(self, rows: Tensor, held: Tensor | None = None, made: bool = True) -> dict[str, Tensor]:
        """The named tensors of one forward pass of the model as it stands, with what it made of the rows or without."""
        if held is not None and self.code_call is None:
            self.look(rows, made=False)
        replace = None if held is None else partial(clamp_units, numbers=held)
        scales: list[Tensor] = []
        module = None if self.case.bottleneck.startswith("out:") else self.model.get_submodule(self.case.bottleneck)
        handle = None if module is None else module.register_forward_pre_hook(_keep_scale(scales), with_kwargs=True)
        with BottleneckTap(self.model, self.case.bottleneck, replace=replace, code_call=self.code_call) as tap:
            self.model(rows)
        if handle is not None:
            handle.remove()
        seen = tap.passes[0]
        code = code_of(seen, self.case.bottleneck)
        if held is None:
            self.code_call = seen.code_call or NOWHERE
        else:
            self.replaces_code = seen.replaced
        self.activation = seen.activation
        shown = {
            "code": flatten_units(code),
            "preactivation": flatten_units(code if seen.preactivation is None else seen.preactivation),
            "raw": flatten_units(code if seen.raw is None else seen.raw),
        }
        reconstruction = reconstruction_of(seen.outputs, rows, self.case.reconstruction) if made else None
        if reconstruction is not None and comparable(reconstruction, rows):
            shown["reconstruction"] = flatten_units(reconstruction)
        if scales and not seen.moved:
            shown["scale"] = scales[0]
        return shown


class _Looked(nn.Module):
    """Makes `Program.look` the forward pass of a module, for `functional_call`."""

    def __init__(self, program: Program, held: Tensor | None, made: bool) -> None:
        super().__init__()
        self.program, self.held, self.made = program, held, made

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        return self.program.look(rows, self.held, self.made)


def first_names(model: nn.Module) -> dict[str, str]:
    """Every place in which a module holds a tensor -> the first name of that tensor, under which its state is given.

    A module of several names is one place: `functional_call`, which ties by name, would fill it twice and put back
    what it had filled in.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> other = nn.Linear(2, 2, bias=False)
    >>> other.weight = layer.weight
    >>> first_names(nn.Sequential(layer, layer, other))
    {'0.weight': '0.weight', '2.weight': '0.weight'}
    """
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for prefix, module in model.named_modules():
        for held in (module.named_parameters, module.named_buffers):
            for name, value in held(prefix, recurse=False, remove_duplicate=False):
                names[name] = first.setdefault(id(value), name)
    return names


def _keep_scale(scales: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    """A hook that keeps the scale of a linear layer's first call, before anything can write to what enters it."""

    def keep(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        entered = next(iter([*args, *named.values()]), None)
        if not scales and isinstance(module, nn.Linear) and isinstance(entered, Tensor) and entered.dim() == 2:
            scales.append(_scale(module, entered))

    return keep


def clamp_units(code: Tensor, numbers: Tensor) -> Tensor:
    """The code with its units held at these numbers, `[unit]`; one whose number is NaN is left as it is.

    >>> clamp_units(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([2.0, torch.nan]))
    tensor([[2., 2.],
            [2., 4.]])
    """
    return torch.where(numbers.isnan(), flatten_units(code), numbers).reshape(code.shape)


def _scale(module: nn.Linear, inputs: Tensor) -> Tensor:
    """`sum_i |w_ji| E|h_i| + |b_j|`: the size of what was summed, against which a float's rounding is judged."""
    size = inputs.abs().mean(dim=0) @ module.weight.abs().T
    size = size if module.bias is None else size + module.bias.abs()
    return size.nan_to_num(0, 0, 0)  # weights that are lost say nothing of a size
