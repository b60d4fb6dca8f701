"""A finished model is diagnosed in one pass, in any form of batches, and left as it was."""

import inspect
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import harness
from harness.errors import HarnessError


class Autoencoder(nn.Module):
    """Units 1 and 3 are dead, unit 2 only in its selection."""

    def __init__(self):
        super().__init__()
        self.norm, self.encoder, self.decoder = nn.BatchNorm1d(6), nn.Linear(6, 5), nn.Linear(5, 6)
        self.unused, self.dropout = nn.Linear(2, 2), nn.Dropout(0.3)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("threshold", torch.tensor([0.0, 0.0, 900.0, 0.0, 0.0]))
        with torch.no_grad():
            self.encoder.bias[[1, 3]] = -1000.0

    def forward(self, rows, scale=1.0):
        self.calls += 1  # in eval mode too
        fires = F.relu(self.dropout(self.encoder(self.norm(rows))))
        return self.decoder(scale * fires * (fires > self.threshold))


def rows(count=800):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(0))


def dead(diagnosis):
    return [unit.index for unit in diagnosis.units if unit.verdict == "dead"]


class Rows(torch.utils.data.Dataset):
    """Items `(input, label)`."""

    def __len__(self):
        return 800

    def __getitem__(self, index):
        return rows()[index], int(rows()[index, 0] > 0)


