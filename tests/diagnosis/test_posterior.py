"""Units of a variational code: a posterior that equals its prior carries nothing, whatever the mean does."""

import json
import math

import pytest
import torch
from planted_codes import ROWS, generator, normal
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from harness import Diagnosis, diagnose


def latent(spread: list[float], rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Means N(0, s^2) and log-variances log(1 - s^2), so that a sample of every unit is N(0, 1)."""
    size = torch.tensor(spread)
    return normal(rows, len(spread), seed) * size, torch.log1p(-size.square()).expand(rows, len(spread))


def informed_on(count: int, rows: int) -> tuple[Tensor, Tensor]:
    """A unit whose mean is 1 (0.5 nats) on some rows and nearly 0 on the others, beside a healthy one."""
    means, logs = latent([0.003, 0.9], rows)
    means[:count, 0] = 1.0
    return means, logs


def test_the_divergence_is_that_of_torch_distributions() -> None:
    means, logs = normal(units=3), 0.5 * normal(units=3, seed=1)
    exact = kl_divergence(Normal(means.double(), (logs.double() / 2).exp()), Normal(0.0, 1.0)).mean(0)
    diagnosis = diagnose(means, posterior=logs)
    assert [unit.kl for unit in diagnosis.units] == pytest.approx(exact.tolist(), rel=1e-9)
    assert list(diagnosis.to_frame()["kl"]) == pytest.approx(exact.tolist(), rel=1e-9)
    assert "nats" in str(diagnosis)
    assert "KL" in diagnosis._repr_html_()


def test_a_collapsed_posterior_is_a_full_collapse_though_the_means_vary() -> None:
    means, logs = latent([0.003] * 6)
    diagnosis = diagnose(means, posterior=logs)
    assert (diagnosis.verdict, diagnosis.live_units) == ("full_collapse", 0)
    assert {unit.verdict for unit in diagnosis.units} == {"at_prior"}
    (finding,) = [finding for finding in diagnosis.findings if finding.rule == "at_prior"]
    assert finding.units == tuple(range(6))
    assert diagnose(means).verdict == "healthy"


def test_an_informative_posterior_is_healthy_and_some_units_at_the_prior_are_a_partial_collapse() -> None:
    means, logs = latent([0.9, 0.8, 0.95, 0.9])
    assert diagnose(means, posterior=logs).verdict == "healthy"
    means, logs = latent([0.9, 0.003, 0.95, 0.01])
    diagnosis = diagnose(means, posterior=logs)
    assert diagnosis.verdict == "partial_collapse"
    assert [unit.verdict for unit in diagnosis.units] == ["alive", "at_prior", "alive", "at_prior"]


def test_a_unit_whose_variance_alone_differs_from_the_prior_is_not_at_it() -> None:
    means, _ = latent([0.003, 0.9])
    assert diagnose(means, posterior=torch.full((ROWS, 2), -1.0)).units[0].verdict == "alive"


@pytest.mark.parametrize(
    ("count", "verdict"), [(0, "at_prior"), (4, "at_prior"), (5, "rare"), (9, "rare"), (11, "alive")]
)
def test_a_unit_that_is_informed_on_few_rows_is_rare(count: int, verdict: str) -> None:
    means, logs = informed_on(count, 1000)
    unit = diagnose(means, posterior=logs).units[0]
    assert (unit.verdict, unit.informed_rows) == (verdict, count)


@pytest.mark.parametrize(("rows", "verdict"), [(367, "alive"), (368, "at_prior")])
def test_at_prior_needs_rows_that_rule_out_one_in_a_hundred(rows: int, verdict: str) -> None:
    means, logs = latent([0.003, 0.9], rows)
    diagnosis = diagnose(means, posterior=logs)
    assert diagnosis.units[0].verdict == verdict
    assert ("posterior_not_testable" in diagnosis.flags) is (rows < 368)
    means, logs = latent([0.9, 0.9], rows)
    assert "posterior_not_testable" not in diagnose(means, posterior=logs).flags


def test_repeated_rows_count_once() -> None:
    means, logs = latent([0.003, 0.9], 100)
    inputs = normal(100, 5, seed=3)
    diagnosis = diagnose(means.repeat(10, 1), posterior=logs.repeat(10, 1), inputs=inputs.repeat(10, 1))
    assert diagnosis.units[0].verdict == "alive"
    assert "posterior_not_testable" in diagnosis.flags


def test_another_prior_is_given_by_its_divergence() -> None:
    """Posterior and prior N(m, 1) with m = 2 for all rows: N(0, 1) is two nats away, the prior itself none."""
    means = 2 + 0.003 * normal(units=2)
    nats = (means - 2).square() / 2
    assert diagnose(means, posterior_kl=nats).verdict == "full_collapse"
    assert diagnose(means, posterior=torch.zeros(ROWS, 2)).verdict == "healthy"


def test_a_divergence_that_is_not_finite_makes_the_unit_invalid() -> None:
    means, logs = latent([0.9, 0.9])
    logs = logs.clone()
    logs[3, 1] = math.inf
    assert [unit.verdict for unit in diagnose(means, posterior=logs).units] == ["alive", "invalid"]


def test_members_are_judged_with_their_own_posterior_and_json_keeps_it() -> None:
    pairs = [latent([0.9, 0.003]), latent([0.9, 0.8], seed=1)]
    means, logs = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    diagnoses = diagnose(means, posterior=logs, members=True)
    assert [str(diagnosis.verdict) for diagnosis in diagnoses] == ["single_live_unit", "healthy"]
    for diagnosis, (mean, log) in zip(diagnoses, pairs, strict=True):
        assert diagnosis.units[1].kl == diagnose(mean, posterior=log).units[1].kl
        assert str(Diagnosis.from_dict(json.loads(json.dumps(diagnosis.to_dict())))) == str(diagnosis)


def test_the_textbook_collapse_of_a_trained_vae_is_seen_and_its_healthy_twin_is_not() -> None:
    """KL summed against an averaged squared error drives every unit to the prior; weighted by 1e-3 it does not."""
    verdicts = {}
    for weight in (1.0, 1e-3):
        means, logs = _trained_vae(weight)
        verdicts[weight] = diagnose(means, posterior=logs).verdict
    assert verdicts == {1.0: "full_collapse", 1e-3: "healthy"}


def _trained_vae(weight: float, units: int = 2) -> tuple[Tensor, Tensor]:
    draw = generator()
    hidden = torch.randn(800, units, generator=draw)
    rows = torch.sigmoid(hidden @ torch.randn(units, 12, generator=draw))
    encoder, decoder = torch.nn.Linear(12, 2 * units), torch.nn.Linear(units, 12)
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 0.02)
    for _ in range(400):
        means, logs = encoder(rows).chunk(2, 1)
        sample = means + torch.randn(means.shape, generator=draw) * (logs / 2).exp()
        divergence = -0.5 * (1 + logs - means.square() - logs.exp()).sum(1).mean()
        loss = (decoder(sample) - rows).square().mean() + weight * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        means, logs = encoder(rows).chunk(2, 1)
    return means, logs
