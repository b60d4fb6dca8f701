"""Printed code of remedies, executed: the user's model with these lines computes what the treated model computes."""

import inspect
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from user_models import LOOPED, STRANGERS

import harness
from harness.case import Case, load_case
from harness.data import split_of
from harness.loss_terms import loss_terms
from harness.remedies import apply_remedies
from harness.source_changes.source_code import source_code

PLACE = re.compile(r"# (\S+), lines? (\d+)(?: to (\d+))?, in (\S+)")
REMEDIES = [
    {"batchnorm": "on"},
    {"activation": "leaky_relu"},
    {"activation": "elu"},
    {"bias_init": "zero"},
    {"dropout": 0.2},
    {"penalty": "none"},
    {"penalty": "none_sigmoid_bottleneck"},
    {"penalty": "kl_sigmoid_bottleneck"},
    {"penalty": "kl_sigmoid_of_relu"},
    {"penalty": "kl_sigmoid_of_preactivation"},
    {"penalty": "l1"},
    {"penalty": "hard_count"},
    {"penalty": "topk"},
    {"batchnorm": "on", "activation": "leaky_relu", "dropout": 0.1, "bias_init": "zero"},
    {"batchnorm": "on", "penalty": "kl_sigmoid_of_relu"},
]
CASES = {"forum": load_case("forum"), **STRANGERS}


def ids(remedy) -> str:
    return " ".join(map(str, remedy.values()))


def written(case: Case, code: str) -> tuple[nn.Module, str, str]:
    """The user's model with its source changed as printed, the lines about `model`, and the lines of the loss."""
    source, lines, others = None, [], code.splitlines()
    if PLACE.search(code):
        source = inspect.getsource(inspect.getmodule(case.model)).splitlines()
        others = []
        replacing = 0
        for line in code.splitlines():
            if place := PLACE.match(line):
                first, last = int(place[2]), int(place[3] or place[2])
                replacing = last - first + 1
                indent = " " * (len(source[first - 1]) - len(source[first - 1].lstrip()))
                lines.append((first, last, indent, []))
            elif replacing:
                lines[-1][3].append(line)
                replacing -= 1
            else:
                others.append(line)
    case_model = case.model
    if source is not None:
        for first, last, indent, new in lines:
            source[first - 1 : last] = [indent + line for line in new] + [""] * (last - first + 1 - len(new))
        namespace = {"__name__": "changed"}
        exec("\n".join(source), namespace)
        case_model = namespace[case.model.__name__]
    model = case_model()
    before, mark, after = "\n".join(others).partition("# in the loss")
    return model, before, mark + after


def user_model(case: Case, levels, split, state) -> tuple[nn.Module, str, dict]:
    """The user's model after the printed lines, with the weights of the treated model."""
    model, lines, loss = written(case, source_code(case, levels, split))
    own = {name.removeprefix("model."): value for name, value in state.items() if not name.startswith("inserted.")}
    model.load_state_dict(own)
    names = {"model": model, "nn": nn, "F": F, "torch": torch, "harness": harness, "reconstruction": torch.tensor(0.0)}
    exec(lines, names)
    for name, value in state.items():
        if name.startswith("inserted.batchnorm"):
            (norm,) = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
            getattr(norm, name.rsplit(".", 1)[1]).copy_(value)
    return model, loss, names


def first(outputs):
    return outputs if isinstance(outputs, torch.Tensor) else outputs[-1]


def treated_and_trained(case: Case, levels, split) -> tuple[Case, nn.Module]:
    """The treated model with weights and running statistics that are not those of the initialization."""
    treated = apply_remedies(case, levels, split)
    torch.manual_seed(4)
    model = treated.model()
    rows = split.train.inputs[:40]
    with torch.no_grad():
        for _ in range(3):
            loss_terms(treated, model.train(), rows)
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    if levels.get("bias_init") == "zero":  # the printed loop sets them again
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
    return treated, model


@pytest.mark.parametrize("levels", REMEDIES, ids=ids)
@pytest.mark.parametrize("name", CASES)
def test_the_printed_lines_give_the_outputs_and_losses_of_the_treated_model(name, levels):
    case = CASES[name]
    split = split_of(case)
    treated, model = treated_and_trained(case, levels, split)
    own, loss, names = user_model(case, levels, split, model.state_dict())
    rows = split.evaluation.inputs[:32]
    with torch.no_grad():
        expected, actual = first(model.eval()(rows)), first(own.eval()(rows))
    assert torch.equal(expected, actual)
    if levels.get("penalty", "none") == "none" or not loss:
        return
    torch.manual_seed(5)
    terms = loss_terms(treated, model, rows)
    torch.manual_seed(5)
    first(own(rows))
    names["reconstruction"] = terms["reconstruction"]
    exec(loss, names)
    (penalty,) = [value for term, value in terms.items() if term != "reconstruction"]
    torch.testing.assert_close(names["penalty"], penalty.to(names["penalty"]), rtol=1e-5, atol=1e-7)
    total = treated.total(terms, treated.numbers)
    torch.testing.assert_close(names["loss"].double(), torch.as_tensor(total).double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["forum", "functional"])
