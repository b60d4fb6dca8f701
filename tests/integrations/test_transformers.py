"""The callback watches a real `transformers.Trainer`."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import nn

MISSING = find_spec("transformers") is None or find_spec("accelerate") is None
pytestmark = [
    pytest.mark.service,  # the import of the library takes many seconds
    pytest.mark.skipif(MISSING, reason="the extra `transformers` is not installed"),
]


class Model(nn.Module):
    """Unit 2 fires on padding alone."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 3), nn.Linear(3, 9)
        with torch.no_grad():
            self.embed.weight[1:] = self.embed.weight[1:].abs() + 1
            self.up.weight[:2], self.up.weight[2], self.up.bias[2] = 1.0, -100.0, 1.0

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.down(F.relu(self.up(self.embed(input_ids))))
        return {"loss": F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def rows():
    tokens = torch.randint(1, 9, (320, 5), generator=torch.Generator().manual_seed(0))
    tokens[:, 4] = 0
    mask = (tokens > 0).long()
    return [{"input_ids": ids, "attention_mask": real, "labels": ids} for ids, real in zip(tokens, mask, strict=True)]


def test_a_trainer_is_watched(tmp_path):
    import transformers

    from harness.integrations.transformers import WatchLayers

    torch.manual_seed(0)
    model, callback = Model(), WatchLayers("up", callback=lambda line: None)
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        num_train_epochs=3,
        per_device_train_batch_size=32,
        learning_rate=1e-4,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=rows(), callbacks=[callback])
    trainer.train()
    assert callback.monitor.step == 30
    diagnosis = callback.monitor.diagnosis()
    assert [unit.index for unit in diagnosis.units if unit.verdict == "dead"] == [2]
    assert "padding is left out" in diagnosis.findings[-1].evidence
    assert "forward" not in vars(model.down)
    callback.on_train_begin(None, None, None, model=model)
    callback.close()
    assert "forward" not in vars(model)
