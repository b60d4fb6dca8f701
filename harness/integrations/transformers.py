"""Callback for `transformers.Trainer`; needs the extra `transformers`."""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from harness.watching import Monitor, watch


class WatchLayers(TrainerCallback):  # type: ignore[misc]
    """Watches layers of a model while a `transformers.Trainer` trains it.

    A step is one call of the model in training mode; `attention_mask` among its inputs leaves padding out.

        callback = WatchLayers("encoder.layer.*.intermediate.dense")
        transformers.Trainer(model, ..., callbacks=[callback]).train()
        callback.monitor.diagnosis()

    Args:
        layers: name or pattern, or several, in the model.
        every, options: as for `harness.watch`.
    """

    def __init__(self, layers: str | Sequence[str], every: int = 1, **options: Any) -> None:
        self.layers, self.every, self.options = layers, every, options
        self.monitor: Monitor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **keywords: Any) -> None:
        self.close()  # of a training that an exception ended
        self.monitor = watch(model, self.layers, self.every, **self.options)
        self.monitor.__enter__()

    def on_train_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
        if self.monitor is not None:
            self.monitor.__exit__(None)

    def close(self) -> None:
        """Stop watching; a training that raises does not do so itself."""
        if self.monitor is not None:
            self.monitor.__exit__(RuntimeError)
