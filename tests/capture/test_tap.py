"""The activation in use is read from models that were not written for it."""

import gc
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._pytree import tree_leaves

from harness import Case, diagnose
from harness.capture import BottleneckTap, Edit, eval_mode, observe
from harness.capture.outputs import first_tensor, with_first_tensor
from harness.data import split_of
from harness.errors import HarnessError
from harness.training.program import clamp_units
from harness.training.sequential import SequentialEngine


class Model(nn.Module):
    """Its activation is whatever it is given."""

    def __init__(self, activation):
        super().__init__()
        self.encoder, self.code, self.decoder = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(3, 6)
        self.activation = activation

    def forward(self, rows):
        code = self.activation(self.code(F.relu(self.encoder(rows))))
        return code, self.decoder(code)


def two_largest(values, activation=F.relu, in_place=False):
    """A top-k code, as sparse autoencoders have it."""
    chosen, places = values.topk(2, dim=-1)
    zeros = torch.zeros_like(values)
    return (zeros.scatter_ if in_place else zeros.scatter)(-1, places, activation(chosen))


WAYS = {
    "F.relu": (F.relu, "relu"),
    "torch.relu": (torch.relu, "relu"),
    "Tensor.relu": (lambda x: x.relu(), "relu"),
    "nn.ReLU": (nn.ReLU(), "relu"),
    "in place": (nn.ReLU(inplace=True), "relu"),
    "relu_": (lambda x: x.relu_(), "relu"),
    "clamp": (lambda x: x.clamp(min=0), "relu"),
    "clamp_": (lambda x: x.clamp_(0), "relu"),
    "clamp_min": (lambda x: torch.clamp_min(x, 0), "relu"),
    "leaky": (nn.LeakyReLU(), "leaky_relu"),
    "elu": (F.elu, "elu"),
    "gelu": (nn.GELU(), "gelu"),
    "silu": (nn.SiLU(), "silu"),
    "softplus": (nn.Softplus(), "softplus"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "tanh": (nn.Tanh(), "tanh"),
    "nothing": (lambda x: x, "none"),
    "normalised": (nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.ReLU()), "relu"),
    "reshaped": (lambda x: torch.sigmoid(x.view(-1, 3, 1).transpose(1, 2)).squeeze(1), "sigmoid"),
    "an axis more": (lambda x: F.relu(x[:, None]).squeeze(1), "relu"),
    "all of it": (lambda x: F.relu(x[:]), "relu"),
    "view_as": (lambda x: F.relu(x.view_as(x)), "relu"),
    "expanded": (lambda x: F.relu(x.expand(-1, 3)), "relu"),
    "without NaN": (lambda x: F.relu(x.nan_to_num()), "relu"),
    "selected": (lambda x: F.relu(x[:, None].select(1, 0)), "relu"),
    "units in another order": (lambda x: F.relu(x[:, [2, 0, 1]])[:, [1, 2, 0]], "relu"),
    "in parts": (lambda x: torch.cat([F.relu(each) for each in x.chunk(3, 1)], 1), "relu"),
    "shifted": (lambda x: F.relu(x + torch.tensor([0.5, -1.0, 0.0])), "relu"),
    "shifted from": (lambda x: F.relu(1 - x), "relu"),
    "shifted in place": (lambda x: F.relu(x.clone().add_(torch.ones(1, 3))), "relu"),
    "scaled": (lambda x: torch.tanh(torch.tensor([0.5, -1.0, 2.0]) * x / 3), "tanh"),
    "by the batch": (lambda x: F.relu((x - x.mean(0)) / (x.std(0) + 1)), "relu"),
    "clamp at a tensor": (lambda x: x.clamp(min=torch.tensor(0.0)), "relu"),
    "maximum": (lambda x: torch.maximum(x, torch.zeros_like(x)), "relu"),
    "maximum of zero": (lambda x: torch.max(torch.zeros(3).to(x), x), "relu"),
    "where": (lambda x: torch.where(x > 0, x, 0.0), "relu"),
    "where of it": (lambda x: x.where(x >= 0, torch.tensor(0.0)), "relu"),
    "where not": (lambda x: torch.where(x <= 0, torch.zeros_like(x), x), "relu"),
    "where to a product": (lambda x: torch.where(x > 0, x, 0 * x), "relu"),
    "times where": (lambda x: x * (x > 0), "relu"),
    "times where as floats": (lambda x: (x > 0).to(x.dtype).mul(x), "relu"),
    "times where above": (lambda x: x * (x > 0.3).float(), "relu"),
    "times where above what is learned": (lambda x: x * (x > torch.tensor([0.1, 0.2, 0.3])).type_as(x), "relu"),
    "filled where below": (lambda x: x.masked_fill(x < 0, 0.0), "relu"),
    "times its sigmoid": (lambda x: x * torch.sigmoid(x), "silu"),
    "its sigmoid times it, scaled": (lambda x: torch.sigmoid(1.702 * x).mul(x), "silu"),
    "Mish by hand": (lambda x: x * torch.tanh(F.softplus(x)), "silu"),
    "normalised, times its sigmoid": (lambda x: (lambda n: n * n.sigmoid())((x - x.mean(0)) / 2), "silu"),
    "the two largest": (two_largest, "relu"),
    "the two largest, in place": (lambda x: two_largest(x, torch.sigmoid, in_place=True), "sigmoid"),
    "the two largest as they are": (lambda x: two_largest(x, lambda chosen: chosen), "none"),
    "ReLU6": (nn.ReLU6(), "relu"),
    "hardtanh": (nn.Hardtanh(), "tanh"),
    "another clamp": (lambda x: x.clamp(min=-1), "none"),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_activation_in_use_is_found(way):
    function, name = WAYS[way]
    torch.manual_seed(0)
    model, rows = Model(function).eval(), torch.randn(9, 6)
    with torch.no_grad():
        seen, wanted = observe(model, rows, "code"), model(rows)[0]
        raw = model.code(F.relu(model.encoder(rows)))
    assert seen.activation == name
    if way not in ("relu_", "in place", "clamp_", "units in another order"):
        torch.testing.assert_close(seen.raw, raw)
    if way not in (
        "another clamp",
        "units in another order",
    ):  # what enters the decoder there is a clamp that is no activation of the table
        torch.testing.assert_close(seen.code, wanted)
    torch.testing.assert_close(seen.reconstruction, model(rows)[1])


def added_in_place(values):
    values = values.clone()
    values += values.flip(1)
    return F.relu(values)


def filled(values):
    room = torch.zeros_like(values)
    room[:] = 1.0
    return torch.maximum(values, room)


OTHERS = {
    "a residual sum": lambda x: F.relu(x + x.sin()),
    "a residual sum in place": added_in_place,
    "scaled by each sample's own number": lambda x: F.relu(x * x.norm(dim=1, keepdim=True)),
    "one by it": lambda x: F.relu(1 / (x + 9)),
    "other rows": lambda x: F.relu(x[torch.arange(8, -1, -1)]),
    "some rows": lambda x: F.relu(x[:9:1]),
    "some rows of all": lambda x: F.relu(x[..., :9, :]),
    "cut by rows": lambda x: torch.cat([F.relu(each) for each in x.chunk(3)]),
    "Hardswish": nn.Hardswish(),
    "the larger of two": lambda x: torch.maximum(x, -x),
    "the larger of it and what was zero": filled,
    "the largest row": lambda x: x - torch.max(x, 0)[0],
    "where another is positive": lambda x: torch.where(-x > 0, x, 0.0),
    "times where another is": lambda x: x * (x.flip(1) > 0),
    "times where it is not": lambda x: x * (x < 0),
    "times where above a number below zero": lambda x: x * (x > -0.1),
    "filled where above": lambda x: x.masked_fill(x > 0, 0.0),
    "filled where below with another": lambda x: x.masked_fill(x < 0, 1.0),
    "a gate of one half": lambda x: x[:, :1] * torch.sigmoid(x[:, 1:2]) * torch.ones(3),
}


@pytest.mark.parametrize("way", OTHERS)
def test_what_is_no_activation_of_the_output_is_not_taken_for_one(way):
    torch.manual_seed(0)
    model, rows = Model(OTHERS[way]).eval(), torch.randn(9, 6)
    with torch.no_grad():
        seen, raw = observe(model, rows, "code"), model.code(F.relu(model.encoder(rows)))
    assert seen.activation == "none"
    assert seen.code.shape == raw.shape
    torch.testing.assert_close(seen.raw, raw)


class Halves(nn.Module):
    """A layer of which one half is read, as a VAE's encoder is."""

    def __init__(self, way):
        super().__init__()
        self.layer, self.decoder, self.way = nn.Linear(12, 8), nn.Linear(4, 12), way
        nn.init.constant_(self.layer.bias[:4], -100.0)

    def forward(self, rows):
        return self.decoder(self.way(self.layer(rows)))


def sampled(values):
    mean, spread = values.chunk(2, dim=1)
    return mean + F.softplus(spread) * torch.randn_like(mean)


def rectified_mean(values):
    F.softplus(values.split(4, dim=-1)[1])
    return F.relu(values[:, :4], inplace=True)


PARTS = {
    "a slice": (lambda x: F.relu(x[:, :4]), "relu", 4),
    "the first of an axis": (lambda x: F.relu(x.view(-1, 2, 4)[:, 0]), "relu", 4),
    "normalised": (lambda x: F.dropout(F.relu(F.layer_norm(x, (8,)).narrow(1, 0, 4)), training=False), "relu", 4),
    "the mean's own activation": (rectified_mean, "relu", 4),
    "no activation": (lambda x: x[:, :4], "none", 4),
    "one activation in two": (lambda x: x[:, :4] * torch.sigmoid(x[:, 4:]), "none", 8),
    "drawn": (sampled, "none", 8),
}


@pytest.mark.parametrize("way", PARTS)
def test_of_a_layer_read_in_part_the_part_is_judged_that_the_next_layer_reads(way):
    function, name, units = PARTS[way]
    torch.manual_seed(0)
    model, rows = Halves(function).eval(), torch.randn(9, 12)
    with torch.no_grad():
        seen, layer = observe(model, rows, "layer"), model.layer(rows)
        read = function(layer.clone())
    assert seen.activation == name
    assert seen.code.shape == (9, units)
    torch.testing.assert_close(seen.code, read if units == 4 else layer)
    torch.testing.assert_close(seen.raw, layer[:, :units]) if way != "the mean's own activation" else None
    stacked = torch.func.vmap(lambda each: observe(model, each, "layer").code, randomness="same")(rows[None])
    torch.testing.assert_close(stacked[0], seen.code)


def test_a_dead_layer_is_found_dead_through_a_slice():
    case = Case(
        model=lambda: Halves(lambda values: F.relu(values[:, None, :4]).squeeze(1)),
        data=lambda: torch.randn(100, 12, generator=torch.Generator().manual_seed(0)),
        losses=lambda model, batch: {"reconstruction": F.mse_loss(model(batch), batch)},
        bottleneck="layer",
    )
    rows = split_of(case).evaluation.inputs
    seen = SequentialEngine([case], [0], split_of(case).train.inputs).observe(rows)
    judged = diagnose(seen.code, activation=seen.activation, members=True, scale=seen.scale, normalised=seen.raw)
    assert judged[0].verdict == "full_collapse"


@pytest.mark.parametrize(
    "way",
    [
        *("F.relu", "where", "where of it", "where not", "maximum", "maximum of zero", "clamp at a tensor"),
        *("times where", "times where as floats", "filled where below"),
    ],
)
def test_what_enters_and_what_takes_the_place_of_an_activation_can_be_changed(way):
    model, rows = Model(WAYS[way][0]), torch.randn(9, 6)
    raw = model.code(F.relu(model.encoder(rows)))
    seen = observe(model, rows, "code", edits={1: Edit(before=torch.neg)})
    torch.testing.assert_close(seen.code, F.relu(-raw))
    torch.testing.assert_close(observe(model, rows, "code", edits={1: Edit(activation="elu")}).code, F.elu(raw))


@pytest.mark.parametrize("way", ["normalised", "in parts", "an axis more", "the two largest"])
def test_a_code_can_be_replaced_behind_whatever_it_went_through(way):
    model, rows = Model(WAYS[way][0]).eval(), torch.randn(9, 6)
    with BottleneckTap(model, "code", replace=lambda code: code * 0 + 2.0):
        made = model(rows)[1]
    torch.testing.assert_close(made, model.decoder(torch.full((9, 3), 2.0)))


@pytest.mark.parametrize(("way", "whole"), [("times its sigmoid", F.silu), ("Mish by hand", F.mish)])
def test_a_gate_is_replaced_as_a_whole_and_not_its_factor(way, whole):
    model, rows = Model(WAYS[way][0]).eval(), torch.randn(9, 6)
    code = whole(model.code(F.relu(model.encoder(rows))))
    numbers = torch.tensor([torch.nan, 0.3, torch.nan])
    with BottleneckTap(model, "code", replace=lambda each: clamp_units(each, numbers)) as tap:
        made = model(rows)[1]
    torch.testing.assert_close(made, model.decoder(clamp_units(code, numbers)))
    assert [each.is_code for each in tap.passes[0].activations] == [False] * (len(tap.passes[0].activations) - 1) + [
        True
    ]


def test_what_takes_the_place_of_a_gate_takes_that_of_the_product():
    model, rows = Model(WAYS["times its sigmoid"][0]), torch.randn(9, 6)
    raw = model.code(F.relu(model.encoder(rows)))
    torch.testing.assert_close(observe(model, rows, "code", edits={2: Edit(activation="relu")}).code, F.relu(raw))
    ends = nn.Sequential(model.code, Own())
    torch.testing.assert_close(
        observe(nn.Sequential(model.encoder, ends), rows, "1").preactivation, model.code(model.encoder(rows))
    )


def test_the_raw_output_is_laid_out_as_the_code_and_not_normalised():
    model, rows = Model(lambda x: F.relu(F.layer_norm(x, (3,)).t().contiguous().view(3, 9)).t()), torch.randn(9, 6)
    with BottleneckTap(model, "code") as tap:
        model(rows)
    torch.testing.assert_close(tap.passes[0].raw, model.code(F.relu(model.encoder(rows))).t())


@pytest.mark.parametrize("way", ["F.relu", "in place", "sigmoid", "nothing"])
def test_an_output_can_be_the_bottleneck(way):
    function, name = WAYS[way]
    seen = observe(Model(function), torch.randn(9, 6), "out:0")
    assert seen.activation == name
    assert seen.code.shape == (9, 3)


def test_a_module_that_ends_in_its_activation_is_judged_by_it():
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 3), nn.ReLU()), nn.Linear(3, 6))
    rows = torch.randn(9, 6)
    seen = observe(model, rows, "0")
    assert seen.activation == "relu"
    torch.testing.assert_close(seen.preactivation, model[0][0](rows))
    assert observe(model, rows, "0.1").activation == "relu"


