"""Kinds of models that public reports are about: averages in parameters, noise without a posterior, schedules, clipping."""

import pytest
import torch
import torch.nn.functional as F
from healthy_models import Autoencoder, Vae, case, elbo, squared_error
from torch import nn

from harness import Case
from harness.auditing import audit
from harness.auditing.gradient_ratios import ProbeLoop
from harness.case import build_optimizer
from harness.errors import HarnessError
from harness.models import build_model

pytestmark = pytest.mark.many


class Averaged(Autoencoder):
    """A codebook in a parameter, which a moving average moves in the forward pass."""

    def __init__(self, trainable=True):
        super().__init__()
        self.book = nn.Parameter(torch.randn(16, 4), requires_grad=trainable)

    def forward(self, x):
        code = self.encode(x)
        nearest = torch.cdist(code.detach(), self.book.detach()).argmin(1)
        entries = self.book[nearest].detach()
        if self.training:
            with torch.no_grad():
                for entry in nearest.unique():
                    self.book[entry] = 0.9 * self.book[entry] + 0.1 * code[nearest == entry].mean(0)
        return code, self.decode(code + (entries - code).detach()), entries


def commitment(model, x):
    code, made, entries = model(x)
    return {"reconstruction": F.mse_loss(made, x), "commitment": 0.25 * F.mse_loss(code, entries)}


class WrittenTo(Autoencoder):
    """The forward pass writes to a weight that is trained as well."""

    def forward(self, x):
        with torch.no_grad():
            self.out.weight.mul_(0.99)
        return super().forward(x)


@pytest.mark.parametrize("trainable", [True, False])
def test_a_codebook_that_follows_an_average_is_no_fault_in_a_parameter_either(trainable):
    result = audit(case(lambda: Averaged(trainable), commitment), seeds=1)
    assert not result.faults, str(result)


def test_a_forward_pass_that_writes_to_a_trained_weight_is_a_fault():
    assert "edits_in_place" in audit(case(WrittenTo), seeds=1, during_training=False).rules


def test_a_probe_restores_the_averages_between_evaluations():
    from harness.auditing.probe import make_probe
    from harness.data import split_of

    averaged = case(Averaged, commitment)
    rows = split_of(averaged).train.inputs
    with make_probe(averaged, build_model(averaged, 0, rows[:4]), rows[:32]) as probe:
        assert probe.averaged == ("book",)
        values = {probe.evaluate().value("commitment") for _ in range(3)}
    assert len(values) == 1


def noisy(**more):
    return Case(model=Vae, data=lambda: case(Vae).data(), losses=elbo, bottleneck="enc", reconstruction="out:0", **more)


def test_noise_behind_the_code_asks_for_a_posterior():
    assert "undeclared_posterior" in audit(noisy(), seeds=1, during_training=False).rules
    declared = audit(noisy(posterior="out:2"), seeds=1, during_training=False)
    assert "undeclared_posterior" not in declared.rules


def test_noise_on_the_inputs_asks_for_nothing():
    def denoising(model, x):
        return {"reconstruction": F.mse_loss(model(x + 0.1 * torch.randn_like(x))[1], x)}

    assert "undeclared_posterior" not in audit(case(Autoencoder, denoising), seeds=1, during_training=False).rules


def test_a_case_that_trains_itself_is_told_what_an_audit_needs():
    own = Case(model=Autoencoder, data=case(Autoencoder).data, fit=lambda model, seed: None, bottleneck="enc")
    with pytest.raises(HarnessError, match=r"expected a case with losses=\.\.\., got one that trains by fit"):
        audit(own)


def trained_weights(**more):
    """Weights after 20 probe steps, and those of a plain loop on the same batches."""
    scheduled = case(Autoencoder, **more)
    rows = scheduled.data()
    model = build_model(scheduled, 0, rows[:4])
    plain = build_model(scheduled, 0, rows[:4])
    loop = ProbeLoop(scheduled, model, rows, 0, {})
    twin = ProbeLoop(scheduled, plain, rows, 0, {})
    for _ in loop.reach((20,)):
        pass
    optimizer = build_optimizer(scheduled, plain) or torch.optim.Adam(
        plain.parameters(), scheduled.training()["learning_rate"]
    )
    scheduler = None if scheduled.scheduler is None else scheduled.scheduler(optimizer, twin.steps)
    plain.train()
    for _ in range(20):
        optimizer.zero_grad()
        squared_error(plain, twin.batch())["reconstruction"].backward()
        if scheduled.clip is not None:
            nn.utils.clip_grad_norm_(plain.parameters(), scheduled.clip)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return model.enc.weight, plain.enc.weight


