"""The shipped cases against hand transcriptions of the threads, in plain torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import load_case, shipped_cases
from harness.data import split_of
from harness.errors import HarnessError
from harness.grid.case_facts import case_facts, case_file
from harness.grid.case_facts import shipped_cases as known_to_the_grid

RHO = 0.05


class AsPosted(nn.Module):
    """Typed from the thread, line by line."""

    def __init__(self):
        super().__init__()
        self.enc1 = nn.Linear(in_features=100, out_features=40)
        self.enc2 = nn.Linear(in_features=40, out_features=20)
        self.enc3 = nn.Linear(in_features=20, out_features=4)
        self.dec1 = nn.Linear(in_features=4, out_features=20)
        self.dec2 = nn.Linear(in_features=20, out_features=40)
        self.dec3 = nn.Linear(in_features=40, out_features=100)

    def forward(self, x):
        x = F.relu(self.enc1(x))
        x = F.relu(self.enc2(x))
        x = F.relu(self.enc3(x))
        y = x
        x = F.relu(self.dec1(x))
        x = F.relu(self.dec2(x))
        x = F.relu(self.dec3(x))
        return y, x


def kl_divergence(rho, rho_hat):
    rho_hat = torch.mean(torch.sigmoid(rho_hat), 1)
    rho = torch.tensor([rho] * len(rho_hat))
    return torch.sum(rho * torch.log(rho / rho_hat) + (1 - rho) * torch.log((1 - rho) / (1 - rho_hat)))


def sparse_loss(rho, x, model_children):
    values = x
    loss = 0
    for i in range(len(model_children)):
        values = model_children[i](values)
        if i == 3:
            loss += kl_divergence(rho, values)
    return loss


def built(factory, seed=0):
    torch.manual_seed(seed)
    return factory()


def batch_of(case, rows=64):
    inputs = split_of(case).train.inputs
    return inputs[:: len(inputs) // rows][:rows]


def gradient(term, model):
    """All parameters' gradients as one row; zeros where the term does not reach."""
    grads = torch.autograd.grad(term, list(model.parameters()), allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).ravel() for g, p in zip(grads, model.parameters(), strict=True)]
    )


def test_the_source_case_is_the_thread_s_network_and_loss_bit_for_bit(forum):
    ours, theirs, batch = built(forum.model), built(AsPosted), batch_of(forum)
    terms = forum.losses(ours, batch, rho=RHO)
    assert torch.equal(terms["reconstruction"], nn.MSELoss()(theirs(batch)[1], batch))
    expected = sparse_loss(RHO, batch, list(theirs.children()))
    assert torch.equal(terms["sparsity"], expected)
    assert torch.equal(gradient(terms["sparsity"], ours), gradient(expected, theirs))


def test_the_posted_penalty_grows_with_the_batch_because_it_sums_over_samples(forum):
    model, batch = built(forum.model), batch_of(forum)
    once, twice = (forum.losses(model, rows, rho=RHO)["sparsity"] for rows in (batch, batch.repeat(2, 1)))
    assert (twice / once).item() == pytest.approx(2, rel=1e-5)


@pytest.mark.parametrize("name", ["sibling_count", "sibling_overwrite", "sibling_threshold"])
def test_the_sibling_s_penalty_changes_no_parameter(name):
    case = load_case(name)
    model, batch = built(case.model), batch_of(case)
    terms = case.losses(model, batch)
    with_penalty = gradient(terms["reconstruction"] + 1000.0 * terms["sparsity"], model)
    terms = case.losses(model, batch)
    assert torch.equal(with_penalty, gradient(terms["reconstruction"], model))


def test_the_count_is_a_plain_number_and_the_overwritten_mean_has_a_gradient_of_zero():
    count, overwrite = load_case("sibling_count"), load_case("sibling_overwrite")
    batch = batch_of(count)
    assert isinstance(count.losses(built(count.model), batch)["sparsity"], float)
    model = built(overwrite.model)
    term = overwrite.losses(model, batch)["sparsity"]
    assert term.requires_grad
    assert gradient(term, model).abs().max() == 0
    firing = (model.enc3(F.relu(model.enc2(F.relu(model.enc1(batch))))) > 0).float().mean()
    assert term.item() == pytest.approx(firing.item())


def test_overwriting_a_relu_s_output_in_place_raises_which_is_why_it_is_taken_before_it():
    values = F.relu(torch.randn(8, 4, requires_grad=True) * 1)
    values[values > 0] = 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.mean().backward()


