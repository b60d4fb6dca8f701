"""Callback for `lightning.Trainer`; needs the extra `lightning`."""

from collections.abc import Sequence
from typing import Any

from lightning import Callback, LightningModule, Trainer

from harness.watching import Monitor, watch


class WatchLayers(Callback):  # type: ignore[misc]
    """Watches layers of a `LightningModule` while a `Trainer` fits it.

    A step is one training batch, up to its first backward pass, so `training_step` may call any part of the module.

        callback = WatchLayers("encoder.2")
        lightning.Trainer(callbacks=[callback]).fit(module, loader)
        callback.monitor.diagnosis()

    Args:
        layers: name or pattern, or several, in the `LightningModule`.
        every, options: as for `harness.watch`.
    """

    def __init__(self, layers: str | Sequence[str], every: int = 1, **options: Any) -> None:
        self.layers, self.every, self.options = layers, every, options
        self.monitor: Monitor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.monitor = watch(pl_module, self.layers, self.every, manual=True, **self.options)
        self.monitor.__enter__()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.monitor is not None:
            self.monitor.begin_step(batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Any) -> None:
        if self.monitor is not None:
            self.monitor.end_step()

    def on_train_batch_end(self, *arguments: Any, **keywords: Any) -> None:
        if self.monitor is not None:
            self.monitor.end_step()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.monitor is not None:
            self.monitor.__exit__(None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self.monitor is not None:
            self.monitor.__exit__(type(exception), exception)
