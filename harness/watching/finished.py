"""Diagnosis of a layer of a finished model."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from harness.capture import BottleneckTap, comparable, reconstruction_of, submodule
from harness.capture.outputs import output_named
from harness.diagnosis import THRESHOLDS, Diagnosis, Thresholds, diagnose
from harness.errors import HarnessError
from harness.watching.batches import batches_of, loader_generators, run_model
from harness.watching.layers import axis_finding, layer_names, never_called, unit_axis_of, unit_rows, whole_numbers
from harness.watching.preservation import preserved

MOST_ROWS = 20_000  # rows of activations that a diagnosis rests on; of more, an even share of every batch


def diagnose_model(
    model: nn.Module,
    rows: Any,
    layer: str,
    *,
    labels: Any = None,
    factors: Mapping[str, Any] | None = None,
    posterior: str | None = None,
    forward: Callable[[Any], Any] | None = None,
    unit_axis: int | None = None,
    target: float | None = None,
    reconstruction: str | None = None,
    thresholds: Thresholds = THRESHOLDS,
) -> Diagnosis:
    """Diagnose one layer of a finished model in one pass over rows.

    The pass runs in eval mode and without gradients. The model is not changed: its mode, its buffers and the random
    generators are restored bit for bit. The activation in use is judged, whether it is a module or a function.

    Args:
        model: any `nn.Module`.
        rows: held-out rows: a tensor, a tuple `(inputs, labels)`, a dict of tensors, a `Dataset`, or a loader of batches.
            A batch is a tensor, a tuple or list of which the model gets what its `forward` requires, or a dict for
            `model(**batch)`.
        layer: dotted name of the module.
        labels: `[sample]` integers; by default the whole numbers beside the inputs of each batch.
        factors: name -> `[sample]`; integers are classes, floats a continuous factor.
        posterior: output with the log-variances of a latent, such as `"out:2"`, if the layer is its mean.
        forward: function of a batch that calls the model, for models with another calling convention.
        unit_axis: axis of the units; by default 1 for convolutions and the last axis otherwise. Every position of a
            sample is a row.
        target: the penalty's target activation rho.
        reconstruction: output that reconstructs the inputs, such as `"out:1"`; by default the last one shaped like them.
        thresholds: the numbers that the verdicts rest on.

    Returns:
        A `Diagnosis`. A layer that is never called is `not_testable`, with the finding `never_called`.

    Raises:
        HarnessError: for a module that does not exist, rows that are not iterable, labels of another length.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))
    >>> _ = nn.init.constant_(model[0].bias, -100.0)
    >>> str(diagnose_model(model, torch.rand(400, 4), "0").verdict)
    'full_collapse'
    """
    if len(layer_names(model, layer)) != 1:
        raise HarnessError(f"layer: expected one layer, {layer!r} matches {', '.join(layer_names(model, layer))}")
    layer = layer_names(model, layer)[0]
    collector = ActivationCollector(model, layer, unit_axis, posterior, reconstruction)
    generators = [(generator, generator.get_state()) for generator in loader_generators(rows)]
    try:
        with preserved(model), torch.no_grad():
            model.eval()
            for batch in batches_of(rows):
                collector.add(batch, forward)
    finally:
        for generator, state in generators:
            generator.set_state(state)
    return collector.diagnosis(labels, factors, target, thresholds)


class ActivationCollector:
    """Collects the activations of one layer, batch after batch."""

    def __init__(
        self, model: nn.Module, layer: str, unit_axis: int | None, posterior: str | None, reconstruction: str | None
    ) -> None:
        self.model, self.layer, self.declared = model, layer, unit_axis
        self.posterior, self.reconstruction = posterior, reconstruction
        self.module = submodule(model, layer)
        self.activation, self.axis, self.shape = "none", 1, tuple[int, ...]()
        self.passes = self.samples = 0
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, batch: Any, forward: Callable[[Any], Any] | None) -> None:
        """Run the model on a batch and keep the activations."""
        with BottleneckTap(self.model, self.layer) as tap:
            call = run_model(self.model, batch, forward)
        self.passes += max(1, len(tap.passes))
        recorded = next((record for record in tap.passes if record.code is not None), None)
        if recorded is None or recorded.code is None:
            self.samples += 0 if call.inputs is None else len(call.inputs)
            return
        code = recorded.code
        self.activation, self.shape = recorded.activation, tuple(code.shape)
        self.axis = unit_axis_of(self.module, code, self.declared)
        count = len(code)
        self._keep("code", unit_rows(code, self.axis))
        raw = recorded.raw if recorded.raw is not None and recorded.raw.shape == code.shape else code
        self._keep("raw", unit_rows(raw, self.axis))
        positions = code.numel() // (count * code.shape[self.axis])
        self._keep("sample", torch.arange(self.samples, self.samples + count).repeat_interleave(positions))
        self.samples += count
        if call.labels is not None:
            self._keep("labels", call.labels)
        if self.posterior is not None:
            logvar = output_named(recorded.outputs, self.posterior)
            self._keep("posterior", unit_rows(logvar, self.axis if logvar.dim() == code.dim() else logvar.dim() - 1))
        if call.inputs is not None and len(call.inputs) == count:
            self._keep_reconstruction(call.inputs, recorded.outputs)

    def diagnosis(
        self, labels: Any, factors: Mapping[str, Any] | None, target: float | None, thresholds: Thresholds
    ) -> Diagnosis:
        """Judge the collected activations."""
        if "code" not in self._parts:
            return never_called(self.layer, self.passes)
        parts = {name: torch.cat(values) for name, values in self._parts.items()}
        code, sample = parts["code"], parts["sample"]
        index = _even_share(len(code))
        if labels is None and len(parts.get("labels", ())) == self.samples:
            labels = parts["labels"]
        options: dict[str, Any] = {}
        if len(code) > self.samples:  # several rows per sample
            options["blocks"] = sample[index]
        elif len(parts.get("inputs", ())) == len(code):
            options["inputs"] = parts["inputs"][index]
            if len(parts.get("reconstruction", ())) == len(code):
                options["reconstruction"] = parts["reconstruction"][index]
        if "posterior" in parts:
            options["posterior"] = parts["posterior"][index]
        diagnosis: Diagnosis = diagnose(
            code[index],
            activation=self.activation,
            labels=_reference(labels, sample, index, self.samples, "labels"),
            factors={
                name: _reference(values, sample, index, self.samples, f"factor {name!r}")
                for name, values in (factors or {}).items()
            }
            or None,
            normalised=parts["raw"][index],
            target=target,
            thresholds=thresholds,
            **options,
        )
        note = axis_finding(self.shape, self.axis, self.declared is not None)
        return diagnosis if note is None else replace(diagnosis, findings=(*diagnosis.findings, note))

    def _keep_reconstruction(self, inputs: Tensor, outputs: tuple[Any, ...]) -> None:
        if inputs.is_floating_point():
            self._keep("inputs", inputs.flatten(1))
        output = reconstruction_of(outputs, inputs, self.reconstruction)
        if output is not None and comparable(output, inputs):
            self._keep("reconstruction", output.flatten(1))

    def _keep(self, name: str, values: Tensor) -> None:
        self._parts.setdefault(name, []).append(values.detach().cpu().clone())


def _even_share(rows: int) -> Tensor:
    if rows <= MOST_ROWS:
        return torch.arange(rows)
    return torch.linspace(0, rows - 1, MOST_ROWS).long()


def _reference(values: Any, sample: Tensor, index: Tensor, samples: int, name: str) -> Any:
    """Return one reference value per row of activations."""
    if values is None:
        return None
    tensor = torch.as_tensor(values if isinstance(values, Tensor) or not isinstance(values, Iterable) else list(values))
    if tensor.dim() != 1 or len(tensor) != samples:
        raise HarnessError(f"{name}: expected one value per sample, got {list(tensor.shape)} for {samples} samples")
    return whole_numbers(tensor.detach().cpu())[sample[index]]