LABELS = (rows()[:, 0] > 0).long()
FORMS = {
    "tensor": lambda: rows(),
    "list of batches": lambda: list(rows().split(100)),
    "generator": lambda: (batch for batch in rows().split(100)),
    "tuple of tensors": lambda: (rows(), LABELS),
    "dict of tensors": lambda: {"rows": rows()},
    "dict batches": lambda: [{"rows": batch} for batch in rows().split(100)],
    "loader": lambda: DataLoader(TensorDataset(rows()), batch_size=64),
    "loader with labels": lambda: DataLoader(TensorDataset(rows(), LABELS), batch_size=64),
    "shuffled loader": lambda: DataLoader(TensorDataset(rows(), LABELS), batch_size=64, shuffle=True),
    "list batches": lambda: [[batch] for batch in rows().split(100)],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_batches_gives_the_units_that_are_dead(form):
    torch.manual_seed(0)
    diagnosis = harness.diagnose_model(Autoencoder(), FORMS[form](), "encoder")
    assert dead(diagnosis) == [1, 2, 3]
    assert diagnosis.verdict == "partial_collapse"
    assert diagnosis.activation == "relu"
    assert diagnosis.rows == 800
    assert (len(diagnosis.references) == 1) == (form in ("tuple of tensors", "loader with labels", "shuffled loader"))
    assert diagnosis.output is not None


def test_items_of_a_dataset_are_read():
    data = TensorDataset(rows(600), LABELS[:600])
    assert dead(harness.diagnose_model(Autoencoder(), data, "encoder")) == [1, 2, 3]


def test_the_numbers_are_those_of_a_plain_forward_pass():
    torch.manual_seed(0)
    model = Autoencoder()
    diagnosis = harness.diagnose_model(model, rows(), "encoder", labels=LABELS, factors={"second": rows()[:, 1]})
    with torch.no_grad():
        model.eval()
        fires = F.relu(model.encoder(model.norm(rows())))
        code = fires * (fires > model.threshold)
        output = model.decoder(code)
    for unit in diagnosis.units:
        assert unit.activation_frequency == pytest.approx(float((code[:, unit.index] > 0).double().mean()))
        assert unit.mean == pytest.approx(float(code[:, unit.index].double().mean()), rel=1e-6)
    missed = ((output - rows()) ** 2).sum() / ((rows() - rows().mean(0)) ** 2).sum()
    assert diagnosis.output.r2 == pytest.approx(1 - float(missed), abs=1e-5)
    assert set(diagnosis.references) == {"label", "second"} or len(diagnosis.references) == 2


def test_a_model_is_left_as_it_was_bit_for_bit():
    model, loader = Autoencoder().train(), DataLoader(TensorDataset(rows()), 64, shuffle=True)
    loader.generator = torch.Generator().manual_seed(3)
    model.dropout.eval()  # modes of its own
    model(rows()).sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    buffers = {name: id(buffer) for name, buffer in model.named_buffers()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    modes = [module.training for module in model.modules()]

    def forward(batch):
        random.random()
        np.random.rand()  # noqa: NPY002
        torch.rand(1)
        return model(batch[0])

    harness.diagnose_model(model, loader, "encoder", forward=forward)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert buffers == {name: id(buffer) for name, buffer in model.named_buffers()}
    assert [module.training for module in model.modules()] == modes
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(loader.generator.get_state(), torch.Generator().manual_seed(3).get_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_is_left_as_it_was_when_its_forward_pass_raises():
    model = Autoencoder().train()
    with pytest.raises(RuntimeError):
        harness.diagnose_model(model, torch.randn(50, 7), "encoder")
    assert model.training
    assert float(model.calls) == 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class TwoInputs(nn.Module):
    """Needs two inputs; a third one has a default."""

    def __init__(self):
        super().__init__()
        self.code = nn.Linear(6, 4)

    def forward(self, first, second, third=None):
        assert third is None
        return F.relu(self.code(first + second))


def test_a_model_gets_as_many_items_of_a_batch_as_it_requires():
    batches = [(batch, batch, (batch[:, 0] > 0).long()) for batch in rows().split(200)]
    diagnosis = harness.diagnose_model(TwoInputs(), batches, "code")
    assert len(diagnosis.references) == 1
    assert diagnosis.rows == 800


def test_a_layer_that_is_never_called_is_a_finding():
    diagnosis = harness.diagnose_model(Autoencoder(), rows(), "unused")
    assert diagnosis.verdict == "not_testable"
    assert diagnosis.findings[0].rule == "never_called"
    assert "unused" in str(diagnosis)


class Variational(nn.Module):
    """The second unit's posterior equals the prior."""

    def __init__(self):
        super().__init__()
        self.mean, self.logvar, self.decoder = nn.Linear(6, 2), nn.Linear(6, 2), nn.Linear(2, 6)
        with torch.no_grad():
            for layer in (self.mean, self.logvar):
                layer.weight[1] = 0
                layer.bias[1] = 0
            self.mean.weight[1] = 1e-4
            self.logvar.bias[0] = -5.0

    def forward(self, rows):
        mean, logvar = self.mean(rows), self.logvar(rows)
        return self.decoder(mean + torch.randn_like(mean) * (logvar / 2).exp()), mean, logvar


@pytest.mark.skipif(
    "posterior" not in inspect.signature(inspect.unwrap(harness.diagnose)).parameters,
    reason="diagnose has no posterior",
)
def test_the_posterior_of_a_latent_is_read_from_an_output():
    diagnosis = harness.diagnose_model(Variational(), rows(), "mean", posterior="out:2")
    assert [str(unit.verdict) for unit in diagnosis.units] == ["alive", "at_prior"]
    undeclared = harness.diagnose_model(Variational(), rows(), "mean")
    assert undeclared.units[1].verdict == "alive"
    assert [finding.severity for finding in undeclared.findings if finding.rule == "undeclared_posterior"] == ["risk"]
    assert "undeclared_posterior" not in str(diagnosis)


class SamplesInTraining(Variational):
    def forward(self, rows):
        mean = self.mean(rows)
        return self.decoder(mean + torch.randn_like(mean) if self.training else mean)


def test_noise_that_is_drawn_in_training_alone_is_found_and_dropout_is_none():
    model = SamplesInTraining()
    assert "undeclared_posterior" in str(harness.diagnose_model(model, rows(), "mean"))
    assert model.training
    assert "undeclared_posterior" not in str(harness.diagnose_model(Autoencoder(), rows(), "encoder"))


class OneHead(nn.Module):
    """Mean and log-variance of one layer; a sample in training, or the mean alone."""

    def __init__(self, samples=True):
        super().__init__()
        self.stats, self.decoder, self.samples = nn.Linear(6, 6), nn.Linear(3, 6), samples

    def forward(self, rows):
        mean, logvar = self.stats(rows).chunk(2, dim=1)
        if self.training and self.samples:
            mean = torch.distributions.Normal(mean, (logvar / 2).exp()).rsample()
        return self.decoder(mean)


@pytest.mark.parametrize("samples", [True, False])
def test_a_posterior_of_one_layer_is_found_in_a_model_and_in_a_loop(samples):
    model = OneHead(samples)
    assert ("undeclared_posterior" in str(harness.diagnose_model(model, rows(), "stats"))) == samples
    state = [parameter.clone() for parameter in model.parameters()]
    for layer, watched in (("stats", model), ("mean", Variational() if samples else Autoencoder())):
        layer = layer if samples or layer == "stats" else "encoder"
        with harness.watch(watched, layer) as monitor:
            for batch in rows().split(50):
                watched(batch)
        rules = [finding.rule for finding in monitor.diagnosis().findings]
        assert ("undeclared_posterior" in rules) == samples
    assert all(map(torch.equal, state, model.parameters()))


def test_rows_of_a_shuffled_loader_may_be_training_rows():
    for shuffle in (True, False):
        loader = DataLoader(TensorDataset(rows()), 100, shuffle=shuffle)
        rules = [finding.rule for finding in harness.diagnose_model(Autoencoder(), loader, "encoder").findings]
        assert ("training_rows" in rules) == shuffle


def test_a_forward_function_may_call_a_part_of_the_model():
    model = Autoencoder()
    diagnosis = harness.diagnose_model(
        model, [rows()], "encoder", forward=lambda batch: model.decoder(F.relu(model.encoder(batch)))
    )
    assert diagnosis.activation == "relu"
    assert diagnosis.rows == 800


@pytest.mark.parametrize(
    ("data", "layer", "options", "message"),
    [
        (
            3,
            "encoder",
            {},
            "rows: expected a tensor, a tuple or dict of tensors, a Dataset or a loader of batches, got int",
        ),
        (rows(), "encodr", {}, "no module is called 'encodr'; did you mean 'encoder'"),
        (rows(), "*coder", {}, "expected one layer, .* matches encoder, decoder"),
        (rows(), "encoder", {"labels": [0, 1]}, r"labels: expected one value per sample, got \[2\] for 800 samples"),
        (rows(), "encoder", {"factors": {"size": [1.0]}}, "factor 'size': expected one value per sample"),
    ],
)
def test_wrong_arguments_are_refused(data, layer, options, message):
    with pytest.raises(HarnessError, match=message):
        harness.diagnose_model(Autoencoder(), data, layer, **options)


def test_a_layer_without_a_sample_axis_is_refused():
    class Scalar(nn.Module):
        def __init__(self):
            super().__init__()
            self.sum = Sum()

        def forward(self, rows):
            return self.sum(rows)

    class Sum(nn.Module):
        def forward(self, rows):
            return rows.sum()

    with pytest.raises(HarnessError, match=r"expected activations \[sample, unit, ...\], got shape \[\]"):
        harness.diagnose_model(Scalar(), rows(), "sum")


def test_an_output_is_compared_with_targets_of_the_shape_of_the_inputs():
    """A network that negates its rows is right about negated targets, and wrong about the rows."""
    layer = nn.Linear(3, 3, bias=False)
    nn.init.eye_(layer.weight)
    model, rows = nn.Sequential(layer, nn.Linear(3, 3, bias=False)), torch.randn(500, 3)
    nn.init.eye_(model[1].weight).data.neg_()
    assert harness.diagnose_model(model, (rows, -rows), "0").output.r2 == pytest.approx(1.0)
    assert harness.diagnose_model(model, TensorDataset(rows, rows), "0").output.r2 == pytest.approx(-3.0, abs=0.1)
