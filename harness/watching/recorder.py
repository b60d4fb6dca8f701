"""Recorder of the watched layers: hooks around the model's calls, and statistics of several steps at once."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.capture.outputs import first_tensor
from harness.errors import HarnessError
from harness.measures.units import has_off_state
from harness.watching.epochs import EpochCounter, Progress
from harness.watching.layer_reader import LayerReader
from harness.watching.layer_window import LayerWindow, Reading
from harness.watching.layers import unit_axis_of, unit_rows, whole_numbers
from harness.watching.padding import padding_mask
from harness.watching.unit_record import SILENT_EPOCHS, SILENT_ROWS, Clock, StepChanges
from harness.watching.wrappers import around_compiled_calls, core_of, is_opaque, second_pass

FLUSH_STEPS = 128  # after which kept steps are measured: together, for a fraction of the time
FLUSH_SECONDS = 1.0  # the same
FLUSH_VALUES = 2**20  # activations that are kept unmeasured


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
        if self.opaque and options.gradients:
            raise HarnessError(
                "gradients: expected a model that is not compiled and not on several devices, got one; watch it with "
                "gradients=False, or watch the model before torch.compile"
            )
        self._readers = {name: LayerReader(self.core, name) for name in names}
        self.windows = {name: LayerWindow(name, self._readers[name].module, options.unit_axis) for name in names}
        self._epochs = EpochCounter(options.steps_per_epoch)
        self._pending: list[tuple[int, dict[str, Reading]]] = []
        self._pending_values = self._measured = 0  # steps before the pending ones
        self._measured_at = time.monotonic()
        self._depth, self._recording = 0, False
        self._error: BaseException | None = None
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] = (), {}
        self._outputs: dict[
            str, list[Tensor]
        ] = {}  # the layers' own outputs in the latest observed step, for gradients
        self._latest: dict[str, Reading] = {}  # of the latest observed step
        self.measured: Callable[[], None] | None = None  # called after steps were measured
        self.is_open = False
        self._open = ExitStack()

    def open(self) -> None:
        """Register the hooks."""
        self.is_open = True
        compiled = getattr(self.model, "_compiled_call_impl", None) is not None
        if compiled:
            after = lambda module, args, kwargs, output: self._after(module, args, output)  # noqa: E731
            self._open.enter_context(around_compiled_calls(self.model, self._before, after))
        else:
            before = self.model.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True)
            self._open.callback(before.remove)
            self._open.callback(self.model.register_forward_hook(self._after, always_call=True).remove)
        for name, reader in self._readers.items():
            if not self.opaque:
                reader.attach()
            self._open.callback(reader.detach)
            if self.options.gradients:
                hook = lambda module, args, output, name=name: self._take_output(name, output)  # noqa: E731
                self._open.callback(reader.module.register_forward_hook(hook).remove)

    def close(self) -> None:
        """Remove the hooks."""
        self._stop()
        self._open.close()
        self._depth, self._recording, self.is_open = 0, False, False
        self._outputs = {}

    def flush(self) -> None:
        """Measure the kept steps, outside of a forward pass."""
        if self._recording:
            return
        pending, self._pending, self._pending_values = self._pending, [], 0
        progress, first = self._epochs.count(), self._measured
        self._measured, self._measured_at = self.step, time.monotonic()
        lines: list[tuple[int, str, str, tuple[int, ...], str]] = []
        for name, window in self.windows.items():
            readings = [(step, entry[name]) for step, entry in pending if name in entry]
            for group in _groups(readings):
                clocks = [self._clock(step, progress[step - first - 1]) for step, _ in group]
                finite, changes = window.add([reading for _, reading in group], clocks)
                lines += _lines(window, clocks, finite, changes)
        for step, name, rule, units, message in sorted(lines, key=lambda line: line[0]):
            self.say(name, rule, units, step, message)
        if self.measured is not None and pending:
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

    def _clock(self, step: int, progress: Progress) -> Clock:
        samples = (progress.rows or 0) // self.options.every
        return Clock(step, progress.complete, samples, progress.returning)

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        if not (self.model.training or self.options.evaluation):
            self.ignored += 1
            return
        self.step += 1
        self._outputs = {}
        inputs = args[0] if args and isinstance(args[0], Tensor) else first_tensor((*args, *kwargs.values()))
        self._epochs.add(inputs)
        if (self.step - 1) % self.options.every == 0:
            self._error = sys.exc_info()[1]
            self._recording = True
            self._arguments = args, kwargs
            if not self.opaque:
                for reader in self._readers.values():
                    reader.start()
        if not self._recording and self._is_due():
            self.flush()

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth = max(0, self._depth - 1)
        if self._depth or not self._recording:
            return
        self._recording = False
        arguments, self._arguments = self._arguments, ((), {})
        failed = sys.exc_info()[1] is not self._error  # torch calls this hook for a forward pass that raised, too
        if self.opaque and not failed:
            self._read_again(arguments)
        else:
            self._stop()
        if failed:
            return
        self._record(arguments)
        if self._is_due():
            self.flush()

    def _is_due(self) -> bool:
        full = self.step - self._measured >= FLUSH_STEPS or self._pending_values >= FLUSH_VALUES
        return full or time.monotonic() - self._measured_at > FLUSH_SECONDS

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
            for reader in readers:
                reader.pause()

    def _stop(self) -> None:
        for reader in reversed(self._readers.values()):
            reader.stop()

    def _record(self, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        labels = None if self.options.labels is None else whole_numbers(torch.as_tensor(self.options.labels()))
        readings: dict[str, Reading] = {}
        for name, reader in self._readers.items():
            code = reader.finish()
            if code is None:
                continue
            declared = None if self.options.mask is None else torch.as_tensor(self.options.mask())
            axis = self.options.unit_axis
            mask = padding_mask(self.core, *arguments, code.codes[0], axis, reader.module, declared)
            readings[name] = Reading(code.codes, code.activation, labels, mask)
            self._pending_values += readings[name].values
        self._pending.append((self.step, readings))
        self._latest = readings if self.options.gradients else {}

    def _take_output(self, name: str, output: Any) -> None:
        tensor = first_tensor(output) if self._recording else None
        if tensor is not None:
            self._outputs.setdefault(name, []).append(tensor)


def _groups(readings: list[tuple[int, Reading]]) -> list[list[tuple[int, Reading]]]:
    """Return runs of readings that are measured at once."""
    groups: list[list[tuple[int, Reading]]] = []
    for step, reading in readings:
        if groups and groups[-1][0][1].alike(reading):
            groups[-1].append((step, reading))
        else:
            groups.append([(step, reading)])
    return groups


def _lines(
    window: LayerWindow, clocks: Sequence[Clock], finite: Sequence[bool], changes: StepChanges
) -> list[tuple[int, str, str, tuple[int, ...], str]]:
    """Return step, layer, rule, units and a word on the length of silence of each warning."""
    lines: list[tuple[int, str, str, tuple[int, ...], str]] = []
    some_silent = np.any(changes.silent, -1).tolist()
    some_revived = np.any(changes.revived, -1).tolist()
    verb = "fired" if has_off_state(window.activation) else "varied"
    for index, clock in enumerate(clocks):
        if not finite[index]:
            lines.append((clock.step, window.name, "values", (0,), ""))
        if some_silent[index]:
            length = f"{SILENT_EPOCHS} epochs" if clock.returning else f"{SILENT_ROWS} rows"
            units = tuple(changes.silent[index].nonzero()[0].tolist())
            lines.append((clock.step, window.name, "silent", units, f"{verb} for {length}"))
        if some_revived[index]:
            units = tuple(changes.revived[index].nonzero()[0].tolist())
            lines.append((clock.step, window.name, "revived", units, ""))
    return lines
