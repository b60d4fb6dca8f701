"""Monitor of layers while the user's own loop trains a model."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from harness.capture import BottleneckTap, submodule
from harness.diagnosis import THRESHOLDS, Diagnosis, Thresholds, diagnose
from harness.errors import HarnessError, did_you_mean
from harness.watching.epochs import EpochCounter
from harness.watching.layer_window import LEAST_ROWS, LayerWindow
from harness.watching.layers import axis_finding, layer_names, never_called, whole_numbers

if TYPE_CHECKING:
    from pandas import DataFrame

SILENT_EPOCHS = 3  # epochs without activity after which a unit is reported
SILENT_ROWS = 10_000  # the same for rows that never return: a frequency below 0.0004 (Clopper-Pearson)


def watch(
    model: nn.Module,
    layers: str | Sequence[str],
    every: int = 1,
    *,
    labels: Callable[[], Any] | None = None,
    callback: Callable[[str], Any] | None = None,
    unit_axis: int | None = None,
    steps_per_epoch: int | None = None,
    target: float | None = None,
    thresholds: Thresholds = THRESHOLDS,
) -> "Monitor":
    """Watch layers of a model while the block runs any training loop.

    Outputs, gradients, buffers, random generators and modes are the same bit for bit with and without. A step is one call
    of the model in training mode; calls in eval mode are ignored.

    Args:
        model: the model that the loop calls as a whole, `model(batch)`.
        layers: dotted module name, a pattern such as `"encoder.*"`, or several of them.
        every: record each `every`-th step.
        labels: function without arguments that returns the labels of the current batch, such as `lambda: y`.
        callback: receives each warning, one line of text; by default they are printed to stderr.
        unit_axis: axis of the units; by default 1 for convolutions and the last axis otherwise.
        steps_per_epoch: length of an epoch; by default an epoch ends when rows of the first batch return.
        target: the penalty's target activation rho.
        thresholds: the numbers that the verdicts rest on.

    Raises:
        HarnessError: for a name or pattern that matches no module, or `every` below 1.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))
    >>> with watch(model, "0") as monitor:
    ...     for batch in torch.rand(1200, 4).split(100):
    ...         _ = model(batch)
    >>> monitor.diagnosis().rows, len(monitor.history())
    (1000, 24)
    """
    return Monitor(model, layers, every, labels, callback, unit_axis, steps_per_epoch, target, thresholds)


class Monitor:
    """Record of the watched layers; see `watch`."""

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str],
        every: int,
        labels: Callable[[], Any] | None,
        callback: Callable[[str], Any] | None,
        unit_axis: int | None,
        steps_per_epoch: int | None,
        target: float | None,
        thresholds: Thresholds,
    ) -> None:
        for name, value in (("every", every), ("steps_per_epoch", steps_per_epoch)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise HarnessError(f"{name}: expected a whole number from 1, got {value!r}")
        self.model, self.every, self.labels, self.callback = model, every, labels, callback
        self.target, self.thresholds = target, thresholds
        self.step = 0
        self._windows = {
            name: LayerWindow(name, submodule(model, name), unit_axis) for name in layer_names(model, layers)
        }
        self._epochs = EpochCounter(steps_per_epoch)
        self._handles: list[RemovableHandle] = []
        self._taps: list[BottleneckTap] = []
        self._depth = 0
        self._error: BaseException | None = None
        self._warned: set[tuple[str, str, int]] = set()

    def __enter__(self) -> "Monitor":
        self._handles = [
            self.model.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True),
            self.model.register_forward_hook(self._after, always_call=True),
        ]
        return self

    def __exit__(self, *error: Any) -> None:
        self._close()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the watched layers."""
        return tuple(self._windows)

    def diagnosis(self, layer: str | None = None) -> Any:
        """Diagnose the last window: the rows of one epoch, at least 1,000 and at most 8,192.

        The rows are those of the training steps, with the weights and the dropout of each step; `diagnose_model` judges
        the finished model on held-out rows.

        Args:
            layer: one of the watched layers.

        Returns:
            A `Diagnosis` of this layer, or of the only one watched; else a dict with one per layer.

        Raises:
            HarnessError: for a layer that is not watched.
        """
        if layer is None and len(self._windows) > 1:
            return {name: self._diagnosis(window) for name, window in self._windows.items()}
        return self._diagnosis(self._window(layer))

    def history(self) -> "DataFrame":
        """Return a table with one row per layer, step and unit.

        Columns: `layer`, `step`, `unit`, `activation_frequency` (NaN for tanh and none), `mean`, `sd` (of the step's
        batch) and `dead` (not active on the rows of a whole window).
        """
        import pandas

        frames = [
            pandas.DataFrame(
                {
                    "layer": window.name,
                    "step": record["step"],
                    "unit": range(len(record["mean"])),
                    **{name: record[name].numpy() for name in MEASURES},
                }
            )
            for window in self._windows.values()
            for record in window.history
        ]
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=COLUMNS)

    def report(self, path: str | Path, layer: str | None = None) -> Path:
        """Write `report.html` and `report.json` of one layer into a folder; return the path of the page."""
        from harness.report.layer_page import write_diagnosis_report

        return write_diagnosis_report(self._diagnosis(self._window(layer)), None, Path(path))

    def _window(self, layer: str | None) -> LayerWindow:
        if layer is None and len(self._windows) > 1:
            raise HarnessError(f"layer: expected one of {', '.join(self._windows)}, got none")
        name = next(iter(self._windows)) if layer is None else layer
        if name not in self._windows:
            raise HarnessError(f"layer: {did_you_mean('watched layer', name, list(self._windows))}")
        return self._windows[name]

    def _diagnosis(self, window: LayerWindow) -> Diagnosis:
        rows = window.window()
        if not rows:
            return never_called(window.name, self.step)
        sample = rows["sample"]
        several = len(sample.unique()) < len(sample)  # rows of one sample
        diagnosis: Diagnosis = diagnose(
            rows["values"],
            activation=window.activation,
            labels=rows.get("labels"),
            target=self.target,
            thresholds=self.thresholds,
            blocks=sample if several else None,
        )
        note = axis_finding(window.shape, window.axis, window.declared is not None)
        return diagnosis if note is None else replace(diagnosis, findings=(*diagnosis.findings, note))

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth += 1
        if self._depth > 1 or not self.model.training:
            return
        self.step += 1
        self._error = sys.exc_info()[1]
        inputs = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        self._epochs.add(inputs)
        if (self.step - 1) % self.every:
            return
        for name in self._windows:
            # the hooks of this call are running already, so the tap takes all calls up to `_after` as one pass
            tap = BottleneckTap(self.model, name, everywhere=True)
            tap.__enter__()
            self._taps.append(tap)

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        self._depth = max(0, self._depth - 1)
        if self._depth == 0 and self._taps:
            taps = self._close()
            # torch calls this hook for a forward pass that raised, too
            if sys.exc_info()[1] is self._error:
                self._record(taps)

    def _close(self) -> list[BottleneckTap]:
        taps, self._taps, self._depth = self._taps, [], 0
        for tap in reversed(taps):
            tap.__exit__(None, None, None)
        return taps

    @torch.no_grad()
    def _record(self, taps: list[BottleneckTap]) -> None:
        labels = None if self.labels is None else whole_numbers(torch.as_tensor(self.labels()))
        for window, tap in zip(self._windows.values(), taps, strict=True):
            recorded = tap.passes[-1] if tap.passes else None
            if recorded is None or recorded.code is None:
                continue
            size = max(LEAST_ROWS, (self._epochs.rows or 0) * _positions(recorded.code, window))
            window.add(self.step, self._epochs.complete, recorded.code, recorded.activation, labels, size)
            self._warn(window)

    def _warn(self, window: LayerWindow) -> None:
        if not window.finite:
            self._say(window, "values", (0,), f"{window.name} has NaN or infinite values")
        assert window.active_epochs is not None
        epochs = self._epochs.complete - window.active_epochs >= SILENT_EPOCHS
        by_epochs = self._epochs.returning
        silent = epochs if by_epochs else window.silent(SILENT_ROWS)
        units = tuple(silent.nonzero()[:, 0].tolist())
        length = f"{SILENT_EPOCHS} epochs" if by_epochs else f"{SILENT_ROWS} rows"
        verb = "fired" if window.history[-1]["activation_frequency"].isfinite().any() else "varied"
        units = tuple(unit for unit in units if (window.name, "silent", unit) not in self._warned)
        if len(units) == 1:
            self._say(window, "silent", units, f"unit {units[0]} of {window.name} has not {verb} for {length}")
        elif units:
            names = ", ".join(map(str, units[:8])) + (f" and {len(units) - 8} more" if len(units) > 8 else "")
            self._say(window, "silent", units, f"units {names} of {window.name} have not {verb} for {length}")

    def _say(self, window: LayerWindow, rule: str, units: tuple[int, ...], message: str) -> None:
        keys = {(window.name, rule, unit) for unit in units}
        if keys <= self._warned:
            return
        self._warned |= keys
        line = f"step {self.step}: {message}"
        if self.callback is None:
            sys.stderr.write(f"{line}\n")
        else:
            self.callback(line)


def _positions(code: Tensor, window: LayerWindow) -> int:
    """Number of rows per sample."""
    if code.dim() <= 2:
        return 1
    axis = window.axis if window.history else (window.declared or 1)
    return max(1, code.numel() // (len(code) * code.shape[axis]))


MEASURES = ("activation_frequency", "mean", "sd", "dead")
COLUMNS = ("layer", "step", "unit", *MEASURES)
