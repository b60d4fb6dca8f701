"""A model whose rows depend on their batch is observed in batches of the training size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import Case
from harness.data import split_of
from harness.training import check_vmap_support, train
from harness.training.sequential import SequentialEngine

BATCH = 50


def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1000, 4, generator=generator) @ torch.randn(4, 10, generator=generator)


class Sparse(nn.Module):
    """The five largest values of each unit in the batch (`over` 0), or of each row in its units (`over` 1)."""

    def __init__(self, over, between):
        super().__init__()
        self.over, self.enc, self.dec, self.between = over, nn.Linear(10, 8), nn.Linear(8, 10), between()

    def forward(self, rows):
        code = torch.relu(self.enc(rows))
        largest = code.topk(min(5, code.shape[self.over]), dim=self.over)
        return self.dec(self.between(torch.zeros_like(code).scatter(self.over, largest.indices, largest.values)))


class Alone(nn.Module):
    """Reads a number in Python, so the model trains alone."""

    def forward(self, values):
        return values * (1.0 if float(values.detach().sum()) < 1e9 else 0.0)


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("between", [nn.Identity, Alone])
def test_a_row_is_observed_in_a_batch_of_the_training_size(over, between):
    case = Case(
        lambda: Sparse(over, between),
        data,
        lambda model, rows: {"reconstruction": F.mse_loss(model(rows), rows)},
        "enc",
        train={"epochs": 3, "batch_size": BATCH},
    )
    split = split_of(case)
    support = check_vmap_support(case, split.train.inputs)
    assert (support.rule is None) == (between is Alone)
    *_, last = train([case] * 2, [0, 1], split, support)
    assert isinstance(last.engine, SequentialEngine) == (between is Alone)
    rows = split.evaluation.inputs
    view = last.engine.observe(rows)
    for member in range(2):
        model = Sparse(over, between)
        model.load_state_dict(last.engine.state_of(member))
        with torch.no_grad():
            expected = torch.cat([model(batch) for batch in rows.split(BATCH)])
            at_once = model(rows)
        torch.testing.assert_close(view.reconstruction[member], expected, rtol=1e-4, atol=1e-5)
        assert torch.allclose(at_once, expected, rtol=1e-4, atol=1e-5) == bool(over)
