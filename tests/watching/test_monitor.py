"""Watching changes nothing of a training loop, and reports what a plain loop counts."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import harness
from harness.errors import HarnessError


class Network(nn.Module):
    """A layer with a functional ReLU, batch statistics, dropout and an in-place activation."""

    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2, self.fc3 = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 5), nn.Linear(5, 6)
        self.unused = nn.Linear(2, 2)

    def forward(self, rows):
        hidden = F.dropout(F.relu_(self.norm(self.fc1(rows))), 0.2, self.training)
        return self.fc3(F.relu(self.fc2(hidden)))


def rows(count=320, seed=0):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def train(model, data, epochs=2, watched=None):
    """A plain loop; returns all that it leaves behind."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    outputs, gradients = [], []
    for _ in range(epochs):
        for batch in data.split(64):
            optimizer.zero_grad()
            output = model(batch)
            F.mse_loss(output, batch).backward()
            gradients += [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
            outputs.append(output.detach().clone())
            optimizer.step()
    return [*outputs, *gradients, *(value.clone() for value in model.state_dict().values()), torch.get_rng_state()]


def seeded():
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    return Network().train()


@pytest.mark.parametrize("layers", ["fc2", "fc1", ["fc1", "fc2"], "fc*", "norm"])
def test_training_is_the_same_bit_for_bit_with_and_without(layers):
    plain = train(seeded(), rows())
    model = seeded()
    with harness.watch(model, layers):
        watched = train(model, rows())
    assert len(plain) == len(watched)
    assert all(torch.equal(first, second) for first, second in zip(plain, watched, strict=True))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_history_is_what_a_plain_hook_counts():
    model, batches = seeded().eval(), rows().split(64)
    model.training = (
        True  # no dropout and no batch statistics in the modules, so that a second pass sees the same values
    )
    values = []
    handle = model.fc2.register_forward_hook(
        lambda module, args, output: values.append(F.relu(output.detach()).double())
    )
    F_dropout, F.dropout = F.dropout, lambda x, p, training: x
    try:
        with torch.no_grad(), harness.watch(model, "fc2", every=2) as monitor:
            for batch in batches:
                model(batch)
    finally:
        F.dropout = F_dropout
        handle.remove()
    history = monitor.history()
    assert list(history.columns) == ["layer", "step", "unit", "activation_frequency", "mean", "sd", "dead"]
    assert sorted(history["step"].unique()) == [1, 3, 5]
    for step in (1, 3, 5):
        frame, code = history[history["step"] == step], values[step - 1].numpy()
        np.testing.assert_allclose(frame["activation_frequency"], (code > 0).mean(0))
        np.testing.assert_allclose(frame["mean"], code.mean(0))
        np.testing.assert_allclose(frame["sd"], code.std(0))


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_unit_that_stops_firing_is_reported_once(shuffled):
    model, data, messages = seeded(), rows(), []
    order = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.fc2.bias[2] = -1000.0
    with harness.watch(model, "fc2", callback=messages.append) as monitor:
        for _ in range(8):
            index = torch.randperm(320, generator=order) if shuffled else torch.arange(320)
            for batch in data[index].split(64):
                model(batch)
    assert [message.partition(": ")[2] for message in messages] == ["unit 2 of fc2 has not fired for 3 epochs"]
    step = int(messages[0].split()[1].rstrip(":"))
    assert step == 16 if not shuffled else 15 < step <= 20  # 5 steps an epoch
    history = monitor.history()
    dead = history[(history["unit"] == 2)].set_index("step")["dead"]
    assert not dead[15]
    assert dead[16]  # 1,024 rows
    assert not history[history["unit"] != 2]["dead"].any()


def test_a_healthy_layer_is_not_reported_and_warnings_go_to_stderr(capsys):
    model, data = seeded(), rows()
    with harness.watch(model, "fc2", steps_per_epoch=5):
        train(model, data, epochs=6)
    assert capsys.readouterr().err == ""
    with torch.no_grad():
        model.fc2.bias[:2] = -1000.0
    with harness.watch(model, "fc2", steps_per_epoch=5):
        for _ in range(5):
            for batch in data.split(64):
                model(batch)
    assert capsys.readouterr().err == "step 15: units 0, 1 of fc2 have not fired for 3 epochs\n"


def test_rows_that_never_return_have_no_epochs():
    model, messages = seeded(), []
    with torch.no_grad():
        model.fc2.bias[2] = -1000.0
    with harness.watch(model, "fc2", callback=messages.append):
        for step in range(60):
            model(rows(200, seed=step))
    assert messages == ["step 50: unit 2 of fc2 has not fired for 10000 rows"]


def test_values_that_are_no_numbers_are_reported():
    model, messages = seeded(), []
    with harness.watch(model, "fc2", callback=messages.append) as monitor:
        for _ in range(3):
            model(torch.full((8, 6), torch.nan))
    assert messages == ["step 1: fc2 has NaN or infinite values"]
    assert monitor.diagnosis().verdict == "invalid"


def test_labels_of_another_length_are_said_to_be_left_out():
    model = seeded()
    with harness.watch(model, "fc2", labels=lambda: torch.zeros(7)) as monitor:
        with pytest.warns(
            UserWarning, match="watch: labels: expected 100, one per row of fc2, got 7; they are left out"
        ):
            model(rows(100))
        assert not monitor.diagnosis().references


def test_the_window_is_the_last_epoch_of_at_least_a_thousand_rows():
    model = seeded()
    with harness.watch(model, "fc2", labels=lambda: batch[:, 0] > 0) as monitor:
        for batch in rows(3000).split(100):
            model(batch)
    assert monitor.diagnosis().rows == 1000
    assert len(monitor.diagnosis().references) == 1
    with harness.watch(model, "fc2") as monitor:
        for _ in range(3):
            for batch in rows(3000).split(100):
                model(batch)
    assert monitor.diagnosis().rows == 3000
    with harness.watch(model, "fc2") as monitor:
        for _ in range(3):
            for batch in rows(20_000).split(1000):
                model(batch)
    assert monitor.diagnosis().rows <= 9000


def test_dead_units_are_found_in_the_window():
    model = seeded()
    with torch.no_grad():
        model.fc2.bias[[1, 3]] = -1000.0
    with harness.watch(model, ["fc1", "fc2"]) as monitor:
        train(model, rows(), epochs=4)
    diagnoses = monitor.diagnosis()
    assert set(diagnoses) == {"fc1", "fc2"}
    assert [unit.index for unit in diagnoses["fc2"].units if unit.verdict == "dead"] == [1, 3]
    assert monitor.diagnosis("fc2").verdict == diagnoses["fc2"].verdict == "partial_collapse"
    assert set(monitor.history()["layer"]) == {"fc1", "fc2"}


def test_evaluation_passes_are_no_steps():
    model = seeded()
    with harness.watch(model, "fc2") as monitor:
        model(rows())
        model.eval()
        model(rows())
        assert not model.training
    assert monitor.step == 1


def test_a_layer_that_is_never_called_is_a_finding():
    model = seeded()
    with harness.watch(model, "unused") as monitor:
        train(model, rows(), epochs=1)
    diagnosis = monitor.diagnosis()
    assert diagnosis.verdict == "not_testable"
    assert [finding.rule for finding in diagnosis.findings] == ["never_called"]
    assert "5 forward passes" in diagnosis.findings[0].evidence
    assert len(monitor.history()) == 0


class Broken(Network):
    """Raises in its third call."""

    calls = 0

    def forward(self, rows):
        self.calls += 1
        code = F.relu(self.fc2(self.fc1(rows)))
        if self.calls == 3:
            raise ZeroDivisionError("inside")
        return self.fc3(code)


def test_exceptions_come_through_and_nothing_is_left_behind():
    model = Broken().train()
    monitor = harness.watch(model, "fc2")
    with pytest.raises(ZeroDivisionError, match="inside"), monitor:
        train(model, rows())
    with pytest.raises(KeyError), harness.watch(model, "fc2"):
        raise KeyError("outside of the model")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert torch.overrides._get_current_function_mode_stack() == []
    assert len(monitor.history()["step"].unique()) == 2
    with harness.watch(model, "fc2") as monitor:  # a pass that failed does not stop the next one
        model.calls = 2
        with pytest.raises(ZeroDivisionError):
            model(rows())
        model(rows())
    assert monitor.history()["step"].unique().tolist() == [2]


class Convolutions(nn.Module):
    """A convolution with one dead channel, and a transformer layer behind it."""

    def __init__(self):
        super().__init__()
        self.conv, self.tokens = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)
        self.attention, self.out = nn.TransformerEncoderLayer(3, 1, 8, batch_first=True), nn.Linear(3, 1)
        with torch.no_grad():
            self.conv.bias[1] = -1000.0

    def forward(self, images):
        hidden = F.relu(self.conv(images)).flatten(2).transpose(1, 2)
        return self.out(self.attention(self.tokens(hidden)))