def test_the_third_sibling_has_the_thread_s_sizes_and_counts_what_fires():
    case = load_case("sibling_threshold")
    model, batch = built(case.model), batch_of(case)
    assert [layer.out_features for layer in model.children()] == [80, 40, 4, 40, 80, 20]
    code = model(batch)[0]
    expected = sum(int((code[:, unit] > 0).sum()) for unit in range(4)) / (64 / 20)
    assert case.losses(model, batch)["sparsity"].item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["corrected", "corrected_l1", "corrected_20", "convolutional"])
def test_a_corrected_penalty_reaches_the_encoder_and_not_the_decoder(name):
    case = load_case(name)
    model, batch = built(case.model), batch_of(case)
    term = case.losses(model, batch, **{key: case.numbers[key] for key in case.loss_keywords()})["sparsity"]
    grads = torch.autograd.grad(term, list(model.parameters()), allow_unused=True)
    reached = {
        key for (key, _), grad in zip(model.named_parameters(), grads, strict=True) if grad is not None and grad.any()
    }
    assert reached
    assert all(key.startswith("enc") for key in reached)


def test_the_corrected_penalty_is_the_textbook_s_one_term_per_unit():
    case = load_case("corrected")
    model, batch = built(case.model), batch_of(case)
    rho_hat = model(batch)[0].mean(0)
    binary = torch.distributions.Bernoulli
    expected = torch.distributions.kl_divergence(binary(torch.tensor(RHO)), binary(rho_hat)).sum()
    assert case.losses(model, batch, rho=RHO)["sparsity"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_corrected_networks_start_with_zero_biases_and_end_without_a_relu():
    for name in ("corrected", "corrected_l1", "corrected_20"):
        case = load_case(name)
        model, batch = built(case.model), batch_of(case)
        assert all(not layer.bias.any() for layer in model.children())
        assert model(batch)[1].min() < 0


@pytest.mark.parametrize("name", shipped_cases())
def test_every_shipped_case_runs_on_its_own_rows(name):
    case = load_case(name)
    batch = batch_of(case)
    terms = case.losses(built(case.model), batch, **{key: case.numbers[key] for key in case.loss_keywords()})
    assert set(terms) == {"reconstruction", "sparsity"}


@pytest.mark.parametrize("name", ["forum", "digits", "corrected", "sibling_threshold"])
def test_width_and_features_are_keywords_of_the_networks_that_know_them(name):
    model = load_case(name).model(features=30, units=6)
    assert model(torch.zeros(2, 30))[0].shape == (2, 6)
    assert model(torch.zeros(2, 30))[1].shape == (2, 30)


@pytest.mark.parametrize("name", shipped_cases())
def test_what_the_grid_reads_of_a_case_file_is_what_the_case_holds(name, tmp_path):
    facts, case = case_facts(case_file(name, tmp_path)), load_case(name)
    assert facts.numbers == dict(case.numbers)
    assert facts.train == dict(case.train)


def test_the_grid_knows_the_same_cases():
    assert known_to_the_grid() == shipped_cases()


WRITTEN_OUT = "import harness\ncase = harness.Case(model=m, data=d, losses=l, bottleneck='b', numbers={'gamma': 2.0})\n"
COMPUTED = """
import torch, harness
numbers = dict(gamma=1.0 + 1.0)
case = harness.Case(lambda: torch.nn.Linear(1, 1), lambda: torch.zeros(1), lambda m, b: {}, "b", numbers=numbers)
"""


@pytest.mark.parametrize("text", [WRITTEN_OUT, COMPUTED, COMPUTED.replace("case =", "if True:\n    case =")])
def test_a_stranger_s_numbers_are_read_or_the_file_is_run(tmp_path, text):
    (tmp_path / "mine.py").write_text(text)
    assert case_facts(tmp_path / "mine.py").numbers == {"gamma": 2.0}


def test_a_case_file_that_cannot_be_run_says_so(tmp_path):
    (tmp_path / "mine.py").write_text("case = nowhere.Case(**everything)\n")
    with pytest.raises(HarnessError, match="running it failed with NameError"):
        case_facts(tmp_path / "mine.py")


def test_an_unknown_case_is_answered_with_the_nearest_one(tmp_path):
    with pytest.raises(HarnessError, match="no case is called 'form'; did you mean 'forum'"):
        case_file("form", tmp_path)
    with pytest.raises(HarnessError, match=r"no file 'mine.py' in .*; a case is a Python file"):
        case_file("mine.py", tmp_path)
