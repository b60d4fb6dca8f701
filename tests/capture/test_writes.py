"""A model that writes to its activations is read as its twin that does not, and computes what it would unread."""

import pytest
import torch
import torch.nn.functional as F
from in_place import PAIRS, Network, losses, rows, twins
from torch import nn

from harness.capture import BottleneckTap, observe
from harness.training.program import clamp_units


def networks(name):
    pair = []
    for case in twins(name):
        torch.manual_seed(0)
        pair.append(case.model())
    return pair


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", PAIRS)
def test_a_model_that_writes_is_read_as_its_twin(name, training):
    found = []
    for model in networks(name):
        model.train(training)
        torch.manual_seed(3)
        with torch.no_grad():
            found.append(observe(model, rows(), "code", "out:1"))
    first, second = found
    assert first.activation == second.activation
    for part in ("code", "preactivation", "raw", "reconstruction"):
        assert torch.equal(getattr(first, part), getattr(second, part)), part


@pytest.mark.parametrize("name", PAIRS)
def test_reading_changes_neither_outputs_nor_gradients(name):
    model = networks(name)[1].train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    seen = []
    for read in (False, True):
        model.load_state_dict(state)
        model.zero_grad()
        torch.manual_seed(3)
        if read:
            with BottleneckTap(model, "code"):
                terms = losses(model, rows())
        else:
            terms = losses(model, rows())
        sum(terms.values()).backward()
        seen.append([*terms.values(), *(parameter.grad.clone() for parameter in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


# what these make of the bottleneck is followed no further, so that nothing can be put there
ENDED = ("hardswish", "x += other")


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ENDED])
def test_a_unit_held_in_a_model_that_writes_is_held_for_all_that_follows(name):
    found = []
    for model in networks(name):
        model.eval()
        torch.manual_seed(3)
        numbers = torch.tensor([0.3, torch.nan, torch.nan, -2.0])
        with torch.no_grad(), BottleneckTap(model, "code", replace=lambda code, n=numbers: clamp_units(code, n)):
            found.append(model(rows())[1])
    assert torch.equal(*found)
    torch.manual_seed(3)
    assert not torch.equal(found[0], networks(name)[0].eval()(rows())[1])


# vmap batches no assignment by a mask, and no drawing of its own
@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ("assignment", "leaky, then dropout")])
def test_a_model_that_writes_is_read_below_vmap(name):
    found = []
    for model in networks(name):
        model.eval()
        kept = {}

        def read(batch, model=model, kept=kept):
            with BottleneckTap(model, "code") as tap:
                model(batch)
            kept["activation"] = tap.passes[0].activation
            return tap.passes[0].code, tap.passes[0].preactivation, tap.passes[0].raw

        with torch.no_grad():
            found.append((*torch.func.vmap(read)(rows().reshape(4, 64, 12)), kept["activation"]))
    assert found[0][3] == found[1][3]
    assert all(torch.equal(one, other) for one, other in zip(found[0][:3], found[1][:3], strict=True))


def test_a_unit_that_is_silenced_by_assignment_is_silent_in_the_code_that_is_read():
    def silenced(values):
        values[:, 1] = 0
        return values

    model = Network(silenced, True).eval()
    with torch.no_grad():
        seen, (code, _) = observe(model, rows(), "code", "out:1"), model(rows())
        raw = model.code(model.enc(rows()))
    assert torch.equal(seen.code, code)
    assert torch.equal(seen.raw, raw)  # and what the layer returned stays what it was
    assert bool((code[:, 1] == 0).all())


def test_what_is_written_after_the_forward_pass_does_not_reach_the_code():
    model = Network(nn.Sigmoid(), False).eval()
    with torch.no_grad(), BottleneckTap(model, "code") as tap:
        code, _ = model(rows())
        before = code.clone()
        code[code > 0.5] = 1
        code.mul_(0)
    assert torch.equal(tap.passes[0].code, before)


def test_a_tensor_that_is_written_to_anew_is_followed_as_what_was_written():
    def copied(values):
        room = torch.zeros_like(values)
        room.copy_(values)
        return F.relu_(room)

    model = Network(copied, True).eval()
    with torch.no_grad():
        seen, raw = observe(model, rows(), "code", "out:1"), model.code(model.enc(rows()))
    assert seen.activation == "relu"
    assert torch.equal(seen.preactivation, raw)

    def overwritten(values):
        values.normal_()
        return torch.sigmoid(values)

    model = Network(overwritten, True).eval()
    with torch.no_grad():
        seen, raw = observe(model, rows(), "code", "out:1"), model.code(model.enc(rows()))
    assert seen.activation == "none"  # of noise, not of the bottleneck
    assert torch.equal(seen.code, raw)
