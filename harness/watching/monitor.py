"""Monitor of layers while the user's own loop trains a model."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.diagnosis import THRESHOLDS, Diagnosis, Thresholds
from harness.errors import HarnessError, did_you_mean
from harness.watching import process_statistics
from harness.watching.layer_names import layer_names, never_called
from harness.watching.layer_window import LayerWindow
from harness.watching.loop_recorder import Options, Recorder
from harness.watching.model_calls import first_leaf
from harness.watching.monitor_tables import histogram_frame, history_frame, unit_frame
from harness.watching.window_diagnosis import diagnose_window
from harness.watching.wrappers import is_distributed

if TYPE_CHECKING:
    from pandas import DataFrame


def watch(
    model: nn.Module,
    layers: str | Sequence[str],
    every: int = 1,
    *,
    labels: Callable[[], Any] | None = None,
    mask: Callable[[], Any] | None = None,
    gradients: bool = False,
    evaluation: bool = False,
    manual: bool = False,
    callback: Callable[[str], Any] | None = None,
    unit_axis: int | None = None,
    steps_per_epoch: int | None = None,
    target: float | None = None,
    thresholds: Thresholds = THRESHOLDS,
) -> "Monitor":
    """Watch layers of a model while the block runs any training loop.

    Outputs, gradients, buffers, random generators and modes are the same bit for bit with and without. A step is one call
    of the model in training mode; calls in eval mode are ignored. Steps are kept for up to two seconds and measured together,
    so a warning comes a moment after the step that it names. Each token of a packed sequence is a row, with the label of its
    sequence.

    The model may be wrapped by `torch.compile`, `DataParallel` or `DistributedDataParallel`. The layers of compiled code
    are read in a second forward pass in eager mode at every observed step. With several processes, each has its own
    monitor; leaving the block adds all of them up in rank 0, which alone writes.

    Args:
        model: the model that the loop calls as a whole, `model(batch)`.
        layers: dotted module name, a pattern such as `"encoder.*"`, or several of them.
        every: record each `every`-th step.
        labels: function without arguments that returns the labels of the current batch, such as `lambda: y`: whole
            numbers `[sample]`. They give the mutual information between each unit and the label, and `neural_collapse`.
        mask: function without arguments that returns a boolean tensor `[sample, position]` for the current batch, True for
            a token that counts and False for padding; by default `attention_mask` and `key_padding_mask` among the
            model's arguments are used.
        gradients: keep the layers' outputs, so that `monitor.terms(...)` can take the gradient of each loss term.
        evaluation: True to observe calls in eval mode too.
        manual: True for a loop that never calls the model as a whole; it calls `monitor.begin_step(inputs)` before the
            forward pass and `monitor.end_step()` behind it.
        callback: receives each warning, one line of text; by default they are printed to stderr.
        unit_axis: axis of the units; by default 1 for convolutions and images, the last axis otherwise.
        steps_per_epoch: length of an epoch; by default an epoch ends when rows of the first batch return.
        target: the mean activation that a sparsity penalty asks of each unit (rho), in the units of the code; needed for
            the flags that compare a unit with it.
        thresholds: the numbers that the verdicts rest on.

    Returns:
        A `Monitor`, to be used in a `with` statement. It keeps what it recorded after the block.

    Raises:
        HarnessError: for a name or pattern that matches no module, or `every` or `steps_per_epoch` below 1.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))
    >>> with watch(model, "0") as monitor:
    ...     for batch in torch.rand(1200, 4).split(100):
    ...         _ = model(batch)
    >>> monitor.diagnosis().rows, len(monitor.history())
    (1000, 24)
    """
    for name, value in (("every", every), ("steps_per_epoch", steps_per_epoch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise HarnessError(f"{name}: expected a whole number from 1, got {value!r}")
    options = Options(every, labels, mask, unit_axis, steps_per_epoch, gradients, evaluation, manual)
    return Monitor(model, layers, options, callback, target, thresholds)


class Monitor:
    """Record of the watched layers; see `watch`."""

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str],
        options: Options,
        callback: Callable[[str], Any] | None,
        target: float | None,
        thresholds: Thresholds,
    ) -> None:
        self.model, self.callback, self.target, self.thresholds = model, callback, target, thresholds
        self._recorder = Recorder(model, layer_names(model, layers), options, self._say)
        self._distributed = is_distributed(model)
        self._warned: set[tuple[str, str, int]] = set()
        self._log: Any = None  # a LayerLog of harness.tracking

    def __enter__(self) -> "Monitor":
        self._recorder.open()
        return self

    def __exit__(self, error: type[BaseException] | None, *rest: Any) -> None:
        self._recorder.close()
        if error is not None:
            self._end_log()
            return
        self._recorder.flush()
        if self._distributed:
            process_statistics.gather(self._recorder.windows)
        self._end_log()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the watched layers."""
        return tuple(self._recorder.windows)

    @property
    def step(self) -> int:
        """Number of steps so far."""
        return self._recorder.step

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
        self._recorder.flush()
        if layer is None and len(self.layers) > 1:
            return {name: self._diagnosis(window) for name, window in self._recorder.windows.items()}
        return self._diagnosis(self._window(layer))

    def history(self) -> "DataFrame":
        """Return a table with one row per layer, observed step and unit; at most 4,096 steps, evenly spaced.

        Columns: `layer`; `step`, from 1; `unit`, from 0; `activation_frequency`, share of the batch's rows on which the
        unit is active, from 0 (never) to 1 (always), NaN for tanh and none, which have no off state; `mean` and `sd` of
        the unit over the batch; `dead`, True when the unit was not active on the rows of the last window; and
        `gradient/<term>`, the norm of the term's gradient at the unit, for the terms of `terms`.
        """
        self._recorder.flush()
        return history_frame(self._recorder.windows.values())

    def units(self) -> "DataFrame":
        """Return a table with one row per layer and unit, over the whole training.

        Columns: `layer`, `unit`, `rows`, `activation_frequency`, `mean`, `sd`, `last_active` (step, 0 for never), `dead`,
        `death` (last active step before the unit was dead; missing for a unit that never was), `revival` (the latest step
        at which it was active again) and `revivals` (their number).
        """
        self._recorder.flush()
        return unit_frame(self._recorder.windows.values())

    def histograms(self, bins: int = 32) -> "DataFrame":
        """Return a table with one row per layer, unit and bin: the values of the last window, as in `diagnosis`.

        Columns: `layer`, `unit`, `low`, `high` (edges of the bin; equal bins between the unit's smallest and largest
        value) and `rows` (their number). Of layers of more than 8,192 units, evenly spaced units are kept. `report`
        draws how the values changed over the training.

        Args:
            bins: number of bins of each unit.

        Raises:
            HarnessError: for fewer than 1 bin.
        """
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
            raise HarnessError(f"bins: expected a whole number from 1, got {bins!r}")
        self._recorder.flush()
        return histogram_frame(self._recorder.windows.values(), bins)

    def terms(self, **terms: Any) -> None:
        """Record the gradient of each loss term at the watched layers; called in the loop, before `backward()`.

        In steps that are not observed, it returns at once. The gradients of the parameters are not touched. A term whose
        gradient outweighs that of `reconstruction`, or of the first term where none is called so, is reported once, and is
        the finding `dominates`.

        Args:
            terms: each loss term as a scalar tensor under its name, with its weight: `reconstruction=mse, kl=beta * kl`.

        Raises:
            HarnessError: without `gradients=True`.
        """
        if not self._recorder.options.gradients:
            raise HarnessError("terms: expected watch(..., gradients=True), got gradients=False")
        self._recorder.add_terms(terms)

    def begin_step(self, inputs: Any = None) -> None:
        """Begin a step; for `watch(..., manual=True)`.

        Args:
            inputs: the batch; a tensor in it tells epochs apart.
        """
        self._recorder.begin(first_leaf(inputs))

    def end_step(self) -> None:
        """End a step, before `backward()`; nothing if it has ended already."""
        self._recorder.end()

    def log_to_mlflow(self, every: int = 100) -> None:
        """Log to MLflow the steps recorded so far, and those that follow until the block ends.

        Metrics go to the active run, if there is one; otherwise to a run of the experiment `harness-watch`, in the store
        of `mlflow.set_tracking_uri`, MLFLOW_TRACKING_URI or `mlruns/mlflow.db`. Keys are `<layer>/live_units`,
        `<layer>/activation_frequency`, `<layer>/gradient/<term>`, and `<layer>/activation_frequency/u<j>` for layers of up
        to 32 units; the tag `<layer>/verdict` has the verdict.

        Args:
            every: log each `every`-th step.
        """
        from harness.tracking.layer_log import LayerLog

        if self._is_writer() and self._log is None:
            self._log = LayerLog(every)
            self._recorder.measured = self._log_steps
        self._recorder.flush()
        self._log_steps()
        if not self._recorder.is_open:
            self._end_log()

    def report(self, path: str | Path, layer: str | None = None) -> Path:
        """Write `report.html` and `report.json` of one layer into a folder.

        Beside the diagnosis, the page shows how the values of up to six units changed over the training: of those with
        findings first, then of those that vary most. Of several processes, the values are those of rank 0.

        Args:
            path: the folder; created where it is missing.
            layer: one of the watched layers; may be left out where only one is watched.

        Returns:
            Path of the page.

        Raises:
            HarnessError: for a layer that is not watched, or none of several.
        """
        from harness.report.layer_page import write_diagnosis_report

        window = self._window(layer)
        diagnosis = self.diagnosis(window.name)
        if not self._is_writer():
            return Path(path) / "report.html"
        return write_diagnosis_report(diagnosis, None, Path(path), window.values)

    def _window(self, layer: str | None) -> LayerWindow:
        windows = self._recorder.windows
        if layer is None and len(windows) > 1:
            raise HarnessError(f"layer: expected one of {', '.join(windows)}, got none")
        name = next(iter(windows)) if layer is None else layer
        if name not in windows:
            raise HarnessError(f"layer: {did_you_mean('watched layer', name, list(windows))}")
        return windows[name]

    def _diagnosis(self, window: LayerWindow) -> Diagnosis:
        if window.record is None:
            return never_called(window.name, self.step, self._recorder.ignored, self._recorder.returned(window.name))
        return diagnose_window(window, self.target, self.thresholds)

    def _is_writer(self) -> bool:
        """True in the only process, and in rank 0 of several."""
        return not self._distributed or torch.distributed.get_rank() == 0

    def _log_steps(self) -> None:
        if self._log is not None:
            for window in self._recorder.windows.values():
                self._log.add(window.name, window.history)

    def _end_log(self) -> None:
        if self._log is None:
            return
        log, self._log, self._recorder.measured = self._log, None, None
        for window in self._recorder.windows.values():
            log.add(window.name, window.history)
            log.verdict(window.name, str(self._diagnosis(window).verdict))
        log.close()

    def _say(self, layer: str, rule: str, units: tuple[int, ...], step: int, text: str) -> None:
        units = tuple(unit for unit in units if (layer, rule, unit) not in self._warned)
        if not units or not self._is_writer():
            return
        self._warned |= {(layer, rule, unit) for unit in units}
        line = f"step {step}: {_sentence(layer, rule, units, text)}"
        if self.callback is None:
            sys.stderr.write(f"{line}\n")
        else:
            self.callback(line)


def _sentence(layer: str, rule: str, units: tuple[int, ...], text: str) -> str:
    if rule == "values":
        return f"{layer} has NaN or infinite values"
    if rule.startswith("dominates"):
        return f"at {layer}, {text}"
    names = ", ".join(map(str, units[:8])) + (f" and {len(units) - 8} more" if len(units) > 8 else "")
    single = len(units) == 1
    subject = f"{'unit' if single else 'units'} {names} of {layer}"
    if rule == "revived":
        return f"{subject} {'is' if single else 'are'} active again"
    return f"{subject} {'has' if single else 'have'} not {text}"
