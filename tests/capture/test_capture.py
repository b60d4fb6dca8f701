"""The activation in use is read from models that were not written for it."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.capture import CodeTap, evaluating, observe
from harness.errors import HarnessError


class Model(nn.Module):
    """Its activation is whatever it is given."""

    def __init__(self, activation):
        super().__init__()
        self.encoder, self.code, self.decoder = nn.Linear(6, 5), nn.Linear(5, 3), nn.Linear(3, 6)
        self.activation = activation

    def forward(self, rows):
        code = self.activation(self.code(F.relu(self.encoder(rows))))
        return code, self.decoder(code)


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
    torch.testing.assert_close(seen.raw, raw) if "relu_" not in way and "place" not in way and way != "clamp_" else None
    if way != "another clamp":  # what enters the decoder there is a clamp that is no activation of the table
        torch.testing.assert_close(seen.code, wanted)
    torch.testing.assert_close(seen.reconstruction, model(rows)[1])


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


def test_a_convolution_gives_one_unit_a_number():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 16))
    assert observe(model, torch.randn(5, 1, 4, 4), "0").code.shape == (5, 8)


def test_the_code_can_be_replaced_for_the_rest_of_the_model():
    model, rows = Model(F.relu), torch.randn(9, 6)
    with CodeTap(model, "code", replace=lambda code: code * 0 + 2.0) as tap:
        code, made = model(rows)
    torch.testing.assert_close(made, model.decoder(torch.full((9, 3), 2.0)))
    assert bool((tap.passes[0].code == 2).all())
    torch.testing.assert_close(code, torch.full((9, 3), 2.0))


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
        with torch.no_grad(), CodeTap(model, "encoder") as tap:
            torch.func.vmap(lambda each: model(each)[0])(rows[None]) if stacked else model(rows)
        found |= {(tap.passes[0].activation, *(each.is_code for each in tap.passes[0].activations))}
    assert found == {("none", False)}


def test_what_a_pass_went_through_is_not_kept_beyond_it():
    """The input of the bottleneck is seen by no one but the watch; so is what a pass that breaks off left behind."""
    model, kept = Folded(), []
    model.second.register_forward_pre_hook(lambda _, args: kept.append(weakref.ref(args[0])))
    with torch.no_grad(), CodeTap(model, "encoder") as tap:
        model(torch.randn(8, 12))
        assert kept[0]() is None
    tap = CodeTap(model, "encoder")
    model.second.register_forward_hook(lambda *_: 1 / 0)
    with torch.no_grad(), pytest.raises(ZeroDivisionError), tap:
        model(torch.randn(8, 12))
    assert kept[1]() is None


def test_watching_changes_nothing():
    model, rows = Model(nn.ReLU(inplace=True)).train(), torch.randn(9, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with evaluating(model):
        observe(model, rows, "code")
        assert not model.training
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model._forward_hooks
    assert not model.code._forward_hooks


def test_it_sees_the_same_under_vmap():
    model, rows = Model(F.relu), torch.randn(4, 9, 6)
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
