"""What remedies say of a model that is given tokens."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.data import split_of
from harness.remedies import RemedyNotApplicable, apply_remedies, matched_beta
from harness.remedies.layout import inspect_model


class Words(nn.Module):
    """Its code is shaped like its batch."""

    def __init__(self):
        super().__init__()
        self.table, self.code, self.back = nn.Embedding(12, 3), nn.Linear(12, 4), nn.Linear(4, 48)

    def forward(self, words):
        code = torch.relu(self.code(self.table(words).flatten(1)))
        return code, self.back(code).unflatten(1, (4, 12))


def losses(model, batch, beta):
    code, logits = model(batch)
    return {"reconstruction": F.cross_entropy(logits.flatten(0, 1), batch.flatten()), "l1": beta * code.abs().mean()}


def tokens():
    return torch.randint(0, 12, (60, 4), generator=torch.Generator().manual_seed(1))


CASE = Case(Words, tokens, losses, "code", numbers={"beta": 0.01})


def test_no_output_is_compared_with_tokens_and_the_sentence_says_so():
    assert "tokens" in inspect_model(CASE, tokens()[:4]).no_r2
    with pytest.raises(RemedyNotApplicable, match=r"output_activation: .*\(tokens\)"):
        apply_remedies(CASE, {"output_activation": "sigmoid"})


def test_tokens_have_no_mean_to_be_taken_away():
    with pytest.raises(RemedyNotApplicable, match=r"inputs: .*tokens.* have no mean"):
        apply_remedies(CASE, {"inputs": "centred"})


def test_beta_is_matched_to_the_gradients_at_the_bottleneck():
    found, batch, ratios = matched_beta(CASE, {"beta": "matched"}, split_of(CASE)), split_of(CASE).train.inputs, []
    for seed in range(5):
        torch.manual_seed(seed)
        model = Words()
        entered = model.code(model.table(batch).flatten(1)).detach().requires_grad_()
        code = torch.relu(entered)
        logits = model.back(code).view(-1, 12)
        norms = [
            torch.autograd.grad(term, entered, retain_graph=True)[0].norm()
            for term in (F.cross_entropy(logits, batch.flatten()), code.abs().mean())
        ]
        ratios.append(float(norms[0] / norms[1]))
    assert found == pytest.approx(sum(ratios) / 5, rel=1e-5)
