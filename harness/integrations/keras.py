"""Callback for `keras.Model.fit` on the torch backend (`KERAS_BACKEND=torch`); needs the library `keras`, from version 3 on."""

from collections.abc import Sequence
from typing import Any

import keras
from torch import nn

from harness.errors import HarnessError
from harness.watching import Monitor, watch


class LayerModule(nn.Module):
    """Module of the layers of a Keras model, which the model itself does not tell torch.

    It goes where a model does: `harness.diagnose_model(LayerModule(model), rows, "encoder")`. A layer inside another one
    is `outer/inner`.

    Args:
        model: a Keras model on the torch backend, built or fitted.

    Raises:
        HarnessError: for another backend.
    """

    model: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        if keras.backend.backend() != "torch":
            raise HarnessError(
                f"keras: expected the torch backend, got {keras.backend.backend()}; set KERAS_BACKEND=torch before the import"
            )
        vars(self)["model"] = model  # no child: its layers would have two names
        _add_layers(self, model)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Call the model, in training mode if this module is."""
        return self.model(*inputs, training=self.training, **keywords)


class WatchLayers(keras.callbacks.Callback):  # type: ignore[misc]
    """Watches layers of a Keras model while `fit` trains it.

    A step is one training batch; validation batches are none.

        callback = WatchLayers("encoder")
        model.fit(rows, rows, callbacks=[callback])
        callback.monitor.diagnosis()

    Args:
        layers: names of layers or patterns.
        every, options: as for `harness.watch`.
    """

    def __init__(self, layers: str | Sequence[str], every: int = 1, **options: Any) -> None:
        super().__init__()
        self.layers, self.every, self.options = layers, every, options
        self.monitor: Monitor | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        self.close()  # of a training that an exception ended
        steps = self.params.get("steps")
        options = {**({"steps_per_epoch": steps} if steps else {}), **self.options}
        self.monitor = watch(LayerModule(self.model), self.layers, self.every, manual=True, **options)
        self.monitor.__enter__()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.monitor is not None:
            self.monitor.begin_step()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.monitor is not None:
            self.monitor.end_step()

    def on_train_end(self, logs: Any = None) -> None:
        if self.monitor is not None:
            self.monitor.__exit__(None)

    def close(self) -> None:
        """Stop watching; a training that raises does not do so itself."""
        if self.monitor is not None:
            self.monitor.__exit__(RuntimeError)


def _add_layers(module: nn.Module, parent: Any, prefix: str = "") -> None:
    for layer in getattr(parent, "layers", None) or getattr(parent, "_layers", []):
        name = prefix + layer.name.replace(".", "_")
        module.add_module(name, layer)
        _add_layers(module, layer, f"{name}/")
