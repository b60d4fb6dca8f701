"""The code is what the next parametric layer reads: selections and elementwise maps behind the activation are followed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness import Case, diagnose
from harness.capture import BottleneckTap, observe
from harness.data import split_of
from harness.execution.member_record import judge_members
from harness.training.optimizers import optimizer_spec
from harness.training.program import clamp_units
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine


class Network(nn.Module):
    """Its code is whatever `between` makes of the bottleneck's output."""

    def __init__(self, between):
        super().__init__()
        self.encoder, self.code, self.decoder = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 6)
        self.gate, self.between, self.book = nn.Linear(6, 4), between, nn.Parameter(torch.randn(7, 4))

    def forward(self, rows):
        code = self.between(self, self.code(F.relu(self.encoder(rows))), rows)
        return code, self.decoder(code)


def largest(values):
    return values.topk(2, dim=1)


def scattered(model, values, rows):
    fires = F.relu(values)
    return torch.zeros_like(fires).scatter(1, largest(fires).indices, largest(fires).values)


def scattered_in_place(model, values, rows):
    fires = F.relu(values)
    return torch.zeros_like(fires).scatter_(1, largest(fires).indices, largest(fires).values)


def indexed(model, values, rows):
    fires, code = F.relu(values), torch.zeros_like(values)
    code[torch.arange(len(values))[:, None], largest(fires).indices] = largest(fires).values
    return code


def masked_by_indices(model, values, rows):
    fires = torch.relu(values)
    return fires * torch.zeros_like(fires).scatter_(1, largest(fires).indices, 1.0)


def over_the_batch(model, values, rows):
    fires = F.relu(values).flatten()
    chosen = fires.topk(10)
    return torch.zeros_like(fires).scatter(0, chosen.indices, chosen.values).view_as(values)


def assigned(model, values, rows):
    values = F.relu(values)
    values[values < 0.3] = 0
    return values


def one_unit_silenced(model, values, rows):
    values = F.relu(values)
    values[:, 1] = 0
    return values


def multiplied_in_place(model, values, rows):
    values = F.relu(values)
    values *= values > 0.3
    return values


class Select(nn.Module):
    """A threshold as a module."""

    def __init__(self):
        super().__init__()
        self.register_buffer("threshold", torch.tensor([0.0, 0.1, 9.0, 9.0]))

    def forward(self, values):
        return values * (values > self.threshold)


def quantized(model, values):
    return model.book[torch.cdist(values, model.book).argmin(1)]


def with_matrix_distances(model, values, rows):
    distances = values.square().sum(1, keepdim=True) - 2 * values @ model.book.T + model.book.square().sum(1)
    return values + (F.embedding(distances.argmin(1), model.book) - values).detach()


def rounded(model, values, rows):
    bounded = 2 * torch.tanh(values)
    return bounded + (bounded.round() - bounded).detach()


class Sign(torch.autograd.Function):
    """A straight-through sign."""

    @staticmethod
    def forward(ctx, values):
        return values.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def one_hot(values):
    return F.one_hot(values.argmax(1), 4).float()


ORDERS = (
    ("h + p - d", lambda h, p: h + p - p.detach()),
    ("p + h - d", lambda h, p: p + h - p.detach()),
    ("h - d + p", lambda h, p: h - p.detach() + p),
    ("p + (h - d)", lambda h, p: p + (h - p.detach())),
    ("h + (p - d)", lambda h, p: h + (p - p.detach())),
    ("h - (d - p)", lambda h, p: h - (p.detach() - p)),
    ("p - (d - h)", lambda h, p: p - (p.detach() - h)),
    ("p + (h - p).detach()", lambda h, p: p + (h - p).detach()),
    ("p - (p - h).detach()", lambda h, p: p - (p - h).detach()),
)

