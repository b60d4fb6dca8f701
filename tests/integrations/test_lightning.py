"""The callback watches a real `lightning.Trainer`."""

import warnings
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = [
    pytest.mark.service,  # the import of the library takes many seconds
    pytest.mark.skipif(find_spec("lightning") is None, reason="the extra `lightning` is not installed"),
]


def module_of(fails=False):
    import lightning

    class Module(lightning.LightningModule):
        """Never calls itself as a whole; unit 1 is dead."""

        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(4, 6)
            with torch.no_grad():
                self.encoder.bias[1] = -1000.0

        def training_step(self, batch, index):
            (rows,) = batch
            if fails and index == 2:
                raise ZeroDivisionError("inside")
            return F.mse_loss(self.decoder(F.relu(self.encoder(rows))), rows)

        def validation_step(self, batch, index):
            self.decoder(F.relu(self.encoder(batch[0])))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    return Module()


def loader():
    rows = torch.randn(640, 6, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(rows), 64)


def fit(module, callbacks, folder):
    import lightning

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=3, accelerator="cpu", callbacks=callbacks, default_root_dir=folder, **quiet
        )
        trainer.fit(module, loader(), loader())
    return [value.clone() for value in module.state_dict().values()]


def test_a_trainer_is_watched_and_trains_the_same(tmp_path):
    from harness.integrations.lightning import WatchLayers

    torch.manual_seed(0)
    plain = fit(module_of(), [], tmp_path)
    torch.manual_seed(0)
    module, callback = module_of(), WatchLayers("encoder", callback=lambda line: None)
    watched = fit(module, [callback], tmp_path)
    assert all(torch.equal(first, second) for first, second in zip(plain, watched, strict=True))
    assert callback.monitor.step == 30
    diagnosis = callback.monitor.diagnosis()
    assert [unit.index for unit in diagnosis.units if unit.verdict == "dead"] == [1]
    assert diagnosis.activation == "relu"
    assert "forward" not in vars(module.encoder)
    assert "forward" not in vars(module.decoder)


def test_an_exception_comes_through_and_nothing_is_left_behind(tmp_path):
    from harness.integrations.lightning import WatchLayers

    module, callback = module_of(fails=True), WatchLayers("encoder")
    with pytest.raises(ZeroDivisionError, match="inside"):
        fit(module, [callback], tmp_path)
    assert "forward" not in vars(module.decoder)
    assert torch.overrides._get_current_function_mode_stack() == []