def test_probes_train_at_the_rate_of_the_case_as_members_do():
    """The optimizer says 0.1, and `train` says 0.3: a step of plain gradient descent is three times as long."""
    own = case(Autoencoder, optimizer=lambda values: torch.optim.SGD(values, 0.1), train={"learning_rate": 0.3})
    rows = own.data()
    model, plain = build_model(own, 0, rows[:4]), build_model(own, 0, rows[:4])
    loop, twin = (ProbeLoop(own, each, rows, 0, {}) for each in (model, plain))
    for _ in loop.reach((1,)):
        pass
    plain.train()
    squared_error(plain, twin.batch())["reconstruction"].backward()
    assert torch.allclose(model.enc.weight, plain.enc.weight - 0.3 * plain.enc.weight.grad, atol=1e-7)


def halved(optimizer, steps):
    return torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)


@pytest.mark.parametrize("more", [{}, {"scheduler": halved}, {"clip": 1e-3}])
def test_training_probes_follow_the_cases_scheduler_and_clipping(more):
    probed, plain = trained_weights(**more)
    assert torch.allclose(probed, plain, atol=1e-7)


class ZeroRouter(Autoencoder):
    """A router that starts at zero, so that its units are equal until the experts pull them apart."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(12, 12) for _ in range(4))
        nn.init.zeros_(self.enc.weight)
        nn.init.zeros_(self.enc.bias)

    def forward(self, x):
        scores = self.enc(F.relu(self.body(x))).softmax(1)
        return scores, (scores.unsqueeze(2) * torch.stack([expert(x) for expert in self.experts], 1)).sum(1)


class Copies(Autoencoder):
    def __init__(self):
        super().__init__()
        for layer in (self.body, self.enc, self.dec):
            nn.init.constant_(layer.weight, 0.1)
            nn.init.zeros_(layer.bias)


def test_units_that_start_equal_and_are_trained_apart_are_no_fault():
    assert "symmetric_init" not in audit(case(ZeroRouter), seeds=1, during_training=False).rules
    assert "symmetric_init" in audit(case(Copies), seeds=1, during_training=False).rules


class Selected(Autoencoder):
    """The largest values of each row, kept where a comparison says so."""

    def encode(self, x):
        code = super().encode(x)
        bound = code.kthvalue(2, dim=1, keepdim=True).values
        return torch.where(code >= bound, code, torch.zeros_like(code))


class MaskFirst(Autoencoder):
    """The mask stands before the values that it multiplies."""

    def encode(self, x):
        code = super().encode(x)
        return (code > code.mean(1, keepdim=True)).to(code.dtype) * code


@pytest.mark.parametrize("model", [Selected, MaskFirst])
def test_a_mask_is_no_source_of_the_values_that_it_chooses(model):
    result = audit(case(model), seeds=1)
    assert not result.faults, str(result)
    assert not result.undecided, str(result)


class Saturated(Autoencoder):
    def encode(self, x):
        return torch.sigmoid(50 + self.enc(F.relu(self.body(x))))


class Detached(Autoencoder):
    def forward(self, x):
        code = self.encode(x)
        return code, self.decode(code.detach())


def test_a_saturated_code_is_constant_and_not_cut_off():
    assert {finding.rule for finding in audit(case(Saturated), seeds=1).faults} == {"constant_at_birth"}
    assert {finding.rule for finding in audit(case(Detached), seeds=1).faults} == {"cut_encoder"}


class Squashed(Autoencoder):
    def decode(self, code):
        return torch.sigmoid(super().decode(code))


def shares(n=256):
    """Rows between 0 and 1, few of them near either end."""
    generator = torch.Generator().manual_seed(0)
    return torch.sigmoid(torch.randn(n, 2, generator=generator) @ torch.randn(2, 12, generator=generator))


@pytest.mark.parametrize(
    ("loss", "rules"),
    [
        (F.binary_cross_entropy_with_logits, {"output_range"}),
        (F.binary_cross_entropy, set()),
        (F.mse_loss, set()),
        (F.l1_loss, set()),
        (lambda made, x: F.mse_loss(made, (x > 0.5).to(x.dtype)), set()),
    ],
)
def test_a_loss_that_takes_logits_is_told_by_rows_of_shares_too(loss, rules):
    def losses(model, x):
        return {"reconstruction": loss(model(x)[1], x)}

    result = audit(case(Squashed, losses, data=shares), seeds=1, during_training=False)
    assert {finding.rule for finding in result.faults} == rules, str(result)
