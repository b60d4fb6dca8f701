"""Remedies do what their names say, on models that were not written for them."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.capture import observe
from harness.case import Case, load_case
from harness.data import split_of
from harness.data.rows import Rows
from harness.errors import HarnessError
from harness.factors import check_level
from harness.remedies import apply_remedies, matched_beta, why_not_applicable
from harness.remedies.layout import build_model

TABLE = Path(__file__).parents[2] / "experiments" / "benchmarks" / "remedy_table.py"


def outputs(case, levels, split, rows=None, train=False):
    """The posted network under some levels, seed 0: (code, reconstruction) on held-out rows."""
    treated = apply_remedies(case, levels, split)
    model = build_model(treated, 0, split.train.inputs[:4]).train(train)
    with torch.no_grad():
        return model(split.evaluation.inputs if rows is None else rows)


def by_hand(model, rows, encoder=F.relu, code=F.relu, output=F.relu):
    hidden = encoder(model.enc2(encoder(model.enc1(rows))))
    found = code(model.enc3(hidden))
    return found, output(model.dec3(F.relu(model.dec2(F.relu(model.dec1(found))))))


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [
        ({}, {}),
        ({"activation": "leaky_relu"}, {"encoder": F.leaky_relu, "code": F.leaky_relu}),
        ({"activation": "tanh"}, {"encoder": torch.tanh, "code": torch.tanh}),
        ({"output_activation": "linear"}, {"output": lambda values: values}),
        ({"output_activation": "sigmoid"}, {"output": torch.sigmoid}),
        ({"penalty": "kl_sigmoid_bottleneck"}, {"code": torch.sigmoid}),
        ({"penalty": "none_sigmoid_bottleneck", "activation": "elu"}, {"encoder": F.elu, "code": torch.sigmoid}),
        (
            {"penalty": "topk"},
            {"code": lambda values: F.relu(values) * (F.relu(values) >= F.relu(values).max(1, True).values)},
        ),
    ],
)
def test_the_forward_pass_equals_the_one_written_by_hand(forum, split, levels, wanted):
    model = build_model(forum, 0, split.train.inputs[:4])
    with torch.no_grad():
        hand = by_hand(model, split.evaluation.inputs, **wanted)
    for found, expected in zip(outputs(forum, levels, split), hand, strict=True):
        torch.testing.assert_close(found, expected)


def test_zero_bias_leaves_the_weights_alone(forum, split):
    plain = build_model(forum, 2, split.train.inputs[:4]).state_dict()
    zeroed = build_model(apply_remedies(forum, {"bias_init": "zero"}, split), 2, split.train.inputs[:4]).state_dict()
    for name, value in plain.items():
        wanted = torch.zeros_like(value) if name.endswith("bias") else value
        assert torch.equal(zeroed[name], wanted)


def test_batchnorm_normalises_what_enters_the_activation(forum, split):
    treated = apply_remedies(forum, {"batchnorm": "on"}, split)
    model = build_model(treated, 0, split.train.inputs[:4]).train()
    seen = observe(model, split.train.inputs, treated.bottleneck)
    # batch statistics: mean 0, variance 1 up to the normalisation's own epsilon
    torch.testing.assert_close(seen.preactivation.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    raw = seen.raw
    wanted = (raw - raw.mean(0)) / (raw.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(seen.preactivation, wanted, atol=1e-4, rtol=1e-4)


def test_dropout_acts_after_the_hidden_activations_and_never_on_the_code(forum, split):
    treated = apply_remedies(forum, {"dropout": 0.5}, split)
    model = build_model(treated, 0, split.train.inputs[:4])
    seen = []
    model.model.enc2.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    model.model.dec1.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    torch.manual_seed(0)
    model.train()(split.train.inputs)
    hidden = F.relu(model.model.enc1(split.train.inputs))
    dropped, code = seen
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], (2 * hidden)[kept])
    share = float((dropped == 0)[hidden > 0].float().mean())
    assert abs(share - 0.5) < 0.03  # 3 standard errors of about 4,000 draws
    assert bool(((code > 0) | (code == F.relu(code))).all())


@pytest.mark.parametrize(
    ("site", "values"),
    [
        ("kl_sigmoid_of_relu", lambda a: torch.sigmoid(F.relu(a))),
        ("kl_sigmoid_of_preactivation", torch.sigmoid),
        ("kl_sigmoid_bottleneck", torch.sigmoid),
    ],
)
def test_a_penalty_site_is_the_divergence_torch_computes(forum, split, site, values):
    treated = apply_remedies(forum, {"penalty": site}, split)
    model = build_model(treated, 0, split.train.inputs[:4])
    batch = split.train.inputs[:32]
    found = treated.losses(model, batch, rho=torch.tensor(0.05))["kl"]
    inner = model.model
    rho_hat = values(inner.enc3(F.relu(inner.enc2(F.relu(inner.enc1(batch)))))).mean(0)
    rho = torch.distributions.Bernoulli(torch.full_like(rho_hat, 0.05))
    wanted = torch.distributions.kl_divergence(rho, torch.distributions.Bernoulli(rho_hat)).sum()
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("site", ["kl_sigmoid_of_relu", "kl_sigmoid_of_preactivation", "kl_sigmoid_bottleneck"])
@pytest.mark.parametrize("batchnorm", ["off", "on"])
def test_a_penalty_site_reads_what_enters_the_sigmoid_and_is_finite_far_out(forum, split, site, batchnorm):
    treated = apply_remedies(forum, {"penalty": site, "batchnorm": batchnorm}, split)
    model = build_model(treated, 0, split.train.inputs[:4]).train()
    with torch.no_grad():
        model.model.enc3.bias.fill_(30.0)  # a float32 sigmoid is 1 there
    found = treated.losses(model, split.train.inputs[:32], rho=torch.tensor(0.05))["kl"]
    seen = observe(model, split.train.inputs[:32], treated.bottleneck)
    logits = (seen.code if site == "kl_sigmoid_of_relu" else seen.preactivation).double()
    assert bool((logits.mean(0) > 25).all()) == (batchnorm == "off")
    # in float64 the naive form is accurate up to 36
    means = torch.sigmoid(logits).mean(0)
    wanted = (0.05 * torch.log(0.05 / means) + 0.95 * torch.log(0.95 / (1 - means))).sum()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    assert site != "kl_sigmoid_bottleneck" or seen.activation == "sigmoid"


@pytest.mark.parametrize("name", ["corrected", "corrected_20"])
@pytest.mark.parametrize("batchnorm", ["off", "on"])
def test_a_loss_on_the_logits_that_a_model_returns_follows_an_inserted_normalisation(name, batchnorm):
    case = load_case(name)
    rows = split_of(case)
    treated = apply_remedies(case, {"batchnorm": batchnorm}, rows)
    model = build_model(treated, 0, rows.train.inputs[:4]).train()
    batch = rows.train.inputs[:64]
    term = treated.losses(model, batch, rho=0.05)["sparsity"]
    # the values in use, by another road: the code that the decoder reads
    means = observe(model, batch, treated.bottleneck).code.double().mean(0)
    wanted = (0.05 * torch.log(0.05 / means) + 0.95 * torch.log(0.95 / (1 - means))).sum()
    torch.testing.assert_close(term.double(), wanted, rtol=1e-5, atol=1e-6)


def test_centred_inputs_have_no_mean(forum, split):
    rows = apply_remedies(forum, {"inputs": "centred"}, split).data()
    torch.testing.assert_close(rows.inputs.mean(0), torch.zeros(100), atol=1e-5, rtol=0)


def test_width_and_numbers_are_set(forum, split):
    treated = apply_remedies(forum, {"units": 7, "rho": 0.2, "beta": 0.5, "learning_rate": 0.1, "epochs": 2}, split)
    assert outputs(forum, {"units": 7}, split)[0].shape[1] == 7
    assert (treated.numbers["rho"], treated.numbers["beta"]) == (0.2, 0.5)
    assert (treated.training()["learning_rate"], treated.training()["epochs"]) == (0.1, 2)


def test_matched_beta_makes_the_gradients_equally_long(forum, split):
    beta = matched_beta(forum, {"penalty": "kl_sigmoid_bottleneck"}, split, seeds=1)
    treated = apply_remedies(forum, {"penalty": "kl_sigmoid_bottleneck"}, split)
    model = build_model(treated, 0, split.train.inputs[:4])
    kept = []
    model.model.enc3.register_forward_hook(lambda module, args, output: kept.append(output))
    terms = treated.losses(model, split.train.inputs[:64], rho=0.05)
    norms = {name: torch.autograd.grad(term, kept[:1], retain_graph=True)[0].norm() for name, term in terms.items()}
    torch.testing.assert_close(beta * norms["kl"], norms["reconstruction"])


def test_a_loss_that_calls_the_parts_itself_is_followed(split):
    model = nn.Sequential()
    model.add_module("encoder", nn.Sequential(nn.Linear(100, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU()))
    model.add_module("decoder", nn.Linear(3, 100))

    def losses(model, batch):
        return {"reconstruction": F.mse_loss(model.decoder(model.encoder(batch)), batch)}

    case = Case(lambda: model, lambda: split.train.inputs, losses, "encoder.2")
    treated = apply_remedies(case, {"batchnorm": "on", "activation": "leaky_relu"}, split)
    wrapped = build_model(treated, 0, split.train.inputs[:4])
    treated.losses(wrapped, split.train.inputs[:50])
    assert float(wrapped.inserted["batchnorm"].running_mean.abs().sum()) > 0


def test_a_loss_with_an_order_of_its_own_is_refused(split):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.back = nn.Linear(100, 3), nn.Linear(3, 100)

        def forward(self, rows):
            return torch.sigmoid(self.back(F.relu(self.code(rows))))

    def losses(model, batch):
        return {"reconstruction": F.mse_loss(model.back(torch.tanh(model.code(batch))), batch)}

    case = Case(Odd, lambda: split.train.inputs, losses, "code")
    assert "in its own order" in why_not_applicable(case, {"activation": "leaky_relu"}, split)
    assert "in its own order" in why_not_applicable(case, {"batchnorm": "on"}, split)
    assert why_not_applicable(case, {"bias_init": "zero"}, split) is None


def test_what_finds_no_place_says_why(forum, split):
    def bare(model, batch):
        return {"reconstruction": (model(batch) - 1).pow(2).mean()}

    code_only = Case(lambda: nn.Sequential(nn.Linear(100, 3)), lambda: split.train.inputs, bare, "out:0")
    assert "no output of the model is shaped like the batch" in why_not_applicable(
        code_only, {"output_activation": "linear"}, split
    )
    assert "an output without an activation" in why_not_applicable(code_only, {"batchnorm": "on"}, split)
    normal = nn.Sequential(nn.Linear(100, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 100))
    normalised = Case(lambda: normal, lambda: split.train.inputs, bare, "0")
    assert "already normalized" in why_not_applicable(normalised, {"batchnorm": "on"}, split)
    assert why_not_applicable(forum, {"batchnorm": "on", "dropout": 0.1}, split) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("penalty", "kl_sigmoid_bottlneck", "did you mean 'kl_sigmoid_bottleneck'"),
        ("activatoin", "relu", "did you mean 'activation'"),
        ("dropout", 1.0, "expected a number from 0 to below 1, got 1.0"),
        ("dropout", "lots", "a number from 0"),
        ("rho", 0, "above 0 to below 1"),
        ("units", 2.5, "a whole number"),
        ("activation", 3, "one of relu"),
        ("beta", "machted", "a number from 0"),
        ("learning_rate", float("inf"), "above 0"),
    ],
)
def test_levels_that_do_not_exist_are_named(name, value, message):
    with pytest.raises(HarnessError, match=message):
        check_level(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": lambda: 3}, "expected a function that returns an nn.Module"),
        ({"model": lambda: 1 / 0}, "building the model failed with ZeroDivisionError"),
        ({"losses": lambda model, batch: 3}, "expected a mapping"),
        ({"losses": lambda model, batch: {"mse": model(batch)[1].mean()}}, "expected a term 'reconstruction'"),
        ({"losses": lambda model, batch: 1 / 0}, r"losses\(model, batch\) failed with ZeroDivisionError"),
        ({"bottleneck": "enc33"}, "did you mean 'enc3'"),
        ({"bottleneck": "out:5"}, "the model has 2 outputs"),
        ({"bottleneck": "out:x"}, "'out:0' for the first output"),
    ],
)
def test_a_case_that_cannot_work_says_what_is_wrong(forum, split, change, message):
    with pytest.raises(HarnessError, match=message):
        apply_remedies(replace(forum, **change), {}, split)


def test_a_model_that_cannot_take_the_rows_says_so(forum, split):
    narrow = replace(split, train=Rows(split.train.inputs[:, :50]))
    with pytest.raises(HarnessError, match=r"model\(batch\) failed"):
        apply_remedies(replace(forum, model=lambda: forum.model()), {}, narrow)


def test_the_table_of_the_documentation_is_true():
    namespace = runpy.run_path(str(TABLE))
    page = (TABLE.parents[2] / "docs" / "reference" / "remedies.md").read_text()
    assert namespace["table"]() in page


def test_frozen_parameters_keep_the_values_that_their_author_chose(split):
    """A frozen identity in front of the code, with a frozen bias: only what training may change starts otherwise."""

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.code, self.back = nn.Linear(100, 100), nn.Linear(100, 3), nn.Linear(3, 100)
            nn.init.eye_(self.base.weight).requires_grad_(False)
            nn.init.ones_(self.base.bias).requires_grad_(False)

        def forward(self, rows):
            return self.back(F.relu(self.code(self.base(rows))))

    def losses(model, batch):
        return {"reconstruction": F.mse_loss(model(batch), batch)}

    case = Case(Frozen, lambda: split.train.inputs, losses, "code")
    plain = build_model(case, 0, split.train.inputs[:4]).state_dict()
    treated = build_model(
        apply_remedies(case, {"weight_init": "kaiming", "bias_init": "zero"}, split), 0, split.train.inputs[:4]
    ).state_dict()
    treated = {name.removeprefix("model."): value for name, value in treated.items()}
    assert torch.equal(treated["base.weight"], torch.eye(100))
    assert torch.equal(treated["base.bias"], torch.ones(100))
    assert not torch.equal(treated["code.weight"], plain["code.weight"])
    assert not treated["code.bias"].any()
