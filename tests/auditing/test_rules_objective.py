"""Main terms by another name: their own least value, and rules that expect a reconstruction."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from harness import Case
from harness.auditing import audit

pytestmark = pytest.mark.many


def rows():
    draw = torch.Generator().manual_seed(8)
    return torch.randn(512, 5, generator=draw) @ torch.randn(5, 14, generator=draw)


class Siamese(nn.Module):
    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.body, self.embed, self.predict = nn.Linear(14, 24), nn.Linear(24, 6), nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6, affine=False) if norm else nn.Identity()

    def forward(self, batch):
        code = self.norm(self.embed(F.gelu(self.body(batch))))
        return code, self.predict(code)


def views(model, batch):
    return [model(batch + 0.3 * torch.randn_like(batch)) for _ in range(2)]


def aligned(model, batch):
    (_, guess), (second, _) = views(model, batch)
    return {"alignment": (F.normalize(guess, dim=1) - F.normalize(second, dim=1)).pow(2).sum(1).mean()}


def aligned_with_stop_gradient(model, batch):
    (_, guess), (second, _) = views(model, batch)
    return {"alignment": (F.normalize(guess, dim=1) - F.normalize(second.detach(), dim=1)).pow(2).sum(1).mean()}


def info_nce(model, batch):
    first, second = (F.normalize(code, dim=1) for code, _ in views(model, batch))
    return {"alignment": F.cross_entropy(first @ second.T / 0.2, torch.arange(len(batch)))}


def invariance_with_guard(model, batch):
    (first, _), (second, _) = views(model, batch)
    guard = sum(F.relu(1 - (code.var(0) + 1e-4).sqrt()).mean() for code in (first, second))
    return {"alignment": F.mse_loss(first, second), "variance": guard}


def barlow(model, batch):
    first, second = ((code - code.mean(0)) / (code.std(0) + 1e-5) for code, _ in views(model, batch))
    return {"alignment": (first.T @ second / len(batch) - torch.eye(6)).pow(2).sum()}


def supervised(model, batch):
    _, guess = model(batch)
    return {"alignment": F.mse_loss(guess[:, :1], batch[:, :1])}


def named_as_penalty(model, batch):
    return {"reconstruction": 0 * model(batch)[0].sum(), **aligned(model, batch)}


def case_of(losses, **options):
    objective = "reconstruction" if losses is named_as_penalty else "alignment"
    return Case(model=Siamese, data=rows, losses=losses, bottleneck="embed", objective=objective, **options)


def collapse(case):
    result = audit(case, during_training=False, seeds=1)
    return [(each.term, str(each.severity)) for each in result.findings if each.rule == "collapse_optimum"]


@pytest.mark.parametrize("losses", [aligned, named_as_penalty])
def test_alignment_without_a_stop_gradient_is_least_at_a_constant_code(losses):
    case = case_of(losses)
    assert collapse(case) == [("alignment", "risk")]
    # the closed form: two normalized vectors that are equal are at distance 0, for any constant code
    model = Siamese()
    for layer in (model.body, model.embed):
        nn.init.zeros_(layer.weight)
    nn.init.eye_(model.predict.weight)
    nn.init.zeros_(model.predict.bias)
    assert losses(model, rows()[:32])["alignment"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.long
def test_a_penalty_beside_a_constant_main_term_is_judged_with_and_without_training_probes():
    for training in (False, True):
        result = audit(case_of(named_as_penalty), during_training=training, seeds=1)
        findings = [finding for finding in result.findings if finding.rule == "collapse_optimum"]
        assert [(finding.term, str(finding.severity)) for finding in findings] == [("alignment", "risk")]


def test_a_stop_gradient_makes_it_a_note():
    assert collapse(case_of(aligned_with_stop_gradient)) == [("alignment", "note")]


def test_a_normalization_before_the_code_makes_it_a_note():
    assert {severity for _, severity in collapse(replace(case_of(aligned), model=lambda: Siamese(norm=True)))} <= {
        "note"
    }


@pytest.mark.parametrize("losses", [info_nce, invariance_with_guard, barlow, supervised])
def test_an_objective_with_a_guard_or_a_target_is_no_collapse(losses):
    assert ("alignment", "risk") not in collapse(case_of(losses))


@pytest.mark.parametrize("losses", [info_nce, barlow, supervised, aligned_with_stop_gradient])
def test_an_objective_by_another_name_has_no_fault(losses):
    result = audit(case_of(losses), seeds=1)
    assert result.faults == (), str(result)
    assert not any("reconstruction" in each.rule + (each.term or "") for each in result.findings)


def test_a_weight_is_judged_beside_the_declared_objective():
    def losses(model, batch):
        return {**info_nce(model, batch), "size": 1e4 * model(batch)[0].pow(2).mean()}

    (finding,) = [
        each for each in audit(case_of(losses), during_training=False, seeds=1).findings if each.rule == "dominates"
    ]
    assert (finding.term, finding.severity) == ("size", "risk") or finding.severity == "fault"
    assert "that of alignment" in finding.evidence


class Mixture(nn.Module):
    """Softmax gates over three experts that read the rows."""

    def __init__(self, skip: bool = False) -> None:
        super().__init__()
        self.router, self.skip = nn.Linear(14, 3), skip
        self.experts = nn.ModuleList(nn.Linear(14, 14) for _ in range(3))

    def forward(self, batch):
        gates = self.router(batch).softmax(1)
        mixed = sum(gates[:, k : k + 1] * expert(batch) for k, expert in enumerate(self.experts))
        return gates, mixed + batch if self.skip else mixed


class Skipping(Siamese):
    def forward(self, batch):
        code = torch.relu(self.embed(F.gelu(self.body(batch))))
        return code, F.pad(self.predict(code), (0, 8)) + 0.1 * batch


def reconstruction(model, batch):
    return {"reconstruction": F.mse_loss(model(batch)[1], batch)}


@pytest.mark.parametrize("skip", [False, True])
def test_a_router_is_a_note_and_a_skip_connection_a_fault(skip):
    options = {"data": rows, "losses": reconstruction, "reconstruction": "out:1"}
    for model, name, severity in ((lambda: Mixture(skip), "router", "note"), (Skipping, "embed", "fault")):
        result = audit(Case(model=model, bottleneck=name, **options), during_training=False, seeds=1)
        assert [str(each.severity) for each in result.findings if each.rule == "bypass"] == [severity], str(result)


def test_a_bypass_beside_another_objective_is_a_note():
    def losses(model, batch):
        return {"alignment": F.mse_loss(model(batch)[1][:, :2], batch[:, 2:4])}

    case = Case(
        model=Skipping, data=rows, losses=losses, bottleneck="embed", objective="alignment", reconstruction="out:1"
    )
    result = audit(case, during_training=False, seeds=1)
    assert [str(each.severity) for each in result.findings if each.rule == "bypass"] == ["note"]


class Denoiser(nn.Module):
    """A diffusion autoencoder: the code conditions a network that predicts the noise of the noisy rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(14, 32), nn.SiLU(), nn.Linear(32, 5))
        self.net = nn.Sequential(nn.Linear(14 + 5 + 1, 64), nn.SiLU(), nn.Linear(64, 14))

    def forward(self, batch):
        return self.embed(batch)


def denoising(model, batch, used=1.0):
    level, noise = torch.rand(len(batch), 1, dtype=batch.dtype), torch.randn_like(batch)
    noisy = (1 - level).sqrt() * batch + level.sqrt() * noise
    guess = model.net(torch.cat([noisy, used * model(batch), level], 1))
    return {"alignment": F.mse_loss(guess, noise)}


def denoising_loss(used):
    """Train in plain torch on new noise at every step; return the loss on new noise."""
    torch.manual_seed(0)
    model, batch = Denoiser(), rows() / 2
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        denoising(model, batch, used)["alignment"].backward()
        optimizer.step()
    with torch.no_grad():
        return sum(denoising(model, batch, used)["alignment"].item() for _ in range(20)) / 20


def test_noise_that_a_decoder_could_learn_by_heart_is_no_collapse():
    assert denoising_loss(used=1.0) < 0.7 * denoising_loss(used=0.0)
    case = Case(Denoiser, lambda: rows() / 2, denoising, "embed.2", objective="alignment")
    assert collapse(case) == []
