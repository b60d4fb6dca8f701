"""Gradients of loss terms at a layer, and the log to MLflow."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import harness
from harness.errors import HarnessError
from harness.watching.gradient_balance import GradientBalance


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, rows):
        code = F.relu(self.fc1(rows))
        return self.fc2(code), code


def rows():
    return torch.randn(320, 6, generator=torch.Generator().manual_seed(0))


def terms_of(model, batch):
    output, code = model(batch)
    return F.mse_loss(output, batch), 50 * code.square().mean()


def train(model, monitor=None):
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    trace = []
    for batch in rows().split(64):
        optimizer.zero_grad()
        reconstruction, penalty = terms_of(model, batch)
        if monitor is not None:
            monitor.terms(reconstruction=reconstruction, sparsity=penalty)
        (reconstruction + penalty).backward()
        trace += [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
    return [*trace, *model.parameters()]


def test_the_norms_are_those_of_autograd_and_training_is_the_same():
    torch.manual_seed(0)
    model = Network().train()
    raw = model.fc1(rows()[:64])
    code = F.relu(raw)
    expected = {
        "reconstruction": torch.autograd.grad(F.mse_loss(model.fc2(code), rows()[:64]), raw, retain_graph=True)[0],
        "sparsity": torch.autograd.grad(50 * code.square().mean(), raw)[0],
    }
    with harness.watch(model, "fc1", every=2, gradients=True) as monitor:
        watched = train(model, monitor)
    frame = monitor.history()
    assert sorted(frame["step"].unique()) == [1, 3, 5]
    first = frame[frame["step"] == 1]
    for term, gradient in expected.items():
        np.testing.assert_allclose(first[f"gradient/{term}"], gradient.norm(dim=0), rtol=1e-5)
    torch.manual_seed(0)
    plain = train(Network().train())
    assert all(torch.equal(first, second) for first, second in zip(plain, watched, strict=True))


def test_a_term_that_does_not_reach_the_layer_has_the_norm_zero():
    model = Network().train()
    with harness.watch(model, "fc1", gradients=True) as monitor:
        model(rows())
        monitor.terms(decay=model.fc2.weight.square().sum(), constant=torch.tensor(1.0))
    frame = monitor.history()
    assert (frame["gradient/decay"] == 0).all()
    assert "gradient/constant" not in frame


def test_terms_without_gradients_are_refused():
    with harness.watch(Network(), "fc1") as monitor, pytest.raises(HarnessError, match="terms: expected watch"):
        monitor.terms(reconstruction=torch.zeros(1))


def test_the_active_run_gets_the_steps_beside_autolog(stored, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(stored(tmp_path))
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which the next line sets for good
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    try:
        mlflow.pytorch.autolog()
        model = Network().train()
        with mlflow.start_run() as run, harness.watch(model, "fc1", gradients=True) as monitor:
            monitor.log_to_mlflow(every=2)
            train(model, monitor)
            mlflow.log_metric("own", 1.0)
        assert mlflow.active_run() is None
        data = mlflow.get_run(run.info.run_id).data
        assert data.metrics["own"] == 1.0
        assert data.tags["fc1/verdict"] == str(monitor.diagnosis().verdict)
        client = mlflow.MlflowClient()
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "fc1/activation_frequency/u0")]
        assert steps == [1, 3, 5]
        norms = monitor.history().query("step == 5")["gradient/sparsity"]
        assert data.metrics["fc1/gradient/sparsity"] == pytest.approx(float((norms**2).sum() ** 0.5))
    finally:
        mlflow.pytorch.autolog(disable=True)


def test_without_an_active_run_it_makes_its_own(stored, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(stored(tmp_path))
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    model = Network().train()
    with harness.watch(model, "fc1") as monitor:
        train(model)
    monitor.log_to_mlflow(every=1)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("harness-watch").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["fc1/live_units"] == 3
    assert len(client.get_metric_history(run.info.run_id, "fc1/live_units")) == 5


def weighted(monitor, factor, steps=60):
    """Train with the L1 penalty times a factor; return the ratio of the gradients at fc1 in each step, by autograd."""
    torch.manual_seed(0)
    model, ratios = Network().train(), []
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with monitor(model) as watching:
        for batch in (batch for _ in range(steps // 5) for batch in rows().split(64)):
            raw = model.fc1(batch)
            code = F.relu(raw)
            both = (F.mse_loss(model.fc2(code), batch), factor * code.abs().mean())
            norms = [torch.autograd.grad(term, raw, retain_graph=True)[0].norm() for term in both]
            ratios.append(float(norms[1] / norms[0]))
            optimizer.zero_grad()
            output, code = model(batch)
            reconstruction, penalty = F.mse_loss(output, batch), factor * code.abs().mean()
            watching.terms(reconstruction=reconstruction, sparsity=penalty)
            (reconstruction + penalty).backward()
            optimizer.step()
    return ratios, watching


def test_a_penalty_that_outweighs_the_reconstruction_is_said_once_with_its_ratio():
    messages = []
    ratios, monitor = weighted(
        lambda model: harness.watch(model, "fc1", gradients=True, callback=messages.append), 50, steps=40
    )
    assert min(ratios) > 10
    assert messages == [
        f"step 20: at fc1, the gradient of sparsity has had {np.median(ratios[:20]):.3g} times the norm of that of "
        "reconstruction (median of 20 observed steps)"
    ]
    (finding,) = [finding for finding in monitor.diagnosis().findings if finding.rule == "dominates"]
    assert finding.severity == "risk"
    assert finding.term == "sparsity"
    assert finding.numbers["ratio"] == pytest.approx(float(np.median(ratios[-20:])), rel=1e-5)
    assert finding.numbers["ratio_at_first"] == pytest.approx(ratios[0], rel=1e-5)
    assert "observed steps 21 to 40" in finding.evidence
    assert "dominates" in str(monitor.diagnosis())


@pytest.mark.parametrize(
    ("factor", "steps", "severity"), [(1e-2, 60, None), (1.0, 60, None), (50, 15, None), (1e5, 40, "fault")]
)
def test_a_balanced_penalty_and_the_first_steps_do_not_dominate_and_a_penalty_that_kills_the_layer_does(
    factor, steps, severity
):
    messages = []
    ratios, monitor = weighted(
        lambda model: harness.watch(model, "fc1", gradients=True, callback=messages.append), factor, steps
    )
    severities = [finding.severity for finding in monitor.diagnosis().findings if finding.rule == "dominates"]
    assert severities == ([] if severity is None else [severity]), ratios
    assert any("gradient of sparsity" in message for message in messages) == (severity is not None)


def test_a_ratio_that_is_never_below_three_is_a_risk_without_a_line_and_a_detached_main_term_is_none():
    def norms(main, penalty):
        return {"task": torch.tensor([main]), "penalty": torch.tensor([penalty])}

    for main, penalty, expected in ((1.0, 4.0, 1), (1.0, 2.0, 0), (0.0, 4.0, 0), (1.0, float("inf"), 0)):
        balance = GradientBalance()
        assert balance.add(range(1, 41), [norms(main, penalty)] * 40) == []
        findings = balance.findings("layer")
        assert [finding.severity for finding in findings] == ["risk"] * expected
        assert all("that of task" in finding.evidence for finding in findings)
