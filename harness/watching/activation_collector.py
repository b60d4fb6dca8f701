"""Collector of the activations of one layer over batches, in a bounded amount of memory."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.capture import BottleneckTap, ForwardPass, comparable, reconstruction_of, submodule
from harness.capture.noise import NoiseDraws
from harness.capture.outputs import output_named
from harness.diagnosis import Diagnosis, Finding, Severity, Thresholds, diagnose
from harness.errors import HarnessError
from harness.measures.units import fires, has_off_state
from harness.watching.forward_calls import ForwardCalls
from harness.watching.layer_names import (
    axis_finding,
    form_of,
    has_fixed_rows,
    never_called,
    places_of_rows,
    unit_axis_of,
    unit_rows,
    whole_numbers,
)
from harness.watching.layer_reader import MOST_CALLS
from harness.watching.model_calls import Call, run_model
from harness.watching.padding_masks import padding_mask
from harness.watching.preservation import preserved
from harness.watching.row_window import MOST_UNITS, drawn_rows
from harness.watching.window_diagnosis import undeclared_posterior, units_sampled, with_own_units

MOST_ROWS = 20_000  # rows of activations that a diagnosis rests on; of more, a random half, quarter, ...
MOST_VALUES = 2**27  # activations of these rows, 512 MiB of float32


class ActivationCollector:
    """Collects the activations of one layer, batch after batch.

    Args:
        model: the model.
        layer: dotted name of the layer.
        unit_axis, posterior, reconstruction: see `diagnose_model`.
    """

    def __init__(
        self, model: nn.Module, layer: str, unit_axis: int | None, posterior: str | None, reconstruction: str | None
    ) -> None:
        self.model, self.layer, self.declared = model, layer, unit_axis
        self.posterior, self.reconstruction = posterior, reconstruction
        self.module = submodule(model, layer)
        self.activation, self.axis, self.shape = "none", 1, tuple[int, ...]()
        self.passes = self.samples = self.rows = 0
        self.calls, self.everywhere, self.several, self.masked, self.packed = 1, False, False, False, False
        self.sampled: Tensor | None = None
        self.fired: Tensor | None = None  # rows on which each unit fired
        self.looked_for_noise = self.noise = False
        self.returned = ""
        self._stride = 1
        self._generator = torch.Generator().manual_seed(0)  # its own: the global one is the model's
        self._labels: list[Tensor] = []
        self._parts: dict[str, list[Tensor]] = {}

    def add(
        self,
        batch: Any,
        forward: Callable[[Any], Any] | None,
        mask: Callable[[Any], Any] | None = None,
    ) -> None:
        """Run the model on a batch and keep the activations."""
        with ExitStack() as open_taps:
            taps = [
                BottleneckTap(self.model, self.layer, everywhere=self.everywhere, call=i) for i in range(self.calls)
            ]
            for tap in taps:
                open_taps.enter_context(tap)
            if not self.passes:
                open_taps.callback(ForwardCalls(self.module, after=self._note_form).remove)
            call = run_model(self.model, batch, forward)
        passes = [record for tap in taps for record in tap.passes]
        if not passes and forward is not None:  # it calls parts of the model
            self.everywhere = True
            return self.add(batch, forward, mask)
        calls = max(tap.module_calls for tap in taps)
        if calls > self.calls and self.calls < MOST_CALLS:
            self.calls = min(calls, MOST_CALLS)
            return self.add(batch, forward, mask)
        self.passes += max(1, len(taps[0].passes))
        recorded = [record for record in passes if record.code is not None and record.code.numel()]
        if recorded:
            self._add_passes(recorded, call, None if mask is None else torch.as_tensor(mask(batch)))
        else:
            self.samples += 0 if call.inputs is None else len(call.inputs)
        return None

    def look_for_noise(self, batch: Any, forward: Callable[[Any], Any] | None) -> None:
        """Run a batch once more, in eval mode and in training mode, and note a draw of noise behind the layer."""
        self.looked_for_noise = True
        for training in (False, True):
            if self.noise:
                break
            # batch statistics of the training mode must not reach the batches that follow
            with preserved(self.model), suppress(Exception):  # BatchNorm refuses a single row in training mode
                self.model.train(training)
                with NoiseDraws(self.module) as noise:
                    run_model(self.model, batch, forward)
                self.noise = noise.drawn

    def _note_form(self, output: Any) -> None:
        self.returned = form_of(output)

    def diagnosis(
        self,
        labels: Any,
        factors: Mapping[str, Any] | None,
        target: float | None,
        thresholds: Thresholds,
        shuffled: bool = False,
    ) -> Diagnosis:
        """Judge the collected activations."""
        if "code" not in self._parts:
            return never_called(self.layer, self.passes, returned=self.returned)
        parts = {name: torch.cat(values) for name, values in self._parts.items()}
        sample, rows = parts["sample"], len(parts["code"])
        if labels is None and sum(map(len, self._labels)) == self.samples:
            labels = torch.cat(self._labels)
        options: dict[str, Any] = {name: parts[name] for name in ("posterior",) if name in parts}
        if self.several:
            options["blocks"] = sample
            options |= {} if has_fixed_rows(self.module) else {"positions": parts["position"]}
        elif len(parts.get("inputs", ())) == rows:
            options["inputs"] = parts["inputs"]
            if len(parts.get("reconstruction", ())) == rows:
                options["reconstruction"] = parts["reconstruction"]
                if len(parts.get("expected_output", ())) == rows:
                    options["expected_output"] = parts["expected_output"]
        diagnosis: Diagnosis = diagnose(
            parts["code"],
            activation=self.activation,
            labels=_reference(labels, sample, self.samples, "labels"),
            factors={
                name: _reference(values, sample, self.samples, f"factor {name!r}")
                for name, values in (factors or {}).items()
            }
            or None,
            normalised=parts["raw"],
            target=target,
            thresholds=thresholds,
            **options,
        )
        if self.sampled is not None:
            diagnosis = with_own_units(diagnosis, self.sampled)
        notes = (
            None if self.sampled is None or self.fired is None else units_sampled(self.fired, self.rows),
            training_rows(rows) if shuffled else None,
            undeclared_posterior(self.layer) if self.noise else None,
            axis_finding(self.shape, self.axis, self.declared is not None, self.calls, self.masked, self.packed),
        )
        return replace(diagnosis, findings=(*diagnosis.findings, *(note for note in notes if note is not None)))

    def _add_passes(self, passes: list[ForwardPass], call: Call, declared: Tensor | None) -> None:
        first = passes[0]
        assert first.code is not None
        self.activation, self.shape = first.activation, tuple(first.code.shape)
        self.axis = unit_axis_of(self.module, first.code, self.declared)
        arguments = (call.args, call.kwargs)
        mask = padding_mask(self.model, *arguments, first.code, self.declared, self.module, declared)
        self.masked |= mask is not None
        packings = [record.code_packing for record in passes]
        samples = max([packing.samples for packing in packings if packing is not None], default=len(first.code))
        start = 0  # of the positions of this call
        for record, packing in zip(passes, packings, strict=True):
            assert record.code is not None
            raw = record.raw if record.raw is not None and record.raw.shape == record.code.shape else record.code
            values = {"code": record.code, "raw": raw}
            if self.posterior is not None:
                values["posterior"] = output_named(record.outputs, self.posterior)
            axes = {name: self._axis_in(value, record.code) for name, value in values.items()}
            parts = {name: _masked_rows(value, axes[name], mask) for name, value in values.items()}
            rows = len(parts["code"])
            sample, position = places_of_rows(record.code, self.axis, mask, packing)
            self.packed |= packing is not None
            self.several |= rows != samples or len(passes) > 1 or packing is not None
            parts["sample"], parts["position"] = sample + self.samples, position + start
            start += 1 + int(position.max())
            if not self.several and call.inputs is not None and len(call.inputs) == rows:
                parts |= self._with_reconstruction(call.inputs, record.outputs, call.targets)
            self._keep(parts)
        self.samples += samples
        if call.labels is not None:
            self._labels.append(call.labels.cpu())

    def _axis_in(self, value: Tensor, code: Tensor) -> int:
        """Return the axis of the units; a log-variance may have other axes than the code."""
        return self.axis if value.dim() == code.dim() else value.dim() - 1

    def _with_reconstruction(
        self, inputs: Tensor, outputs: tuple[Any, ...], targets: Tensor | None
    ) -> dict[str, Tensor]:
        parts = {"inputs": inputs.flatten(1)} if inputs.is_floating_point() else {}
        output = reconstruction_of(outputs, inputs, self.reconstruction)
        if output is not None and comparable(output, inputs):
            parts["reconstruction"] = output.flatten(1)
            parts |= {} if targets is None else {"expected_output": targets.flatten(1)}
        return parts

    def _keep(self, parts: dict[str, Tensor]) -> None:
        """Keep rows; if there are too many, half of them, drawn at random."""
        code = parts["code"]
        rows, units = code.shape
        if has_off_state(self.activation):
            fired = fires(code, self.activation).sum(0).cpu()
            self.fired = fired if self.fired is None or len(self.fired) != units else self.fired + fired
        if units > MOST_UNITS:
            self.sampled = torch.linspace(0, units - 1, MOST_UNITS).long()
            for name in ("code", "raw"):
                parts[name] = parts[name][:, self.sampled.to(code.device)]
        self.rows += rows
        chosen = self._drawn(rows, self._stride)
        for name, values in parts.items():
            self._parts.setdefault(name, []).append(values[chosen.to(values.device)].detach().cpu().clone())
        most = max(1000, min(MOST_ROWS, MOST_VALUES // min(units, MOST_UNITS)))
        while (count := sum(map(len, self._parts["code"]))) > most:
            self._stride *= 2
            chosen = self._drawn(count, 2)
            self._parts = {name: [torch.cat(values)[chosen]] for name, values in self._parts.items()}

    def _drawn(self, rows: int, stride: int) -> Tensor:
        """Return the numbers of one row in `stride`, drawn at random."""
        return torch.arange(rows) if stride == 1 else drawn_rows(rows, -(-rows // stride), self._generator)


def training_rows(rows: int) -> Finding:
    """Return the finding on rows that the model may have been trained on."""
    return Finding(
        "training_rows",
        Severity.NOTE,
        f"the {rows} rows come from a shuffled loader, which is how training rows are read",
        "a model can fit its training rows better than rows that it has not seen",
        "pass held-out rows, such as the loader of the validation data",
    )


def _masked_rows(values: Tensor, axis: int, mask: Tensor | None) -> Tensor:
    if mask is None:
        return unit_rows(values, axis)
    return values.movedim(axis, -1)[mask.to(values.device)]


def _reference(values: Any, sample: Tensor, samples: int, name: str) -> Any:
    """Return one reference value per row of activations."""
    if values is None:
        return None
    tensor = torch.as_tensor(values if isinstance(values, Tensor) or not isinstance(values, Iterable) else list(values))
    if tensor.dim() != 1 or len(tensor) != samples:
        raise HarnessError(f"{name}: expected one value per sample, got {list(tensor.shape)} for {samples} samples")
    return whole_numbers(tensor.detach().cpu())[sample]
