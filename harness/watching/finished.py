"""Diagnosis of a layer of a finished model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from harness.diagnosis import THRESHOLDS, Diagnosis, Thresholds
from harness.errors import HarnessError
from harness.watching.activation_collector import ActivationCollector
from harness.watching.layer_names import layer_names
from harness.watching.model_calls import batches_of, is_shuffled, loader_generators
from harness.watching.preservation import preserved
from harness.watching.wrappers import core_of


def diagnose_model(
    model: nn.Module,
    rows: Any,
    layer: str,
    *,
    labels: Any = None,
    factors: Mapping[str, Any] | None = None,
    posterior: str | None = None,
    forward: Callable[[Any], Any] | None = None,
    mask: Callable[[Any], Any] | None = None,
    unit_axis: int | None = None,
    target: float | None = None,
    reconstruction: str | None = None,
    thresholds: Thresholds = THRESHOLDS,
) -> Diagnosis:
    """Diagnose one layer of a finished model in one pass over rows.

    The pass runs in eval mode and without gradients. The model is not changed: its mode, its buffers and the random
    generators are restored bit for bit. The activation in use is judged, whether it is a module or a function. Each token of a
    packed sequence is a row, with the label of its sequence.

    Args:
        model: any `nn.Module`.
        rows: held-out rows: a tensor, an array, a tuple `(inputs, labels)`, a dict of tensors, a `Dataset`, or a loader of batches.
            A batch is a tensor, a tuple or list of which the model gets what its `forward` requires, or a dict for
            `model(**batch)`, of which it gets what its `forward` names, or the dict itself where it names none.
        layer: dotted name of the module.
        labels: `[sample]` integers; by default the whole numbers beside the inputs of each batch.
        factors: name -> `[sample]`; integers are classes, floats a continuous factor.
        posterior: output with the log-variances of a latent, such as `"out:2"`, if the layer is its mean.
        forward: function of a batch that calls the model or parts of it, for models with another calling convention.
        mask: function of a batch that returns `[sample, position]`, True where a token is no padding; by default
            `attention_mask` and `key_padding_mask` among the model's arguments are honored.
        unit_axis: axis of the units; by default 1 for convolutions and images, the last axis otherwise. Every position of a
            sample is a row.
        target: the penalty's target activation rho.
        reconstruction: output that reconstructs the inputs, such as `"out:1"`; by default the last one shaped like them.
        thresholds: the numbers that the verdicts rest on.

    Returns:
        A `Diagnosis`. A layer that is never called is `not_testable`, with the finding `never_called`. Rows of a shuffled
        loader, which may be training rows, are the finding `training_rows`.

    Raises:
        HarnessError: for a module that does not exist, rows that are not iterable, labels of another length.

    >>> model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 4))
    >>> _ = nn.init.constant_(model[0].bias, -100.0)
    >>> str(diagnose_model(model, torch.rand(400, 4), "0").verdict)
    'full_collapse'
    """
    if len(layer_names(model, layer)) != 1:
        raise HarnessError(f"layer: expected one layer, {layer!r} matches {', '.join(layer_names(model, layer))}")
    layer, core = layer_names(model, layer)[0], core_of(model)
    collector = ActivationCollector(core, layer, unit_axis, posterior, reconstruction)
    generators = [(generator, generator.get_state()) for generator in loader_generators(rows)]
    try:
        with preserved(core), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            core.eval()
            for batch in batches_of(rows):
                collector.add(batch, forward, mask)
                if collector.passes and not collector.looked_for_noise and posterior is None:
                    collector.look_for_noise(batch, forward)
    finally:
        for generator, state in generators:
            generator.set_state(state)
    return collector.diagnosis(labels, factors, target, thresholds, is_shuffled(rows))