@pytest.mark.parametrize(("declared", "units"), [(None, 4), (1, 4), (2, 5), (-1, 6)])
def test_channels_of_a_convolution_are_units_unless_another_axis_is_declared(declared, units):
    torch.manual_seed(0)
    model = Convolutions()
    with torch.no_grad(), harness.watch(model, "conv", unit_axis=declared) as monitor:
        for batch in torch.randn(64, 1, 5, 6).split(16):
            model(batch)
    diagnosis = monitor.diagnosis()
    assert len(diagnosis.units) == units
    note = next(finding for finding in diagnosis.findings if finding.rule == "unit_axis")
    assert ("declared" in note.evidence) == (declared is not None)
    assert ("inferred" in note.evidence) == (declared is None)
    if units == 4:
        assert [unit.index for unit in diagnosis.units if unit.verdict == "dead"] == [1]


def test_the_last_axis_of_tokens_is_the_unit_axis():
    torch.manual_seed(0)
    model = Convolutions()
    with torch.no_grad(), harness.watch(model, ["tokens", "attention"]) as monitor:
        for batch in torch.randn(64, 1, 5, 6).split(16):
            model(batch)
    for layer in ("tokens", "attention"):
        diagnosis = monitor.diagnosis(layer)
        assert len(diagnosis.units) == 3
        assert "axis 2 (inferred)" in diagnosis.findings[-1].evidence