@pytest.mark.parametrize("first", [True, False])
def test_of_a_top_k_code_a_unit_that_is_never_chosen_is_dead(first):
    class TopK(nn.Module):
        def forward(self, values):
            if not first:
                return two_largest(values)
            fires = F.relu(values)
            places = fires.topk(2).indices
            return torch.zeros_like(fires).scatter(1, places, torch.gather(fires, 1, places))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), TopK(), nn.Linear(5, 6))
    with torch.no_grad():
        model[0].bias[:] = torch.tensor([5.0, 5.0, 5.0, 0.0, 5.0])
        model[0].weight[3] *= 1e-3  # fires on some rows, and is never among the two largest
    rows = torch.randn(400, 6)
    with torch.no_grad():
        assert (model[0](rows)[:, 3] > 0).any()
        seen = observe(model, rows, "1")
    assert seen.activation == "relu"
    judged = diagnose(seen.code, activation=seen.activation)
    assert [unit.index for unit in judged.units if unit.verdict == "dead"] == [3]
    torch.testing.assert_close(seen.preactivation > 0, seen.code > 0)


def test_a_convolution_gives_one_unit_a_number():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 16))
    assert observe(model, torch.randn(5, 1, 4, 4), "0").code.shape == (5, 8)


def test_the_code_can_be_replaced_for_the_rest_of_the_model():
    model, rows = Model(F.relu), torch.randn(9, 6)
    with BottleneckTap(model, "code", replace=lambda code: code * 0 + 2.0) as tap:
        code, made = model(rows)
    torch.testing.assert_close(made, model.decoder(torch.full((9, 3), 2.0)))
    assert bool((tap.passes[0].code == 2).all())
    torch.testing.assert_close(code, torch.full((9, 3), 2.0))


