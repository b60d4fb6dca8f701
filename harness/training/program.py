"""Program of one structure: the author's loss and the view of its bottleneck, as functions of explicit state."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from harness.capture import NOWHERE, BottleneckTap, code_of, comparable, flatten_units, reconstruction_of
from harness.capture.code_form import CodeForm, layer_before_code
from harness.case import Case
from harness.loss_terms import check_terms
from harness.models import accumulation_dtype, own_precision
from harness.remedies.posterior import log_variance, posterior_of
from harness.training.kernels import StackKernels
from harness.training.rng import RandomOverride

State = dict[str, Tensor]
WIDEST_OUTPUT = 16384  # numbers per row that are kept of an output which is only tested for being constant


@dataclass(frozen=True)
class BottleneckView:
    """Bottleneck tensors of a stack on some rows.

    Args:
        code: the activation in use, `[member, sample, number]`.
        preactivation: the input of the activation, the same shape.
        raw: the module's output before any normalization, the same shape.
        parts: the reconstruction of consecutive rows, `[member, sample, feature]`, or the summary that replaced each
            part; empty without a reconstruction that can be compared with the rows.
        scale: magnitude of the sums behind each unit, `[member, unit]`; None where the weights are not available.
        activation: name of the activation function.
        form: which of a sample's numbers are one unit at several positions.
        posterior: log-variances of the latent, `[member, sample, unit]`; None for a case without a posterior.
        output: output of the model, `[member, sample, feature]`; None if it is a reconstruction, or too wide.
    """

    code: Tensor
    preactivation: Tensor
    raw: Tensor
    parts: tuple[Tensor, ...]
    scale: Tensor | None
    activation: str
    form: CodeForm
    posterior: Tensor | None = None
    output: Tensor | None = None

    @property
    def reconstruction(self) -> Tensor | None:
        """Concatenate the parts of the reconstruction, at each access; None without one."""
        return torch.cat(self.parts, dim=-2) if self.parts else None


class Program(nn.Module):
    """A case's loss as a module, so that `functional_call` can give it any member's state.

    Args:
        case: a case, treated or not.
        model: its model, whose own weights are not used once state is passed.
        own_kernels: True to compute convolutions and BatchNorms as `StackKernels` does.
    """

    def __init__(self, case: Case, model: nn.Module, own_kernels: bool = False) -> None:
        super().__init__()
        self.case, self.model, self.own_kernels = case, model, own_kernels
        self.keywords = (*case.loss_keywords(), *case.supplied_keywords())
        self.activation = "none"
        self.form: CodeForm | None = None  # known after the first look
        self.code_call: tuple[int, int] | None = None  # the call that makes the code, known after the first look
        self.replaces_code = True  # False after a look in which units could not be held
        self.reads_code = True  # False where nothing was seen to read the code
        self._names = first_names(model)
        self._terms_in = accumulation_dtype(own_precision(model))

    def forward(self, batch: Tensor, numbers: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the terms of the loss; `numbers` also holds the targets, the step and the progress."""
        terms = self.case.losses(
            self.model, batch, **{name: numbers[name] for name in self.keywords if name in numbers}
        )
        terms = check_terms(self.case, terms)
        return {
            name: torch.as_tensor(value, dtype=self._terms_in, device=batch.device) for name, value in terms.items()
        }

    def loss(
        self, parameters: State, buffers: State, batch: Tensor, numbers: Mapping[str, Any], draws: Mapping[str, Tensor]
    ) -> tuple[Tensor, tuple[State, State]]:
        """Return the total of one member, with its terms and the buffers after the forward pass."""
        state = self._state("model", {**parameters, **buffers})
        terms = self._run(self, state, (batch, numbers), draws or None)
        updated = {name: state[f"model.{name}"] for name in buffers}
        return self.case.total(terms, numbers), (terms, updated)

    def see(
        self,
        parameters: State,
        buffers: State,
        rows: Tensor,
        draws: Mapping[str, Tensor],
        clamp: Tensor | None = None,
        reconstruct: bool = True,
    ) -> dict[str, Tensor]:
        """Return the bottleneck tensors of one member on these rows, with the units in `clamp` fixed."""
        observer = _Observer(self, clamp, reconstruct)
        state = self._state("program.model", {**parameters, **buffers})
        return self._run(observer, state, (rows,), draws)

    def _run(self, module: nn.Module, state: State, arguments: tuple[Any, ...], draws: Any) -> dict[str, Tensor]:
        with ExitStack() as modes:
            if self.own_kernels:
                modes.enter_context(StackKernels())
            if draws is not None:
                modes.enter_context(RandomOverride(draws))
            return functional_call(module, state, arguments, tie_weights=False)

    def _state(self, prefix: str, tensors: State) -> State:
        return {f"{prefix}.{name}": tensors[first] for name, first in self._names.items()}

    def look(self, rows: Tensor, clamp: Tensor | None = None, reconstruct: bool = True) -> dict[str, Tensor]:
        """Return the named tensors of one forward pass of the model, with or without its reconstruction."""
        if clamp is not None and self.code_call is None:
            self.look(rows, reconstruct=False)
        replace = None if clamp is None else partial(clamp_units, numbers=clamp)
        scales: list[Tensor] = []
        module = None if self.case.bottleneck.startswith("out:") else self.model.get_submodule(self.case.bottleneck)
        handle = None if module is None else module.register_forward_pre_hook(_record_scale(scales), with_kwargs=True)
        with (
            BottleneckTap(self.model, self.case.bottleneck, replace=replace, code_call=self.code_call) as tap,
            log_variance(self.case, self.model) as log_variances,
            layer_before_code(self.model, self.case.bottleneck) as layer,
        ):
            self.model(rows)
        if handle is not None:
            handle.remove()
        forward = tap.passes[0]
        code = code_of(forward, self.case.bottleneck)
        if clamp is None:
            self.code_call, self.reads_code = forward.code_call or NOWHERE, forward.read
        else:
            self.replaces_code = forward.replaced
        self.activation, self.form = forward.activation, layer.form(code)
        view = {
            "code": flatten_units(code),
            "preactivation": flatten_units(code if forward.preactivation is None else forward.preactivation),
            "raw": flatten_units(code if forward.raw is None else forward.raw),
        }
        reconstruction = reconstruction_of(forward.outputs, rows, self.case.reconstruction) if reconstruct else None
        if reconstruction is not None and comparable(reconstruction, rows):
            view["reconstruction"] = flatten_units(reconstruction)
        elif reconstruct and (output := _output(reconstruction, forward.outputs, rows)) is not None:
            view["output"] = flatten_units(output)
        if scales and not forward.moved:
            view["scale"] = scales[0]
        if self.case.posterior is not None:
            view["posterior"] = posterior_of(self.case, forward.outputs, log_variances, view["code"])
        return view