def test_a_report_is_written(tmp_path):
    model = seeded()
    with harness.watch(model, "fc2") as monitor:
        train(model, rows(), epochs=2)
    page = monitor.report(tmp_path / "report")
    assert page.name == "report.html"
    assert "<html" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "fc4"}, "no module is called 'fc4'; did you mean 'fc"),
        ({"layers": "decoder.*"}, "no module is called 'decoder"),
        ({"layers": []}, "expected at least one module name, got none"),
        ({"layers": [3]}, "expected a module name such as 'encoder.0', got 3"),
        ({"layers": torch.zeros(9, 9)}, "expected a module name such as 'encoder.0', got a Tensor$"),
        ({"layers": None}, "expected a module name such as 'encoder.0', got a NoneType$"),
        ({"layers": "fc2", "every": 0}, "every: expected a whole number from 1, got 0"),
        ({"layers": "fc2", "steps_per_epoch": 2.5}, "steps_per_epoch: expected a whole number from 1, got 2.5"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(HarnessError, match=message):
        harness.watch(Network(), **arguments)


def test_a_layer_that_is_not_watched_and_one_of_several_are_named():
    model = seeded()
    with harness.watch(model, ["fc1", "fc2"]) as monitor:
        model(rows())
    with pytest.raises(HarnessError, match="no watched layer is called 'fc3'"):
        monitor.diagnosis("fc3")
    with pytest.raises(HarnessError, match="expected one of fc1, fc2, got none"):
        monitor.report("unused")


@pytest.mark.parametrize("axis", [0, 4])
def test_a_unit_axis_that_is_not_there_is_refused(axis):
    model = Convolutions()
    with pytest.raises(HarnessError, match=f"unit_axis: expected an axis from 1 to 3, got {axis}"):
        harness.diagnose_model(model, torch.randn(8, 1, 5, 6), "conv", unit_axis=axis)


def test_the_codes_of_a_quantizer_are_counted_for_one_set_of_weights_only():
    class Quantized(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.book, self.dec = nn.Linear(6, 3), nn.Embedding(8, 3), nn.Linear(3, 6)

        def forward(self, rows):
            code = self.enc(rows)
            entries = self.book(torch.cdist(code, self.book.weight).argmin(1))
            return self.dec(code + (entries - code).detach()), (entries - code.detach()).square().mean()

    torch.manual_seed(0)
    model, rows = Quantized(), torch.randn(640, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with harness.watch(model, "enc") as monitor:
        for batch in rows.split(32) * 2:
            output, distance = model(batch)
            optimizer.zero_grad()
            ((output - batch).square().mean() + distance).backward()
            optimizer.step()
    assert "codes_in_use" not in monitor.diagnosis().measures
    with torch.no_grad():
        index = torch.cdist(model.enc(rows), model.book.weight).argmin(1)
    measures = harness.diagnose_model(model, rows, "enc").measures
    assert measures["codes_in_use"] == len(index.unique())
