"""Numbers of a loss that nothing reads."""

import torch
import torch.nn.functional as F
from healthy_models import HEALTHY, Autoencoder, case, squared_error

from harness.auditing import audit


def undecided(result):
    return [finding.evidence for finding in result.undecided if finding.rule == "unused_number"]


def test_a_number_on_a_branch_that_no_probe_took_is_undecided():
    result = audit(HEALTHY["number read after 1000 steps"](), seeds=1)
    assert undecided(result) == ["losses reads strength on a branch that no probe took"]


def test_a_number_that_may_weigh_a_term_without_a_gradient_is_undecided():
    def losses(model, x, strength):
        z, made = model(x)
        return {"reconstruction": F.mse_loss(made, x), "off": strength * 0.0 * z.sum()}

    result = audit(case(Autoencoder, losses, numbers={"strength": 2.0}), seeds=1)
    assert "may weigh off" in undecided(result)[0]


def test_a_number_of_a_loss_with_draws_of_its_own_is_undecided():
    draws = torch.Generator().manual_seed(0)

    def losses(model, x, rho):
        made = model(x + 0.1 * torch.randn(x.shape, generator=draws))[1]
        return {"reconstruction": F.mse_loss(made, x)}

    result = audit(case(Autoencoder, losses, numbers={"rho": 2.0}), seeds=1)
    assert "two equal evaluations differ" in undecided(result)[0]


def test_a_number_of_a_loss_that_takes_any_number_is_not_said_to_be_unused():
    def losses(model, x, **numbers):
        return squared_error(model, x)

    assert "unused_number" not in audit(case(Autoencoder, losses, numbers={"rho": 0.05}), seeds=1).rules
