"""Models, layers and batches of unusual forms: judged where they have rows of units, else said not to be, never a crash."""

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.data import DataLoader

import harness


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def dead(diagnosis):
    return [unit.index for unit in diagnosis.units if unit.verdict == "dead"]


def watched(model, layers, batches, call=lambda model, batch: model(batch)):
    """Train with a plain loop; return the monitor and its lines."""
    lines, optimizer = [], torch.optim.SGD(model.parameters(), 1e-3)
    with harness.watch(model.train(), layers, callback=lines.append) as monitor:
        for batch in batches:
            optimizer.zero_grad()
            output = call(model, batch)
            (output if isinstance(output, torch.Tensor) else output["out"]).square().sum().backward()
            optimizer.step()
    return monitor, lines


class Dead(nn.Linear):
    """A linear layer whose unit 1 never reaches 0."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        with torch.no_grad():
            self.bias[1] = -1000.0


class Attention(nn.Module):
    def __init__(self, batch_first):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(6, 2, batch_first=batch_first), nn.Linear(6, 1)
        with torch.no_grad():
            self.attention.out_proj.bias[1] = -1000.0

    def forward(self, tokens):
        return self.out(F.relu(self.attention(tokens, tokens, tokens)[0]))


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_first_output_of_an_attention_layer_is_the_code(batch_first):
    model, batches = Attention(batch_first), list(rows(20, 64, 5, 6))
    monitor, _ = watched(model, "attention", batches)
    assert dead(monitor.diagnosis()) == [1]
    assert dead(harness.diagnose_model(model, batches, "attention")) == [1]


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.out = nn.GRU(6, 4, batch_first=True), Dead(4, 3)

    def forward(self, tokens, lengths):
        packed = pack_padded_sequence(tokens, lengths, batch_first=True, enforce_sorted=False)
        return F.relu(self.out(pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)[0]))


def test_a_packed_sequence_has_a_row_per_token_and_the_layer_behind_it_one_per_position():
    model, lengths = Packed(), torch.tensor([5, 3] * 32)
    batches = [(batch, lengths) for batch in rows(20, 64, 5, 6)]
    monitor, _ = watched(model, ["recurrent", "out"], batches, lambda model, batch: model(*batch))
    assert harness.diagnose_model(model, batches, "recurrent").rows == 20 * int(lengths.sum())
    assert monitor.units().groupby("layer").rows.first().to_dict() == {
        "out": 20 * 64 * 5,
        "recurrent": 20 * int(lengths.sum()),
    }
    assert dead(monitor.diagnosis("out")) == dead(harness.diagnose_model(model, batches, "out")) == [1]


class Loss(nn.Module):
    """Returns its own loss, and flattens one unit away."""

    def __init__(self):
        super().__init__()
        self.layer, self.single, self.criterion = (
            Dead(6, 4),
            nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)),
            nn.MSELoss(),
        )
        self.unused = nn.Linear(2, 2)

    def forward(self, batch):
        return self.criterion(self.single(F.relu(self.layer(batch))), batch[:, 0])


def test_a_pattern_that_also_matches_layers_without_rows_of_units_does_not_stop_the_training():
    monitor, _ = watched(Loss(), "*", rows(1280, 6).split(64))
    diagnoses = monitor.diagnosis()
    assert dead(diagnoses["layer"]) == [1]
    assert "criterion returned a tensor of shape []" in diagnoses["criterion"].findings[0].evidence
    assert "single returned a tensor of shape [64]" in diagnoses["single"].findings[0].evidence
    assert "unused was not called in 20 forward passes" in diagnoses["unused"].findings[0].evidence


def test_a_batch_without_rows_is_no_news():
    model = nn.Sequential(Dead(6, 4), nn.ReLU(), nn.Linear(4, 6))
    batches = [rows(640, 6)[:64], torch.zeros(0, 6), *rows(1280, 6).split(64)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor, lines = watched(model, "0", batches)
    assert not any("NaN" in line for line in lines)
    assert dead(monitor.diagnosis()) == [1]
    assert int(monitor.units()["rows"].iloc[0]) == 64 + 1280


@pytest.mark.parametrize("empty", [[], torch.zeros(0, 6), [torch.zeros(0, 6)]])
def test_no_rows_are_not_testable(empty):
    assert harness.diagnose_model(nn.Sequential(nn.Linear(6, 4)), empty, "0").verdict == "not_testable"


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.out = Dead(6, 4), nn.Linear(4, 6)

    def forward(self, pixels, scale=1.0):
        return self.out(F.relu(self.layer(scale * pixels)))


class Whole(Pixels):
    def forward(self, batch):
        return super().forward(batch["pixels"])


@pytest.mark.parametrize("model", [Pixels, Whole])
def test_a_dict_batch_goes_to_the_arguments_that_are_named_or_whole(model):
    data = [{"pixels": row, "digit": index % 3, "name": str(index)} for index, row in enumerate(rows(640, 6))]
    diagnosis = harness.diagnose_model(model(), DataLoader(data, 64), "layer")
    assert dead(diagnosis) == [1]
    assert diagnosis.rows == 640
    assert len(diagnosis.references) == (1 if model is Pixels else 0)  # the digits are labels


def test_rows_may_be_a_numpy_array():
    array = np.random.default_rng(0).normal(size=(640, 6))
    model = Pixels()
    diagnosis = harness.diagnose_model(model, array, "layer")
    same = harness.diagnose_model(model, torch.tensor(array, dtype=torch.float32), "layer")
    assert [unit.mean for unit in diagnosis.units] == [unit.mean for unit in same.units]


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(Dead(6, 6), nn.ReLU()) for _ in range(2))

    def forward(self, batch):
        for block in (*self.blocks, self.blocks[0]):
            batch = block(batch)
        return {"out": batch, "hidden": None}


@pytest.mark.parametrize(
    "convert", [lambda model: model, nn.Module.bfloat16, lambda model: torch.compile(model, backend="eager")]
)
def test_layers_in_a_list_by_pattern_one_of_them_called_twice_and_a_dict_as_output(convert):
    torch.manual_seed(0)
    model = convert(Shared())
    data = rows(1280, 6).to(next(model.parameters()).dtype)
    monitor, _ = watched(model, "blocks.*.0", data.split(64))
    assert {name: dead(diagnosis)[:1] for name, diagnosis in monitor.diagnosis().items()} == {
        "blocks.0.0": dead(harness.diagnose_model(model, data, "blocks.0.0"))[:1],
        "blocks.1.0": dead(harness.diagnose_model(model, data, "blocks.1.0"))[:1],
    }
    assert all(1 in dead(diagnosis) for diagnosis in monitor.diagnosis().values())
