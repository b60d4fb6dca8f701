"""A loss with a penalty on a gradient, such as a contractive one, is evaluated and trained as a plain loop does it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.training import check_vmap_support
from harness.training.sequential import SequentialEngine


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc, self.dec = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, batch):
        code = self.enc(batch)
        return self.dec(code), code


def losses(model, batch):
    inputs = batch.clone().requires_grad_()
    output, code = model(inputs)
    (slope,) = torch.autograd.grad(code.sum(), inputs, create_graph=True)
    return {"reconstruction": F.mse_loss(output, batch), "contractive": slope.pow(2).sum(1).mean()}


def rows():
    return torch.randn(40, 6, generator=torch.Generator().manual_seed(0))


def test_a_contractive_penalty_has_its_closed_form_before_and_after_a_step():
    case = Case(Linear, rows, losses, "enc", name="contractive")
    assert check_vmap_support(case, rows()).rule is None  # its members train one by one
    members = SequentialEngine([case] * 2, [0, 1], rows())
    batch = torch.stack([rows(), rows()])
    for _ in range(2):
        values = members.losses(batch, {})["contractive"]
        for index in range(2):
            weight = members.state_of(index)["enc.weight"]
            assert float(values[index]) == pytest.approx(float((weight.sum(0) ** 2).sum()), rel=1e-5)
        members.step(batch, {})


def test_an_error_of_the_loss_that_is_no_missing_graph_comes_through():
    def broken(model, batch):
        return {"reconstruction": (model(batch)[0] - batch[:, :2]).pow(2).mean()}

    case = Case(Linear, rows, broken, "enc", name="broken")
    with pytest.raises(RuntimeError, match="size"):
        SequentialEngine([case], [0], rows()).losses(rows()[None], {})