SELECTIONS = {
    "top-k": (scattered, "relu"),
    "top-k in place": (scattered_in_place, "relu"),
    "top-k by an index": (indexed, "relu"),
    "top-k by a mask": (masked_by_indices, "relu"),
    "top-k over the batch": (over_the_batch, "relu"),
    "k-th value": (lambda m, x, _: F.relu(x) * (F.relu(x) >= largest(F.relu(x)).values[:, -1:]), "relu"),
    "threshold": (lambda m, x, _: F.threshold(F.relu(x), 0.3, 0), "relu"),
    "threshold by a product": (lambda m, x, _: F.relu(x) * (F.relu(x) > 0.3), "relu"),
    "threshold by a product in place": (multiplied_in_place, "relu"),
    "threshold by assignment": (assigned, "relu"),
    "threshold by where": (lambda m, x, _: (lambda a: torch.where(a > 0.3, a, torch.zeros_like(a)))(x.relu()), "relu"),
    "threshold by a fill": (lambda m, x, _: (lambda a: a.masked_fill(a < 0.3, 0))(F.relu(x)), "relu"),
    "threshold by a fill in place": (lambda m, x, _: (lambda a: a.masked_fill_(a < 0.3, 0))(F.relu(x)), "relu"),
    "modules": (lambda m, x, _: nn.Sequential(nn.ReLU(inplace=True), Select())(x), "relu"),
    "hard shrink": (lambda m, x, _: F.hardshrink(F.relu(x), 0.3), "relu"),
    "a unit silenced": (one_unit_silenced, "relu"),
    "a gate of another layer": (lambda m, x, rows: F.relu(x) * (m.gate(rows) > 0), "relu"),
    "a soft gate": (lambda m, x, rows: F.relu(x) * torch.sigmoid(m.gate(rows)), "relu"),
    "a gate with negative values": (lambda m, x, rows: F.relu(x) * m.gate(rows), "none"),
    "a softmax": (lambda m, x, _: x.softmax(1), "none"),
    "a quantizer": (lambda m, x, _: x + (quantized(m, x) - x).detach(), "none"),
    "a quantizer, subtracted": (lambda m, x, _: x - (x - quantized(m, x)).detach(), "none"),
    "a quantizer, its gradient added": (lambda m, x, _: quantized(m, x) + (x - x.detach()), "none"),
    "a quantizer with matrix distances": (with_matrix_distances, "none"),
    "rounding": (rounded, "none"),
    "one-hot": (lambda m, x, _: one_hot(x), "none"),
    "one-hot by a scatter": (lambda m, x, _: torch.zeros_like(x).scatter_(1, x.argmax(1, keepdim=True), 1.0), "none"),
    "one-hot by an identity": (lambda m, x, _: torch.eye(4)[F.relu(x).max(dim=1).indices], "none"),
    "chosen units": (lambda m, x, _: torch.zeros_like(x).scatter(1, largest(F.relu(x)).indices, 1.0), "none"),
    "a threshold as zeros and ones": (lambda m, x, _: (torch.sigmoid(x) > 0.5).to(x.dtype), "none"),
    **{f"straight-through, {order}": (lambda m, x, _, f=f: f(one_hot(x), x.softmax(1)), "none") for order, f in ORDERS},
    "a straight-through function": (lambda m, x, _: Sign.apply(x), "none"),
}


def network(name):
    torch.manual_seed(0)
    return Network(SELECTIONS[name][0]).eval(), torch.randn(40, 6)


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_code_is_what_the_decoder_reads(name):
    model, rows = network(name)
    with torch.no_grad():
        observation, (code, _) = observe(model, rows, "code", "out:1"), model(rows)
    assert torch.equal(observation.code, code)
    assert observation.activation == SELECTIONS[name][1]
    assert observation.preactivation.shape == observation.raw.shape == code.shape
    torch.testing.assert_close(observation.raw, model.code(F.relu(model.encoder(rows))))


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_unit_is_replaced_in_what_the_decoder_reads_and_nowhere_before(name):
    model, rows = network(name)
    numbers = torch.tensor([torch.nan, 0.7, torch.nan, torch.nan])
    with torch.no_grad():
        code = model(rows)[0]
        with BottleneckTap(model, "code", replace=lambda values: clamp_units(values, numbers)) as tap:
            output = model(rows)[1]
        by_hand = model.decoder(clamp_units(code, numbers))
    assert tap.passes[0].replaced
    torch.testing.assert_close(output, by_hand)


@pytest.mark.parametrize("name", ["top-k", "top-k by a mask", "threshold", "a gate of another layer", "a softmax"])
def test_the_code_is_the_same_below_vmap(name):
    model, _ = network(name)
    rows = torch.randn(3, 8, 6)
    codes = torch.func.vmap(lambda batch: observe(model, batch, "code").code)(rows)
    torch.testing.assert_close(codes, torch.stack([model(batch)[0] for batch in rows]))


