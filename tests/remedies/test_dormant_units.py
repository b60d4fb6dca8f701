"""Remedies for units and codebook entries that are not in use, against plain loops of torch written by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.case import Case
from harness.data import split_of
from harness.models import build_model
from harness.remedies import RemedyNotApplicable, apply_remedies, why_not_applicable
from harness.training import train
from harness.training.batches import batch_orders
from harness.training.vmap_support import VmapSupport

EPOCHS, BATCH, RATE, SEED = 3, 32, 0.01, 1


class Dictionary(nn.Module):
    """A sparse autoencoder of which two units are dead."""

    def __init__(self):
        super().__init__()
        self.code, self.back = nn.Linear(6, 8), nn.Linear(8, 6)
        with torch.no_grad():
            self.code.bias[:2] = -9.0

    def forward(self, rows):
        return self.back(F.relu(self.code(rows)))


class Quantized(nn.Module):
    """A vector-quantized autoencoder with far entries in its codebook."""

    def __init__(self):
        super().__init__()
        self.code, self.back, self.book = nn.Linear(6, 2), nn.Linear(2, 6), nn.Embedding(8, 2)
        with torch.no_grad():
            self.book.weight[4:] += 50.0

    def forward(self, rows):
        code = self.code(rows)
        nearest = (code[:, None] - self.book.weight).square().sum(-1).argmin(-1)
        entries = self.book(nearest)
        return self.back(code + (entries - code).detach()), F.mse_loss(code.detach(), entries)


def rows():
    return torch.randn(160, 6, generator=torch.Generator().manual_seed(0))


def losses(model, batch):
    return {"reconstruction": F.mse_loss(model(batch), batch)}


def quantized_losses(model, batch):
    output, book = model(batch)
    return {"reconstruction": F.mse_loss(output, batch) + book}


def case(model=Dictionary, losses=losses, **fields):
    return Case(
        model, rows, losses, "code", train={"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": RATE}, **fields
    )


def harness_weights(treated, alone=False):
    """Weights of the seed after training in float64, in a stack of two members or alone."""
    split = split_of(treated)
    stacking = VmapSupport(None, frozenset(), "by request") if alone else None
    seeds = [SEED] if alone else [SEED + 1, SEED]
    *_, snapshot = train([treated] * len(seeds), seeds, split, stacking, dtype=torch.float64)
    state = snapshot.engine.state_of(len(seeds) - 1)
    return {name.removeprefix("model."): value for name, value in state.items()}


def plain_weights(case, loss, at=(), change=None):
    """The same training by hand, with a change of the model after some steps."""
    data = split_of(case).train.inputs
    model = build_model(case, SEED, data).double()
    data, step = data.double(), 0
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    for epoch in range(1, EPOCHS + 1):
        order = batch_orders([SEED], epoch, len(data))[0]
        for start in range(0, len(data), BATCH):
            batch = data[order[start : start + BATCH]]
            optimizer.zero_grad()
            loss(model, batch).backward()
            optimizer.step()
            step += 1
            if step in at:
                with torch.no_grad():
                    change(model, optimizer, data, torch.Generator().manual_seed(SEED * 1_000_003 + step))
    return model.state_dict()


def forget(optimizer, parameter, index):
    for name in ("exp_avg", "exp_avg_sq"):
        optimizer.state[parameter][name][index] = 0.0


def assert_same(first, second):
    assert set(first) == set(second)
    for name, value in second.items():
        torch.testing.assert_close(first[name], value, rtol=1e-9, atol=1e-11)  # float64, another order of sums


def middle_step(case):
    """The step after which one of one resampling takes place."""
    data = split_of(case).train.inputs
    return round(EPOCHS * -(-len(data) // BATCH) / 2)


@pytest.mark.parametrize("alone", [False, True])
def test_auxk_is_the_loss_written_by_hand(alone):
    def loss(model, batch):
        before = model.code(batch)
        output = model.back(F.relu(before))
        error = (batch - output).detach()
        dead = [unit for unit in range(8) if not bool((before[:, unit] > 0).any())]
        sparse = torch.zeros_like(before)
        for row in range(len(batch)):
            best = sorted(dead, key=lambda unit: -float(before[row, unit]))[:3]  # half of the six features
            for unit in best:
                sparse[row, unit] = before[row, unit]
        auxiliary = F.mse_loss(sparse @ model.back.weight.T, error) if dead else 0.0
        return F.mse_loss(output, batch) + 0.125 * auxiliary

    expected = plain_weights(case(), loss)
    assert_same(harness_weights(apply_remedies(case(), {"auxk": 0.125}), alone), expected)
    plain = plain_weights(case(), lambda model, batch: F.mse_loss(model(batch), batch))
    assert not torch.equal(plain["code.weight"][:2], expected["code.weight"][:2])  # dead units have a gradient


@pytest.mark.parametrize("alone", [False, True])
def test_neuron_resampling_is_the_loop_written_by_hand(alone):
    def change(model, optimizer, data, generator):
        data = data[:512]
        code = F.relu(model.code(data))
        dead = [unit for unit in range(8) if float(code[:, unit].max()) == 0.0]
        assert dead == [0, 1]
        loss = (data - model.back(code)).pow(2).sum(1)
        drawn = torch.multinomial(loss**2, 8, replacement=True, generator=generator)
        length = 0.2 * torch.stack([model.code.weight[unit].norm() for unit in range(2, 8)]).mean()
        for unit in dead:
            direction = data[drawn[unit]] / data[drawn[unit]].norm()
            model.code.weight[unit], model.code.bias[unit] = length * direction, 0.0
            model.back.weight[:, unit] = direction
            forget(optimizer, model.code.weight, unit)
            forget(optimizer, model.code.bias, unit)
            forget(optimizer, model.back.weight, (slice(None), unit))

    loss = lambda model, batch: F.mse_loss(model(batch), batch)  # noqa: E731
    expected = plain_weights(case(), loss, (middle_step(case()),), change)
    assert_same(harness_weights(apply_remedies(case(), {"neuron_resampling": 1}), alone), expected)


@pytest.mark.parametrize("alone", [False, True])
def test_a_codebook_restart_is_the_loop_written_by_hand(alone):
    def change(model, optimizer, data, generator):
        code = model.code(data[:512])
        used = {int((row - model.book.weight).square().sum(1).argmin()) for row in code}
        drawn = torch.randint(len(code), (8,), generator=generator)
        assert {4, 5, 6, 7} <= set(range(8)) - used
        old = model.book.weight.clone()
        for entry in set(range(8)) - used:
            model.book.weight[entry] = code[drawn[entry]]
            forget(optimizer, model.book.weight, entry)
        assert torch.equal(model.book.weight[sorted(used)], old[sorted(used)])

    quantized = case(Quantized, quantized_losses)
    loss = lambda model, batch: quantized_losses(model, batch)["reconstruction"]  # noqa: E731
    expected = plain_weights(quantized, loss, (middle_step(quantized),), change)
    treated = apply_remedies(quantized, {"codebook_restart": 1})
    assert_same(harness_weights(treated, alone), expected)
    assert float(expected["book.weight"].abs().max()) < 20  # no entry is far any more


class Hidden(nn.Module):
    """The bottleneck reads a hidden layer, and another layer makes the reconstruction."""

    def __init__(self):
        super().__init__()
        self.first, self.code = nn.Linear(6, 5), nn.Linear(5, 3)
        self.back, self.last = nn.Linear(3, 5), nn.Linear(5, 6)

    def forward(self, rows):
        return self.last(F.relu(self.back(F.relu(self.code(F.relu(self.first(rows)))))))


class Readout(Hidden):
    """The bottleneck reads a hidden layer, and its reader makes the reconstruction."""

    def __init__(self):
        super().__init__()
        self.back = nn.Linear(3, 6)

    def forward(self, rows):
        return self.back(F.relu(self.code(F.relu(self.first(rows)))))


@pytest.mark.parametrize(
    ("model", "levels", "reason"),
    [
        (Dictionary, {"codebook_restart": 1}, "codebook_restart: the model has no codebook"),
        (Hidden, {"auxk": 0.1}, "auxk: the layer that reads the code does not make the reconstruction"),
        (Hidden, {"neuron_resampling": 1}, "neuron_resampling: the layer that reads the code does not make"),
        (Readout, {"neuron_resampling": 1}, "neuron_resampling: the bottleneck does not read the rows as they are"),
        (Dictionary, {"resample": 1, "neuron_resampling": 1}, "neuron_resampling: resample resamples too"),
    ],
)
def test_a_remedy_without_its_parts_is_refused_with_the_reason(model, levels, reason):
    with pytest.raises(RemedyNotApplicable, match=reason):
        apply_remedies(case(model), levels)
    assert why_not_applicable(case(model), dict.fromkeys(levels, 0)) is None


def test_auxk_applies_to_a_readout_of_hidden_layers_and_not_to_a_loss_of_parts():
    assert why_not_applicable(case(Readout), {"auxk": 0.1}) is None

    def of_parts(model, batch):
        return {"reconstruction": F.mse_loss(model.back(F.relu(model.code(batch))), batch)}

    with pytest.raises(RemedyNotApplicable, match="auxk: the loss calls parts of the model by itself"):
        apply_remedies(case(losses=of_parts), {"auxk": 0.1})