class Own(nn.Module):
    """A SiLU of one's own."""

    def forward(self, values):
        return values * values.sigmoid()


class Gated(nn.Module):
    """Its inputs pass a sigmoid gate; nothing follows its bottleneck but a linear layer."""

    def __init__(self):
        super().__init__()
        self.gate, self.encoder, self.decoder = nn.Linear(12, 12), nn.Linear(12, 4), nn.Linear(4, 12)

    def forward(self, rows):
        rows = rows * torch.sigmoid(self.gate(rows)).view(-1, 1, 12).squeeze(1)
        # objects come and go between any two lines of a stranger's model, and new tensors take the places of old ones
        return self.decoder(self.encoder(rows)), [torch.empty(3) for _ in range(5)]


class Folded(nn.Module):
    """A ReLU, folded and unfolded, then a linear layer and a normalisation before the bottleneck."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(12, 12), nn.Linear(12, 12), nn.LayerNorm(12)
        self.encoder, self.decoder = nn.Linear(12, 4), nn.Linear(4, 12)

    def forward(self, rows):
        rows = F.relu(self.first(rows)).unflatten(1, (3, 4)).flatten(1)
        return self.decoder(self.encoder(self.norm(self.second(rows))))


@pytest.mark.parametrize("build", [Gated, Folded])
@pytest.mark.parametrize("stacked", [False, True])
def test_a_tensor_that_takes_the_place_of_another_in_memory_is_not_taken_for_it(build, stacked):
    torch.manual_seed(0)
    model, rows, found = build(), torch.randn(8, 12), set()
    for _ in range(40):
        gc.collect(0)
        with torch.no_grad(), BottleneckTap(model, "encoder") as tap:
            torch.func.vmap(lambda each: model(each)[0])(rows[None]) if stacked else model(rows)
        found |= {(tap.passes[0].activation, *(each.is_code for each in tap.passes[0].activations))}
    assert found == {("none", False)}


def test_what_a_pass_went_through_is_not_kept_beyond_it():
    """The input of the bottleneck is seen by no one but the watch; so is what a pass that breaks off left behind."""
    model, kept = Folded(), []
    model.second.register_forward_pre_hook(lambda _, args: kept.append(weakref.ref(args[0])))
    with torch.no_grad(), BottleneckTap(model, "encoder") as tap:
        model(torch.randn(8, 12))
        assert kept[0]() is None
    tap = BottleneckTap(model, "encoder")
    model.second.register_forward_hook(lambda *_: 1 / 0)
    with torch.no_grad(), pytest.raises(ZeroDivisionError), tap:
        model(torch.randn(8, 12))
    assert kept[1]() is None


def test_watching_changes_nothing():
    model, rows = Model(nn.ReLU(inplace=True)).train(), torch.randn(9, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with eval_mode(model):
        observe(model, rows, "code")
        assert not model.training
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model._forward_hooks
    assert not model.code._forward_hooks


@pytest.mark.parametrize(
    "way",
    ["F.relu", "an axis more", "in parts", "shifted", "where", "maximum of zero", "times where", "the two largest"],
)
def test_it_sees_the_same_under_vmap(way):
    model, rows = Model(WAYS[way][0]), torch.randn(4, 9, 6)
    codes = torch.func.vmap(lambda each: observe(model, each, "code").code)(rows)
    torch.testing.assert_close(codes, torch.stack([model(each)[0] for each in rows]))


@pytest.mark.parametrize(
    ("bottleneck", "message"),
    [
        ("cod", "did you mean 'code'"),
        ("out:7", "the model has 2 outputs"),
        ("unused", "never calls it"),
    ],
)
def test_a_bottleneck_that_is_not_there_is_named(bottleneck, message):
    model = Model(F.relu)
    model.unused = nn.Linear(2, 2)
    with pytest.raises(HarnessError, match=message):
        observe(model, torch.randn(9, 6), bottleneck)


class Packed(nn.Module):
    """A recurrent layer that is given packed or padded sequences."""

    def __init__(self, packs):
        super().__init__()
        self.recurrent, self.head, self.packs = nn.GRU(6, 3, batch_first=True), nn.Linear(3, 6), packs

    def forward(self, rows):
        lengths = torch.arange(len(rows)) % 4 + 1
        packed = nn.utils.rnn.pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
        states = self.recurrent(packed if self.packs else rows)[0]
        return self.head(states.data if self.packs else states)


def test_a_packed_sequence_is_no_bottleneck_and_the_same_layer_on_a_padded_tensor_is_one():
    rows = torch.randn(9, 4, 6)
    assert observe(Packed(packs=False), rows, "recurrent").code.shape == (9, 12)
    with pytest.raises(HarnessError, match="'recurrent': expected one row per sample, got a packed sequence"):
        observe(Packed(packs=True), rows, "recurrent")


@pytest.mark.parametrize("alone", [True, False])
def test_the_data_of_a_packed_sequence_is_replaced_where_it_stands(alone):
    packed = nn.utils.rnn.pack_sequence([torch.zeros(1, 2), torch.zeros(3, 2)], enforce_sorted=False)
    output = with_first_tensor(packed if alone else (packed, torch.ones(1)), torch.ones(4, 2))
    replaced = output if alone else output[0]
    assert first_tensor(output) is replaced.data
    assert torch.equal(replaced.data, torch.ones(4, 2))
    assert torch.equal(replaced.sorted_indices, packed.sorted_indices)


class Named(NamedTuple):
    name: str
    code: torch.Tensor


@dataclass
class Held:
    name: str
    code: torch.Tensor


@pytest.mark.parametrize(
    ("hand_on", "read"),
    [
        (lambda code: ("enc", code), lambda given: given[1]),
        (lambda code: ["enc", code], lambda given: given[1]),
        (lambda code: {"name": "enc", "code": code}, lambda given: given["code"]),
        (lambda code: Named("enc", code), lambda given: given.code),
        (lambda code: Held("enc", code), lambda given: given.code),
    ],
    ids=["tuple", "list", "dict", "named tuple", "dataclass"],
)
def test_a_module_that_hands_on_more_than_its_code_is_given_it_back_whole(hand_on, read):
    class Layer(nn.Linear):
        def forward(self, rows):
            return hand_on(F.relu(super().forward(rows)))

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.decoder = Layer(6, 3), nn.Linear(3, 6)

        def forward(self, rows):
            return self.decoder(read(self.code(rows)))

    model, rows = Whole(), torch.randn(9, 6)
    with BottleneckTap(model, "code", replace=lambda code: code * 0 + 2.0):
        made = model(rows)
    torch.testing.assert_close(made, model.decoder(torch.full((9, 3), 2.0)))
    torch.testing.assert_close(observe(model, rows, "code").code, read(model.code(rows)))


def test_an_output_that_is_no_tensor_is_named_as_what_it_is():
    class Nested(Model):
        def forward(self, rows):
            code, made = super().forward(rows)
            return made, (code, made)

    with pytest.raises(HarnessError, match="'out:1': expected a tensor, got a tuple"):
        observe(Nested(F.relu), torch.randn(9, 6), "out:1")


class LogitsBeside(nn.Module):
    """Returns what enters its activation beside what leaves it, in one of the forms that models use."""

    def __init__(self, form, inplace=False):
        super().__init__()
        self.enc, self.dec, self.form, self.inplace = nn.Linear(5, 3), nn.Linear(3, 5), form, inplace

    def forward(self, rows):
        logits = self.enc(rows)
        code = F.relu(logits, inplace=True) if self.inplace else torch.sigmoid(logits)
        return self.form(code, self.dec(code), logits)


@dataclass
class Outputs:
    code: torch.Tensor
    made: torch.Tensor
    logits: torch.Tensor


FORMS = {
    "tuple": lambda *parts: parts,
    "list": lambda *parts: list(parts),
    "mapping": lambda *parts: dict(zip(("code", "made", "logits"), parts, strict=True)),
    "nested": lambda code, made, logits: (code, made, {"logits": logits}),
    "dataclass": Outputs,
}


def leaves_of(output):
    return tree_leaves(vars(output) if isinstance(output, Outputs) else output)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_model_that_returns_its_logits_returns_the_edited_ones(form):
    model, rows = LogitsBeside(form), torch.randn(7, 5)
    with BottleneckTap(model, "enc", {0: Edit(before=lambda values: 2 * values)}):
        code, made, logits = leaves_of(model(rows))
    torch.testing.assert_close(logits, 2 * model.enc(rows))
    torch.testing.assert_close(code, torch.sigmoid(logits))
    torch.testing.assert_close(made, model.dec(code))
    plain = leaves_of(model(rows))[2]
    torch.testing.assert_close(plain, model.enc(rows))


def test_what_an_activation_overwrote_is_the_code_and_stays_it():
    model, rows = LogitsBeside(FORMS["tuple"], inplace=True), torch.randn(7, 5)
    with BottleneckTap(model, "enc", {0: Edit(before=lambda values: 2 * values)}):
        code, _, overwritten = model(rows)
    assert torch.equal(overwritten, code)
    torch.testing.assert_close(code, F.relu(2 * model.enc(rows)))
