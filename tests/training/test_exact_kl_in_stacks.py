"""The harness's own KL in training: written out with the same bits, the same in every stack, finite on offset inputs."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from harness.case import load_case
from harness.data import split_of
from harness.penalties import bernoulli_kl
from harness.remedies import apply_remedies
from harness.training import train
from harness.training.batches import batch_orders, gather_rows
from harness.training.stacked import StackedEngine
from harness.training.vmap_support import check_vmap_support

SITES = ("kl_sigmoid_of_relu", "kl_sigmoid_of_preactivation", "kl_sigmoid_bottleneck")


def stack_of(case, split, size):
    found = check_vmap_support(case, split.train.inputs)
    return StackedEngine([case] * size, range(size), found.rule, split.train.inputs, found.fixed, found.shares)


def stepped(stack, split, steps, rows=64):
    """The totals of some steps, `[step, member]`."""
    order = batch_orders(stack.seeds, 1, len(split.train.inputs))
    starts = [rows * (step % (len(split.train.inputs) // rows)) for step in range(steps)]
    return torch.stack([stack.step(gather_rows(split.train.inputs, order[:, at : at + rows]))[0] for at in starts])


@pytest.mark.parametrize("site", SITES)
def test_a_step_is_written_out_and_keeps_its_bits(forum, split, site):
    case = apply_remedies(forum, {"penalty": site}, split)
    steps = 68
    stack, plain = stack_of(case, split, 8), stack_of(case, split, 8)
    plain._descent = lambda key, *arguments: plain._descend(*arguments)  # the function itself, at every step
    assert torch.equal(stepped(stack, split, steps), stepped(plain, split, steps))
    for name, value in stack.parameters.items():
        assert torch.equal(value, plain.parameters[name]), name
    (operations,) = stack._descent._lists.values()
    assert operations is not None, "a call that no list can hold"


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("units", [3, 4])
def test_a_member_has_the_same_bits_in_every_stack(forum, split, site, units):
    case = apply_remedies(forum, {"penalty": site, "units": units}, split)
    few, more = stack_of(case, split, 8), stack_of(case, split, 24)
    assert torch.equal(stepped(few, split, 6), stepped(more, split, 6)[:, :8])


def naive_loop(case, seed, inputs, epochs):
    """The same penalty in the naive form, in plain torch: the step at which the loss is no number, or None."""
    torch.manual_seed(seed)
    model, step = case.model(), 0
    optimizer = torch.optim.Adam(model.parameters(), lr=case.training()["learning_rate"])
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(case.training()["batch_size"]):
            code, reconstruction = model(inputs[rows])
            penalty = bernoulli_kl(0.05, torch.sigmoid(code).mean(0))
            loss = F.mse_loss(reconstruction, inputs[rows]) + case.numbers["beta"] * penalty
            step += 1
            if not torch.isfinite(loss):
                return step
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return None


def test_on_offset_inputs_the_exact_form_trains_where_the_naive_one_diverges():
    case, epochs = load_case("forum"), 3
    case = replace(case, train={**case.train, "epochs": epochs, "learning_rate": 0.001})
    split = split_of(case, "synthetic_100_offset")
    for seed in (0, 1):
        assert naive_loop(case, seed, split.train.inputs, epochs) is not None
    treated = apply_remedies(case, {"penalty": "kl_sigmoid_of_relu"}, split)
    for snapshot in train([treated] * 2, [0, 1], split):
        assert snapshot.diverged.tolist() == [-1, -1]
        assert torch.isfinite(snapshot.losses["total"]).all()
    # the codes went where the naive form is infinite: that, not a milder course, is what was survived
    assert snapshot.engine.observe(split.train.inputs[:512]).code.amax() > 17.4