ENDS = {
    "noise": (lambda m, x, rows: x + torch.randn_like(x) * (m.gate(rows) / 2).exp(), lambda m, x: x),
    "noise first": (lambda m, x, rows: torch.randn_like(x) * 0.1 + x, lambda m, x: x),
    "a skip": (lambda m, x, rows: F.relu(x) + m.gate(rows), lambda m, x: F.relu(x)),
    "a skip behind a threshold": (
        lambda m, x, rows: Select()(F.relu(x)) + m.gate(rows),
        lambda m, x: Select()(F.relu(x)),
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_sum_with_a_path_of_its_own_ends_the_way_and_the_code_before_it_is_replaced(name):
    between, expected = ENDS[name]
    torch.manual_seed(0)
    model, rows = Network(between).eval(), torch.randn(40, 6)
    with torch.no_grad():
        code = expected(model, model.code(F.relu(model.encoder(rows))))
        assert torch.equal(observe(model, rows, "code").code, code)
        outputs = []
        for numbers in ([torch.nan] * 4, [torch.nan, 5.0, torch.nan, torch.nan]):
            torch.manual_seed(1)
            with BottleneckTap(model, "code", replace=lambda x, n=numbers: clamp_units(x, torch.tensor(n))) as tap:
                outputs.append(model(rows)[1])
            assert tap.passes[0].replaced
    moved = outputs[1] - outputs[0]
    torch.testing.assert_close(moved, (5.0 - code[:, 1:2]) * model.decoder.weight[:, 1])


@pytest.mark.parametrize(
    "map_", [lambda x: F.layer_norm(x, (4,)), torch.tanh, torch.exp, lambda x: x + 1.0, lambda x: F.normalize(x + 0.1)]
)
def test_a_normalization_or_one_to_one_map_behind_the_activation_hides_no_dead_unit(map_):
    torch.manual_seed(0)
    model = Network(lambda m, x, _: map_(F.relu(x))).eval()
    with torch.no_grad():
        model.code.bias[2] = -100.0
        observation = observe(model, torch.randn(400, 6), "code")
    verdicts = [unit.verdict for unit in diagnose(observation.code, activation=observation.activation).units]
    assert verdicts[2] == "dead"


READERS = {
    "a product with a parameter": (lambda: nn.Module(), lambda m, z: z @ m.weight),
    "a recurrent layer": (lambda: nn.LSTM(4, 3, batch_first=True), lambda m, z: m(z[:, None])[0]),
    "a recurrent cell": (lambda: nn.GRUCell(4, 3), lambda m, z: m(z)),
    "an attention layer": (lambda: nn.MultiheadAttention(4, 2, batch_first=True), lambda m, z: m(*[z[:, None]] * 3)[0]),
    "a convolution": (lambda: nn.Conv1d(4, 3, 1), lambda m, z: m(z[:, :, None])),
    "a bilinear layer": (lambda: nn.Bilinear(4, 4, 3), lambda m, z: m(z, torch.ones_like(z))),
}


@pytest.mark.parametrize("name", READERS)
def test_every_kind_of_parametric_layer_reads_the_selected_code(name):
    build, read = READERS[name]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.reader = nn.Linear(6, 4), build()
            self.reader.register_parameter("weight", nn.Parameter(torch.randn(4, 3))) if "product" in name else None

        def forward(self, rows):
            code = F.relu(self.code(rows))
            code = code * (code > 0.3)
            return read(self.reader, code), code

    torch.manual_seed(0)
    model, rows = Model().eval(), torch.randn(40, 6)
    with torch.no_grad():
        assert torch.equal(observe(model, rows, "code").code, model(rows)[1])
        with BottleneckTap(model, "code", replace=lambda code: code * 0 + 2.0):
            output = model(rows)[0]
        torch.testing.assert_close(output, read(model.reader, torch.full((40, 4), 2.0)))


def test_other_readers_of_the_code_see_their_own_values():
    class TwoReaders(Network):
        def forward(self, rows):
            code = self.code(rows[:, :5])
            return self.decoder(code), self.decoder(code.softmax(1))

    torch.manual_seed(0)
    model, rows = TwoReaders(None).eval(), torch.randn(9, 6)
    with torch.no_grad(), BottleneckTap(model, "code", replace=lambda code: code * 0 + 2.0):
        first, second = model(rows)
    torch.testing.assert_close(first, model.decoder(torch.full((9, 4), 2.0)))
    torch.testing.assert_close(second, model.decoder(torch.full((9, 4), 0.25)))


@pytest.mark.parametrize("bottleneck", ["out:0", "code"])
def test_an_output_that_is_the_code_is_replaced_where_it_is_made(bottleneck):
    model, rows = network("threshold")
    with torch.no_grad(), BottleneckTap(model, bottleneck, replace=lambda code: code * 0 + 2.0) as tap:
        output = model(rows)[1]
    assert tap.passes[0].replaced
    torch.testing.assert_close(output, model.decoder(torch.full((40, 4), 2.0)))


class Autoencoder(nn.Module):
    """Half of its units have a threshold that no value reaches; `healthy` lowers it."""

    def __init__(self, healthy=False):
        super().__init__()
        self.enc, self.dec, self.healthy = nn.Linear(8, 6), nn.Linear(6, 8), healthy
        self.register_buffer("threshold", torch.tensor([0.0, 0.0, 0.0] + [0.0 if healthy else 90.0] * 3))

    def forward(self, rows):
        fires = F.relu(self.enc(rows))
        return self.dec(fires * (fires > self.threshold))


def case_of(model):
    return Case(
        model=model,
        data=lambda: torch.randn(2400, 8, generator=torch.Generator().manual_seed(0)),
        losses=lambda model, batch: {"reconstruction": F.mse_loss(model(batch), batch)},
        bottleneck="enc",
    )


@pytest.mark.parametrize("healthy", [False, True])
@pytest.mark.parametrize("stacked", [False, True])
def test_units_that_a_threshold_never_passes_are_dead_and_their_ablation_is_that_of_the_decoder(healthy, stacked):
    case = case_of(lambda: Autoencoder(healthy))
    split = split_of(case)
    if stacked:
        engine = StackedEngine([case] * 2, [0, 1], optimizer_spec(case, case.model()), split.train.inputs)
    else:
        engine = SequentialEngine([case] * 2, [0, 1], split.train.inputs)
    diagnosis = judge_members(engine, [case] * 2, split, "cpu").diagnoses[0]
    verdicts = [str(unit.verdict) for unit in diagnosis.units]
    assert verdicts == ["alive"] * 3 + ["alive" if healthy else "dead"] * 3
    assert all((unit.ablation == 0) == (unit.verdict == "dead") for unit in diagnosis.units)


class WithoutEntrance(Autoencoder):
    """Returns its input as its code: no call makes it, so nothing can be put in its place."""

    def forward(self, rows):
        return rows, super().forward(rows)


@pytest.mark.parametrize(("bottleneck", "available"), [("out:0", False), ("enc", True)])
def test_ablation_that_cannot_be_done_is_not_available_and_never_zero(bottleneck, available):
    case = Case(
        model=WithoutEntrance,
        data=lambda: torch.randn(600, 8, generator=torch.Generator().manual_seed(0)),
        losses=lambda model, batch: {"reconstruction": F.mse_loss(model(batch)[1], batch)},
        bottleneck=bottleneck,
        reconstruction="out:1",
    )
    split = split_of(case)
    engine = SequentialEngine([case], [0], split.train.inputs)
    units = judge_members(engine, [case], split, "cpu").diagnoses[0].units
    assert all((unit.ablation == unit.ablation) == available for unit in units)
    assert available or not any("unused" in unit.flags for unit in units)


class ComputesItAgain(Autoencoder):
    """The decoder reads the same values, computed by another call than that of the layer."""

    def forward(self, rows):
        return self.enc(rows), self.dec(F.linear(rows, self.enc.weight, self.enc.bias))


class ReadsIt(Autoencoder):
    def forward(self, rows):
        code = self.enc(rows)
        return code, self.dec(code)


@pytest.mark.parametrize(("model", "available"), [(ComputesItAgain, False), (ReadsIt, True)])
@pytest.mark.parametrize("stacked", [False, True])
def test_ablation_without_any_effect_of_a_code_that_nothing_reads_is_not_available(model, available, stacked):
    case = Case(
        model=model,
        data=lambda: torch.randn(600, 8, generator=torch.Generator().manual_seed(0)),
        losses=lambda model, batch: {"reconstruction": F.mse_loss(model(batch)[1], batch)},
        bottleneck="enc",
        reconstruction="out:1",
    )
    split = split_of(case)
    rule = (optimizer_spec(case, case.model()),) if stacked else ()
    engine = (StackedEngine if stacked else SequentialEngine)([case] * 2, [0, 1], *rule, split.train.inputs)
    for diagnosis in judge_members(engine, [case] * 2, split).diagnoses:
        assert all((unit.ablation == unit.ablation) == available for unit in diagnosis.units)
        assert diagnosis.verdict != "unused"
        assert not any("unused" in unit.flags for unit in diagnosis.units)
