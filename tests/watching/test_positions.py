"""Sequences and images of which the code follows the position and not the input, and positions of which few are kept."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import harness
from harness.errors import HarnessError

TOKENS, FEATURES, UNITS = 6, 3, 4


class Sequences(nn.Module):
    """A token encoder with positions; `gain` multiplies what depends on the tokens."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain, self.embed, self.decode = gain, nn.Linear(FEATURES, 8), nn.Linear(UNITS, FEATURES)
        self.places, self.encode = nn.Embedding(TOKENS, 8), nn.Linear(8, UNITS)

    def forward(self, rows: Tensor) -> Tensor:
        places = self.places(torch.arange(TOKENS).expand(len(rows), -1))
        return self.decode(torch.tanh(self.encode(self.gain * self.embed(rows) + places)))


def cut(weight: nn.Parameter, gain: float) -> None:
    """Multiply a weight; without a gain it stays 0."""
    weight.data *= gain
    weight.requires_grad_(gain > 0)


class Recurrent(nn.Module):
    """A recurrent layer in a form of PyTorch: a sequence, a packed sequence, or a cell that is called once per token."""

    def __init__(self, form: str, gain: float) -> None:
        super().__init__()
        self.form = form
        self.layer = nn.GRUCell(FEATURES, UNITS) if form == "cell" else nn.GRU(FEATURES, UNITS, batch_first=True)
        cut(next(iter(self.layer.parameters())), gain)  # the weights of the inputs
        self.decode = nn.Linear(UNITS, FEATURES)

    def forward(self, rows: Tensor) -> Tensor:
        if self.form == "cell":
            state = rows.new_zeros(len(rows), UNITS)
            for token in rows.unbind(1):
                state = self.layer(token, state)
            return self.decode(state)
        lengths = torch.arange(len(rows)) % TOKENS + 1
        packed = pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
        return self.decode(self.layer(packed if self.form == "packed" else rows)[1][0])


class Image(nn.Module):
    """Two convolutions with zero padding."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.first, self.encode = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, UNITS, 3, padding=1)
        self.decode = nn.Conv2d(UNITS, 1, 3, padding=1)
        cut(self.first.weight, gain)

    def forward(self, rows: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.encode(self.first(rows))))


MODELS: dict[str, tuple[Callable[[float], nn.Module], str, tuple[int, ...]]] = {
    "transformer": (Sequences, "encode", (400, TOKENS, FEATURES)),
    "sequence": (lambda gain: Recurrent("sequence", gain), "layer", (400, TOKENS, FEATURES)),
    "packed": (lambda gain: Recurrent("packed", gain), "layer", (400, TOKENS, FEATURES)),
    "cell": (lambda gain: Recurrent("cell", gain), "layer", (400, TOKENS, FEATURES)),
    "image": (Image, "encode", (400, 1, 5, 5)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_code_that_follows_its_position_and_not_the_input_has_collapsed(name: str) -> None:
    build, layer, shape = MODELS[name]
    torch.manual_seed(0)
    rows = torch.randn(shape)
    sick, healthy = (harness.diagnose_model(build(gain), rows, layer) for gain in (0.0, 1.0))
    assert sick.verdict == "full_collapse"
    assert all("input_independent" in unit.flags and unit.standard_deviation > 1e-3 for unit in sick.units)
    assert "input_independent" in {finding.rule for finding in sick.findings}
    assert sum(unit.live for unit in healthy.units) == UNITS
    assert not any("input_independent" in unit.flags for unit in healthy.units)


def test_a_table_of_positions_is_not_called_collapsed() -> None:
    rows = torch.randn(400, TOKENS, FEATURES, generator=torch.Generator().manual_seed(0))
    assert harness.diagnose_model(Sequences(1.0), rows, "places").verdict != "full_collapse"


@pytest.mark.parametrize("name", ["transformer", "packed", "cell", "image"])
def test_a_loop_shows_a_code_that_follows_its_position(name: str) -> None:
    build, layer, shape = MODELS[name]
    for gain, live in ((0.0, 0), (1.0, UNITS)):
        torch.manual_seed(0)
        model = build(gain)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with harness.watch(model, layer) as monitor:
            for rows in batches(shape, 12):
                optimizer.zero_grad()
                model(rows).square().mean().backward()
                optimizer.step()
        assert sum(unit.live for unit in monitor.diagnosis().units) == live


def batches(shape: tuple[int, ...], count: int) -> Iterator[Tensor]:
    """Random batches of 64 samples."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        yield torch.randn((64, *shape[1:]), generator=generator)


def test_a_constant_unit_is_constant_while_its_bias_still_moves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 4))
    model[0].weight.data[1] = 0.0
    model[0].bias.data[1] = 1.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with harness.watch(model, "0") as monitor:
        for rows in batches((64, 4), 40):
            optimizer.zero_grad()
            (model(rows) - rows).square().mean().backward()
            model[0].weight.grad[1] = 0.0
            optimizer.step()
    units = monitor.diagnosis().units
    assert units[1].maximum - units[1].minimum > 1e-3
    assert (units[1].verdict, units[1].flags) == ("constant_on", ("always_on", "input_independent"))
    assert units[0].live
    assert units[2].live


def test_rows_that_are_left_out_are_of_all_positions() -> None:
    images = torch.zeros(3000, 1, 8, 8)
    images[:, :, 2:, 2:] = torch.rand(3000, 1, 6, 6, generator=torch.Generator().manual_seed(0))  # a black border
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    model[0].weight.data.fill_(1.0)
    model[0].bias.data.copy_(torch.tensor([-0.25, -0.5]))
    diagnosis = harness.diagnose_model(model, images.split(100), "0")
    assert diagnosis.rows < 3000 * 64
    for unit, threshold in zip(diagnosis.units, (0.25, 0.5), strict=True):
        low, high = unit.activation_frequency_bounds
        assert low < float((images > threshold).double().mean()) < high


def test_bad_positions_are_refused() -> None:
    code = torch.rand(400, 2)
    with pytest.raises(HarnessError, match=r"positions: expected one number per row, 400 rows, got the shape \[3\]"):
        harness.diagnose(code, positions=torch.zeros(3))
    with pytest.raises(HarnessError, match="positions: expected finite numbers"):
        harness.diagnose(code, positions=torch.full((400,), torch.nan))


def test_rows_of_which_each_is_a_position_of_its_own_are_judged_without_positions() -> None:
    code = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    assert harness.diagnose(code, positions=torch.arange(400)) == harness.diagnose(code)


def test_the_variation_is_that_within_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = torch.arange(2000) % 5
    code = 10.0 * positions[:, None] + torch.tensor([1.0, 1e-3]) * torch.randn(2000, 2, generator=generator).double()
    # the variance within groups as in a one-way analysis of variance
    groups = [code[positions == place] for place in range(5)]
    within = sum(((group - group.mean(0)) ** 2).sum(0) for group in groups) / (2000 - 5)
    expected = (within / code.square().mean(0)).sqrt()
    found = torch.tensor([unit.variation for unit in harness.diagnose(code, positions=positions).units])
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=0)
    verdicts = [unit.verdict for unit in harness.diagnose(code, positions=positions).units]
    assert verdicts == ["alive", "near_constant"]