def _output(chosen: Tensor | None, outputs: tuple[Any, ...], rows: Tensor) -> Tensor | None:
    """Return the declared output, or the only one, if it has one row per sample and is not too wide to keep."""
    output = outputs[0] if chosen is None and len(outputs) == 1 else chosen
    if (
        not isinstance(output, Tensor)
        or not output.is_floating_point()
        or output.dim() == 0
        or len(output) != len(rows)
    ):
        return None
    return output if output[0].numel() <= WIDEST_OUTPUT else None


class _Observer(nn.Module):
    """Module whose forward pass is `Program.look`, for `functional_call`."""

    def __init__(self, program: Program, clamp: Tensor | None, reconstruct: bool) -> None:
        super().__init__()
        self.program, self.clamp, self.reconstruct = program, clamp, reconstruct

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        return self.program.look(rows, self.clamp, self.reconstruct)


def first_names(model: nn.Module) -> dict[str, str]:
    """Map every name of a tensor in a module to the first name of that tensor, the key of its state.

    A module with several names is listed once: `functional_call`, which ties by name, would otherwise swap its tensors
    twice and restore the swapped ones.

    >>> layer = nn.Linear(2, 2, bias=False)
    >>> other = nn.Linear(2, 2, bias=False)
    >>> other.weight = layer.weight
    >>> first_names(nn.Sequential(layer, layer, other))
    {'0.weight': '0.weight', '2.weight': '0.weight'}
    """
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for prefix, module in model.named_modules():
        for tensors_of in (module.named_parameters, module.named_buffers):
            for name, value in tensors_of(prefix, recurse=False, remove_duplicate=False):
                names[name] = first.setdefault(id(value), name)
    return names


def _record_scale(scales: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    """Return a pre-hook that records the scale of a linear layer's first call, before its input can be overwritten."""

    def record(module: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        inputs = next(iter([*args, *keywords.values()]), None)
        if not scales and isinstance(module, nn.Linear) and isinstance(inputs, Tensor) and inputs.dim() == 2:
            scales.append(_scale(module, inputs))

    return record


def clamp_units(code: Tensor, numbers: Tensor) -> Tensor:
    """Set the numbers of a code to these, `[number]`; NaN leaves one unchanged.

    >>> clamp_units(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([2.0, torch.nan]))
    tensor([[2., 2.],
            [2., 4.]])
    """
    return torch.where(numbers.isnan(), flatten_units(code), numbers).reshape(code.shape)


def _scale(module: nn.Linear, inputs: Tensor) -> Tensor:
    """Return `sum_i |w_ji| E|h_i| + |b_j|`, the magnitude against which the rounding of a float is judged."""
    size = inputs.abs().mean(dim=0) @ module.weight.abs().T
    size = size if module.bias is None else size + module.bias.abs()
    return size.nan_to_num(0, 0, 0)  # non-finite weights have no magnitude
