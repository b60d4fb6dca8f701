"""Codes with positions in a case: a channel or a feature is one unit, as a plain loop over the model counts it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.capture.code_form import CodeForm, layer_before_code
from harness.case import Case
from harness.data.rows import Rows
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec

pytestmark = pytest.mark.many
CHANNELS = 3


def images() -> Rows:
    """Images whose border is black, as that of a scanned digit; the brighter half of them is class 1."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.zeros(500, 1, 6, 6)
    inputs[:, :, 2:4, 2:4] = torch.rand(500, 1, 2, 2, generator=generator)
    return Rows(inputs, (inputs.sum((1, 2, 3)) > 2).long())


class Images(nn.Module):
    """Channel 0 can never fire, the others do; the border of the code is constant."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.back = nn.Conv2d(1, CHANNELS, 2, stride=2), nn.ConvTranspose2d(CHANNELS, 1, 2, stride=2)
        self.code.weight.data.abs_()
        self.code.bias.data.copy_(torch.tensor([-100.0, -0.2, 0.1]))

    def forward(self, rows: Tensor) -> Tensor:
        return self.back(torch.relu(self.code(rows)))


class Tokens(nn.Module):
    """A linear code of each token; that of unit 0 follows the position only."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.back = nn.Linear(2, CHANNELS), nn.Linear(CHANNELS, 2)
        self.places = nn.Parameter(torch.arange(5.0)[:, None].repeat(1, CHANNELS))
        self.code.weight.data[0] = 0.0

    def forward(self, rows: Tensor) -> Tensor:
        return self.back(torch.tanh(self.code(rows) + 0.1 * self.places))


def tokens() -> Rows:
    """Sequences of five tokens."""
    return Rows(torch.randn(500, 5, 2, generator=torch.Generator().manual_seed(3)))


def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Mean squared error."""
    return {"reconstruction": F.mse_loss(model(batch), batch)}


def records(model: Callable[[], nn.Module], data: Callable[[], Rows], seeds: int = 1):
    """Train with a learning rate that changes no weight visibly, as one stack, and return its records."""
    case = Case(
        model, data, losses, "code", evaluation=data, train={"epochs": 1, "learning_rate": 1e-12, "batch_size": 50}
    )
    members = tuple(StackMember(str(seed), "as it is", {}, seed) for seed in range(seeds))
    return run_stack(StackSpec(case=case, data=None, members=members))


def test_a_channel_is_one_unit_and_a_constant_border_is_no_dead_unit() -> None:
    (record,) = records(Images, images)
    torch.manual_seed(0)
    model, rows = Images(), images().inputs
    code = torch.relu(model.code(rows)).detach()  # [sample, channel, 3, 3]
    assert (record.units, record.live_units) == (CHANNELS, 2)
    units = record.diagnosis["units"]
    assert [unit["verdict"] for unit in units] == ["dead", "alive", "alive"]
    frequency = (code > 0).double().mean((0, 2, 3))
    torch.testing.assert_close(torch.tensor([unit["activation_frequency"] for unit in units]).double(), frequency)
    assert record.diagnosis["rows"] == code[:, 0].numel()
    # by hand, on 256 of the rows: the R2 lost when a channel has its mean at every position
    index = torch.linspace(0, 499, 256).long()
    code, rows = code[index], rows[index]
    spread = (rows - rows.mean(0)).square().sum()
    for channel, unit in enumerate(units):
        changed = code.clone()
        changed[:, channel] = code[:, channel].mean(0)
        away, error = ((model.back(values) - rows).double().square().sum() for values in (changed, code))
        assert unit["ablation"] == pytest.approx(((away - error) / spread).item(), rel=1e-3)


def test_the_history_of_a_channel_is_that_of_one_unit() -> None:
    (record,) = records(Images, images)
    frequency, live = record.unit_history["activation_frequency"], record.unit_history["live"]
    index = torch.linspace(0, 499, 256).long()
    torch.manual_seed(0)
    expected = (torch.relu(Images().code(images().inputs[index])) > 0).double().mean((0, 2, 3))
    assert len(frequency[-1]) == CHANNELS
    torch.testing.assert_close(torch.tensor(frequency[-1]).double(), expected)
    assert [bool(value) for value in live[-1]] == [False, True, True]
    assert record.died_at == [0, None, None]


def test_a_feature_of_tokens_that_follows_the_position_is_not_live() -> None:
    (record,) = records(Tokens, tokens)
    assert (record.units, record.live_units, record.diagnosis["rows"]) == (CHANNELS, 2, 2500)
    assert "input_independent" in record.diagnosis["units"][0]["flags"]
    assert [bool(value) for value in record.unit_history["live"][-1]] == [False, True, True]


@pytest.mark.parametrize(("model", "data"), [(Images, images), (Tokens, tokens)])
def test_a_member_of_a_stack_has_the_record_that_it_has_alone(model, data) -> None:
    stacked, alone = records(model, data, seeds=3)[0], records(model, data)[0]
    assert stacked.diagnosis == alone.diagnosis
    assert stacked.unit_history == alone.unit_history


class Code(nn.Module):
    """A model that runs an encoder, then a code."""

    def __init__(self, encoder: nn.Module, code: nn.Module) -> None:
        super().__init__()
        self.encoder, self.code = encoder, code

    def forward(self, rows: Tensor) -> Tensor:
        output = self.code(self.encoder(rows))
        return output[0] if isinstance(output, tuple) else output


class Categories(nn.Module):
    """Two variables of four categories each, put together from a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 8)

    def forward(self, rows: Tensor) -> Tensor:
        return self.linear(rows).view(-1, 2, 4).softmax(-1)