def test_a_linear_output_is_the_users_line_without_its_activation(name):
    case = CASES[name]
    split = split_of(case)
    levels = {"output_activation": "linear"}
    _, model = treated_and_trained(case, levels, split)
    own, _, _ = user_model(case, levels, split, model.state_dict())
    rows = split.evaluation.inputs[:16]
    with torch.no_grad():
        assert torch.equal(first(model.eval()(rows)), first(own.eval()(rows)))
        assert bool((first(own(rows)) < 0).any())


def test_a_module_of_the_output_becomes_linear():
    case = CASES["folded"]
    code = source_code(case, {"output_activation": "linear"}, split_of(case))
    assert "model.decoder[3] = nn.Identity()" in code.splitlines()


def test_dropout_in_training_drops_hidden_units_at_the_printed_rate():
    case = CASES["functional"]
    split = split_of(case)
    _, model = treated_and_trained(case, {"dropout": 0.5}, split)
    own, _, _ = user_model(case, {"dropout": 0.5}, split, model.state_dict())
    rows = split.evaluation.inputs[:1].expand(2000, -1)
    with torch.no_grad():
        dropped, kept = own.train()(rows), own.eval()(rows)
    assert not torch.equal(dropped, kept)


def test_centered_inputs_have_the_mean_of_the_training_rows_subtracted():
    case = CASES["functional"]
    split = split_of(case)
    names = {"rows": split.train.inputs}
    exec(source_code(case, {"inputs": "centred"}, split), names)
    treated = apply_remedies(case, {"inputs": "centred"}, split)
    assert torch.equal(names["rows"], split_of(treated).train.inputs)


def test_numbers_are_assignments():
    case = replace(CASES["functional"], numbers={"beta": 0.1})
    split = split_of(case)
    assert source_code(case, {"beta": 0.5, "learning_rate": 0.01}, split) == "beta = 0.5\nlearning_rate = 0.01"


def test_a_loss_that_calls_the_bottleneck_itself_is_pointed_out():
    split = split_of(CASES["forum"])
    assert "# the loss calls enc3 outside the forward pass too" in source_code(
        CASES["forum"], {"batchnorm": "on"}, split
    )
    assert "the loss calls" not in source_code(CASES["functional"], {"batchnorm": "on"}, split_of(CASES["functional"]))


def test_a_loss_that_reads_the_weight_of_a_wrapped_layer_is_pointed_out():
    """The Jacobian's norm of a contractive autoencoder takes the weight of its layer, which an nn.Sequential lacks."""

    class Contractive(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.back = nn.Linear(4, 3), nn.Linear(3, 4)

        def forward(self, rows):
            return self.back(torch.sigmoid(self.code(rows)))

    def contractive(model, batch):
        return {**plain(model, batch), "contractive": model.code.weight.square().sum()}

    def plain(model, batch):
        return {"reconstruction": F.mse_loss(model(batch), batch)}

    said = {}
    for losses in (contractive, plain):
        case = Case(Contractive, lambda: torch.randn(80, 4), losses, "code")
        said[losses] = source_code(case, {"batchnorm": "on"}, split_of(case))
        assert "model.code = nn.Sequential(model.code, nn.BatchNorm1d(3, affine=False))" in said[losses]
    assert "the layer itself is model.code[0] now" in said[contractive]
    assert "the layer itself" not in said[plain]


def test_one_line_for_several_layers_is_refused_in_words_and_changed_where_all_change():
    split = split_of(LOOPED)
    refused = source_code(LOOPED, {"activation": "leaky_relu"}, split)
    assert refused.startswith("# activation leaky_relu: no lines can be given for this model: one activation")
    assert "\n" not in refused


def test_a_code_with_its_units_on_the_last_axis_has_no_printable_batchnorm():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.code, self.back = nn.Linear(4, 3), nn.Linear(3, 4)

        def forward(self, batch):
            return self.back(F.relu(self.code(batch)))

    def rows():
        return torch.rand(40, 5, 4, generator=torch.Generator().manual_seed(1))

    case = Case(Tokens, rows, STRANGERS["functional"].losses, "code")
    assert "no lines can be given for this model: torch's BatchNorm" in source_code(
        case, {"batchnorm": "on"}, split_of(case)
    )
