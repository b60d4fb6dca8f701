"""Recorder of the watched layers: functions around the model's calls, and statistics of several steps at once."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.capture.outputs import first_tensor, first_value
from harness.errors import HarnessError
from harness.watching.epochs import EpochCounter
from harness.watching.forward_calls import ForwardCalls, StepCalls
from harness.watching.layer_names import unit_axis_of, unit_rows, whole_numbers
from harness.watching.layer_reader import LayerReader
from harness.watching.layer_window import LayerWindow, Reading
from harness.watching.padding_masks import padding_mask
from harness.watching.unit_record import Clocks
from harness.watching.warning_lines import Line, warning_lines
from harness.watching.wrappers import around_compiled_calls, core_of, is_opaque, second_pass

FLUSH_STEPS = 128  # observed steps after which they are measured: together, for a fraction of the time
FLUSH_SECONDS = 2.0  # the same
NO_GRADIENTS: dict[str, Tensor] = {}
FLUSH_VALUES = 2**22  # activations that are kept unmeasured


@dataclass(frozen=True)
class Options:
    """Arguments of `watch` for the recorder; see there."""

    every: int
    labels: Callable[[], Any] | None
    mask: Callable[[], Any] | None
    unit_axis: int | None
    steps_per_epoch: int | None
    gradients: bool
    evaluation: bool
    manual: bool


class Recorder:
    """Keeps the code of every observed step, and measures several steps at once.

    Args:
        model: the model that the loop calls.
        names: dotted names of the layers in `core_of(model)`.
        options: see `watch`.
        say: receives layer, rule, units, step and message of each warning.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        options: Options,
        say: Callable[[str, str, tuple[int, ...], int, str], None],
    ) -> None:
        self.model, self.core, self.options, self.say = model, core_of(model), options, say
        self.step = self.ignored = 0
        self.opaque = is_opaque(model)
        if self.opaque and options.manual:
            raise HarnessError("manual: expected a model that is not compiled, got one; train it uncompiled")
        if self.opaque and options.gradients:
            raise HarnessError(
                "gradients: expected a model that is not compiled and not on several devices, got one; watch it with "
                "gradients=False, or train it uncompiled"
            )
        # elsewhere the layers are attached to in the observed steps alone: the others cost nothing
        self._next, self._evaluation = 1, options.evaluation  # the next observed step
        self._attached_always = options.every == 1 and not self.opaque
        self._readers = {name: LayerReader(self.core, name) for name in names}
        self.windows = {name: LayerWindow(name, self._readers[name].module, options.unit_axis) for name in names}
        self._epochs = EpochCounter(options.steps_per_epoch)
        self._pending: list[tuple[int, dict[str, Reading]]] = []
        self._pending_values = 0
        self._due_at = time.monotonic() + FLUSH_SECONDS
        self._depth, self._recording, self._tapped = 0, False, True
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        # the layers' own outputs in the latest observed step, for gradients
        self._outputs: dict[str, list[Tensor]] = {}
        self._latest: dict[str, Reading] = {}  # of the latest observed step
        self.measured: Callable[[], None] | None = None  # called after steps were measured
        self.is_open = False
        self._open = ExitStack()

    def open(self) -> None:
        """Attach to the model and to the layers."""
        self.is_open = True
        if self.options.manual:
            pass
        elif getattr(self.model, "_compiled_call_impl", None) is not None:
            self._open.enter_context(around_compiled_calls(self.model, self._before, self._after, self._failed))
        else:
            self._open.callback(StepCalls(self.model, self._begin, self._after, self._failed).remove)
        for name, reader in self._readers.items():
            if self._attached_always:
                reader.attach()
            self._open.callback(reader.detach)
            if self.options.gradients:
                take = partial(self._take_output, name)
                self._open.callback(ForwardCalls(reader.module, after=take).remove)

    def close(self) -> None:
        """Detach from the model and from the layers."""
        self._stop()
        self._open.close()
        self._depth, self._recording, self.is_open = 0, False, False
        self._outputs = {}

    def begin(self, inputs: Tensor | None) -> None:
        """Begin a step that is no call of the model."""
        self._failed()  # of a step that was not ended
        self._before(() if inputs is None else (inputs,), {})

    def end(self) -> None:
        """End such a step."""
        if self._depth:
            self._after(None)

    def returned(self, name: str) -> str:
        """Return what a layer returned, in words, where that is no rows of units."""
        return self._readers[name].returned

    def flush(self) -> None:
        """Measure the kept steps, outside of a forward pass."""
        if self._recording:
            return
        pending, self._pending, self._pending_values = self._pending, [], 0
        self._due_at = time.monotonic() + FLUSH_SECONDS
        if not pending:
            return
        steps = np.array([step for step, _ in pending])
        complete, rows, returning = self._epochs.progress(steps)
        clocks = Clocks(steps, complete, rows // self.options.every, returning)
        lines: list[Line] = []
        for name, window in self.windows.items():
            readings = [(index, entry[name]) for index, (_, entry) in enumerate(pending) if name in entry]
            for _, alike in groupby(readings, lambda entry: entry[1].kind()):
                index, group = zip(*alike, strict=True)
                here = clocks.at(list(index))
                finite, changes = window.add(group, here)
                lines += warning_lines(window, here, finite, changes)
            if self.options.gradients:
                taken = [(steps[index].item(), reading.gradients) for index, reading in readings]
                dominating = window.balance.add(*zip(*taken, strict=True)) if taken else []
                lines += [(step, name, f"dominates {term}", (0,), text) for step, term, text in dominating]
        for step, name, rule, units, message in sorted(lines, key=lambda line: line[0]):
            self.say(name, rule, units, step, message)
        if self.measured is not None:
            self.measured()

    def add_terms(self, terms: dict[str, Any]) -> None:
        """Take the gradient of each term at the layers' outputs in the latest observed step."""
        outputs, self._outputs = self._outputs, {}
        if not outputs:
            return
        for term, value in terms.items():
            tensors = [tensor for tensors in outputs.values() for tensor in tensors if tensor.requires_grad]
            if not tensors or not isinstance(value, Tensor) or not value.requires_grad:
                continue
            gradients = torch.autograd.grad(value.sum(), tensors, retain_graph=True, allow_unused=True)
            by_tensor = {id(tensor): gradient for tensor, gradient in zip(tensors, gradients, strict=True)}
            for name, layer_outputs in outputs.items():
                if name in self._latest:
                    pairs = [(tensor, by_tensor.get(id(tensor))) for tensor in layer_outputs]
                    self._latest[name].gradients[term] = self._norm(name, pairs)

    def _norm(self, name: str, pairs: list[tuple[Tensor, Tensor | None]]) -> Tensor:
        """Return the norm of a gradient at each unit."""
        squares = []
        for tensor, gradient in pairs:
            axis = unit_axis_of(self._readers[name].module, tensor, self.options.unit_axis)
            values = torch.zeros_like(tensor) if gradient is None else gradient
            squares.append(unit_rows(values, axis).double().square().sum(0))
        return torch.stack(squares).sum(0).sqrt().detach()

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a call of the model; calls inside of a step are parts of it."""
        self._depth += 1
        if self._depth == 1:
            self._begin(args, kwargs)

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Begin a step; return True if it is observed, and `_after` or `_failed` has to end it."""
        if not (self.model.training or self._evaluation):
            self.ignored += 1
            return False
        self.step += 1
        if self._outputs:
            self._outputs = {}
        if self.step < self._next:
            if self._epochs.steps is None:
                self._add_epoch_rows(args, kwargs)
            if self._pending and self._is_due():
                self.flush()
            return False
        self._next = self.step + self.options.every
        self._add_epoch_rows(args, kwargs)
        self._recording = True
        self._arguments = args, kwargs
        if not self.opaque:
            if not self._attached_always:
                for reader in self._readers.values():
                    reader.attach()
            started = [reader.start() for reader in self._readers.values()]
            self._tapped = True in started
        return True

    def _add_epoch_rows(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args and isinstance(args[0], Tensor) else first_value((*args, *kwargs.values()))
        self._epochs.add(value if isinstance(value, Tensor) else None)  # the tokens of packed sequences are no rows

    def _pause(self) -> None:
        if not self._attached_always:
            for reader in self._readers.values():
                reader.pause()

    def _failed(self) -> None:
        self._depth = max(0, self._depth - 1)
        if not self._depth and self._recording:
            self._recording, self._arguments = False, ((), {})
            self._stop()
            self._pause()

    def _after(self, output: Any) -> None:
        self._depth = max(0, self._depth - 1)
        if self._depth or not self._recording:
            return
        self._recording = False
        arguments, self._arguments = self._arguments, ((), {})
        if self.opaque:
            self._read_again(arguments)
        elif self._tapped:
            self._stop()
        self._record(arguments)
        self._pause()
        if self._is_due():
            self.flush()

    def _is_due(self) -> bool:
        """Return True if the kept steps, at least one, are to be measured."""
        if time.monotonic() > self._due_at:
            return True
        return len(self._pending) >= FLUSH_STEPS or self._pending_values >= FLUSH_VALUES

    def _read_again(self, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        readers = self._readers.values()
        self._depth += 1  # the second pass is no step
        try:
            for reader in readers:
                reader.attach()
                reader.start()
            second_pass(self.model, *arguments)
        finally:
            self._depth -= 1
            self._stop()

    def _stop(self) -> None:
        for reader in reversed(self._readers.values()):
            reader.stop()

    def _record(self, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        options = self.options
        labels = None if options.labels is None else whole_numbers(torch.as_tensor(options.labels()))
        declared = None if options.mask is None else torch.as_tensor(options.mask())
        readings: dict[str, Reading] = {}
        for name, reader in self._readers.items():
            code = reader.finish() if self._tapped else reader.take()
            self.windows[name].noise |= reader.noise
            if code is None:  # not called, or without rows of units
                continue
            mask, first = None, code.codes[0]
            if first.dim() == 3:
                mask = padding_mask(self.core, *arguments, first, options.unit_axis, reader.module, declared)
            gradients = {} if options.gradients else NO_GRADIENTS
            readings[name] = Reading(code.codes, code.activation, labels, mask, gradients, code.packings)
            for tensor in code.codes:
                self._pending_values += tensor.numel()
        if labels is not None:
            _check_labels(labels, readings)
        self._pending.append((self.step, readings))
        self._latest = readings if options.gradients else {}

    def _take_output(self, name: str, output: Any) -> None:
        tensor = first_tensor(output) if self._recording else None
        if tensor is not None:
            self._outputs.setdefault(name, []).append(tensor)


def _check_labels(labels: Tensor, readings: Mapping[str, Reading]) -> None:
    """Warn of labels that are not one per row of the batch: a loop is not stopped for them."""
    for name, reading in readings.items():
        if len(labels) != reading.samples:
            message = f"watch: labels: expected {reading.samples}, one per row of {name}, got {len(labels)}; they are left out"
            warnings.warn(message, stacklevel=2)