class Patches(nn.Module):
    """A token of its own, and tokens of patches that a convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.patch, self.mix = (
            nn.Parameter(torch.zeros(1, 1, 12)),
            nn.Conv2d(1, 12, 3, 3),
            nn.Linear(12, 12),
        )

    def forward(self, rows: Tensor) -> Tensor:
        tokens = self.patch(rows).flatten(2).mT
        return self.mix(torch.cat([self.first.expand(len(rows), -1, -1), tokens], 1))


@pytest.mark.parametrize(
    ("encoder", "code", "shape", "form"),
    [
        (nn.Identity(), nn.Conv2d(1, 3, 3), (4, 1, 6, 6), CodeForm(3, 16, units_first=True)),
        (nn.Conv2d(1, 3, 3), nn.ReLU(), (4, 1, 6, 6), CodeForm(3, 16, units_first=True)),
        (nn.Conv2d(1, 3, 3), nn.AvgPool2d(2), (4, 1, 6, 6), CodeForm(3, 4, units_first=True)),
        (nn.Identity(), nn.Conv1d(2, 3, 1), (4, 2, 5), CodeForm(3, 5, units_first=True)),
        (nn.Identity(), nn.Linear(6, 3), (4, 5, 6), CodeForm(3, 5)),
        (nn.Identity(), nn.GRU(6, 3, batch_first=True), (4, 5, 6), CodeForm(3, 5)),
        (nn.Identity(), nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), (4, 5, 6), CodeForm(6, 5)),
        (nn.Conv2d(1, 3, 3), nn.Flatten(), (4, 1, 6, 6), CodeForm(48)),
        (nn.Linear(6, 8), nn.Unflatten(1, (2, 4)), (4, 6), CodeForm(8)),
        (nn.Identity(), Categories(), (4, 6), CodeForm(8)),
        (nn.Identity(), nn.Linear(6, 3), (4, 6), CodeForm(3)),
        (nn.Conv2d(1, 6, 1), nn.PReLU(6), (4, 1, 6, 6), CodeForm(6, 36, units_first=True)),
        (nn.Conv2d(1, 6, 1), nn.LayerNorm([6, 5]), (4, 1, 6, 5), CodeForm(6, 30, units_first=True)),
        (nn.Identity(), Patches(), (4, 1, 6, 6), CodeForm(12, 5)),
    ],
)
def test_numbers_are_one_unit_where_one_layer_made_them_with_the_same_weights(encoder, code, shape, form) -> None:
    model = Code(encoder, code)
    model.train()
    with layer_before_code(model, "code") as layer:
        values = model(torch.zeros(shape))
    assert layer.form(values) == form


def test_an_output_has_no_layer_before_it() -> None:
    model = Code(nn.Identity(), nn.Conv2d(1, 3, 3))
    with layer_before_code(model, "out:0") as layer:
        values = model(torch.zeros(4, 1, 6, 6))
    assert layer.form(values) == CodeForm(48)
    assert not model.code._forward_hooks


def test_rows_and_numbers_of_a_form_are_those_of_a_plain_loop() -> None:
    code = torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    channels, features = CodeForm(3, 10, units_first=True), CodeForm(5, 6)
    flat = code.flatten(1)
    by_channel = torch.stack([code[i, :, j, k] for i in range(4) for j in range(2) for k in range(5)])
    by_feature = torch.stack([code[i, j, k] for i in range(4) for j in range(3) for k in range(2)])
    assert torch.equal(channels.rows(flat), by_channel)
    assert torch.equal(features.rows(flat), by_feature)
    for form, rows in ((channels, by_channel), (features, by_feature)):
        numbers = form.spread_units(rows[0])
        assert torch.equal(form.rows(numbers[None])[3], rows[0])
        assert form.all_positions(numbers > 0).tolist() == (rows[0] > 0).tolist()
