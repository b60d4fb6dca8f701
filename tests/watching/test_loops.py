"""Watching works in the loops that people have: compiled, parallel, checkpointed, mixed precision, masked, recurrent."""

import gc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import harness
from harness.errors import HarnessError
from harness.watching.epochs import EpochCounter


class Network(nn.Module):
    """Unit 1 of fc2 is dead; buffers, dropout and an in-place ReLU."""

    def __init__(self, checkpointed=None):
        super().__init__()
        self.fc1, self.norm, self.fc2, self.fc3 = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 5), nn.Linear(5, 6)
        self.checkpointed = checkpointed
        with torch.no_grad():
            self.fc2.bias[1] = -1000.0

    def block(self, rows):
        return F.relu_(self.fc2(F.dropout(F.relu(self.norm(self.fc1(rows))), 0.2, self.training)))

    def forward(self, rows):
        if self.checkpointed is None:
            return self.fc3(self.block(rows))
        return self.fc3(checkpoint(self.block, rows, use_reentrant=self.checkpointed))


def rows(count=320, seed=0):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))


def train(model, epochs=4, autocast=False, watch=None, **options):
    """A plain loop, watched or not; returns all that it leaves behind, and the monitor."""
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    trace, monitor = [], None
    if watch is not None:
        monitor = harness.watch(model, watch, **options).__enter__()
    for _ in range(epochs):
        for batch in rows().split(64):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                output = model(batch.requires_grad_(True))
                loss = F.mse_loss(output.float(), batch.detach())
            loss.backward()
            trace += [output.detach().clone()]
            trace += [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
            optimizer.step()
    if monitor is not None:
        monitor.__exit__(None, None, None)
    return [*trace, *(value.clone() for value in model.state_dict().values()), torch.get_rng_state()], monitor


def built(**options):
    torch.manual_seed(0)
    return Network(**options).train()


def hooks(model):
    functions = [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]
    return [*functions, *(module for module in model.modules() if hasattr(vars(module).get("forward"), "remove"))]


def dead(diagnosis):
    return [unit.index for unit in diagnosis.units if unit.verdict == "dead"]


def in_place(model):
    model.compile(backend="eager")
    return model


WRAPPERS = {
    "plain": lambda model: model,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled in place": in_place,
    "data parallel": nn.DataParallel,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("every", [1, 3])
def test_wrapped_models_are_watched_and_stay_the_same_bit_for_bit(wrapper, every):
    plain, _ = train(WRAPPERS[wrapper](built()))
    model = WRAPPERS[wrapper](built())
    watched, monitor = train(model, watch="fc2", every=every)
    assert len(plain) == len(watched)
    assert all(torch.equal(first, second) for first, second in zip(plain, watched, strict=True))
    assert dead(monitor.diagnosis()) == [1]
    assert monitor.diagnosis().activation == "relu"
    assert monitor.step == 20
    assert not hooks(model)
    assert model.training
    assert 1 in dead(harness.diagnose_model(model, rows(1200), "fc2"))


def test_a_model_compiled_before_the_block_is_not_compiled_again():
    from torch._dynamo.utils import counters

    model = torch.compile(built(), backend="eager")
    train(model, epochs=1)
    counters.clear()
    train(model, epochs=1, watch="fc2")
    assert counters["stats"]["unique_graphs"] == 0


def test_a_compiled_copy_of_the_watched_model_is_left_alone():
    model = built()
    compiled = torch.compile(model, backend="eager")
    with harness.watch(model, "fc2") as monitor:
        watched, _ = train(compiled, epochs=1)
    plain, _ = train(torch.compile(built(), backend="eager"), epochs=1)
    assert all(torch.equal(first, second) for first, second in zip(plain, watched, strict=True))
    assert monitor.step == 0
    assert "a compiled copy is another one" in monitor.diagnosis().findings[0].remedy


def test_the_prefix_of_a_wrapper_may_be_named():
    with harness.watch(nn.DataParallel(built()), "module.fc2") as monitor:
        pass
    assert monitor.layers == ("fc2",)


def test_gradients_of_a_compiled_model_are_refused():
    with pytest.raises(HarnessError, match="gradients: expected a model that is not compiled"):
        harness.watch(torch.compile(built(), backend="eager"), "fc2", gradients=True)


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_of_a_checkpoint_count_once(reentrant):
    plain, _ = train(built(checkpointed=reentrant))
    watched, monitor = train(built(checkpointed=reentrant), watch="fc2")
    assert all(torch.equal(first, second) for first, second in zip(plain, watched, strict=True))
    assert int(monitor.units()["rows"].iloc[0]) == 4 * 320
    assert dead(monitor.diagnosis()) == [1]


def test_mixed_precision_is_watched():
    plain, _ = train(built(), autocast=True)
    watched, monitor = train(built(), autocast=True, watch="fc2")
    assert all(torch.equal(first, second) for first, second in zip(plain, watched, strict=True))
    assert dead(monitor.diagnosis()) == [1]
    assert monitor.history()["mean"].notna().all()


def test_a_bfloat16_model_is_watched_and_judged():
    model = built().bfloat16()
    with harness.watch(model, "fc2") as monitor:
        for batch in rows(1200).bfloat16().split(64):
            model(batch)
    assert dead(monitor.diagnosis()) == [1]


def test_a_model_in_eval_mode_is_said_to_be_ignored_or_watched_where_asked():
    model = built().eval()
    with harness.watch(model, "fc2") as monitor:
        model(rows())
    finding = monitor.diagnosis().findings[0]
    assert "1 others were in eval mode" in finding.evidence
    assert "evaluation=True" in finding.remedy
    with harness.watch(model, "fc2", evaluation=True) as monitor:
        model(rows(1200))
    assert 1 in dead(monitor.diagnosis())


def watching(model):
    with harness.watch(model, "fc2"):
        for batch in rows().split(64):
            yield model(batch)


def test_a_generator_that_is_closed_or_forgotten_leaves_no_hook():
    model = built()
    generator = watching(model)
    next(generator)
    assert hooks(model)
    generator.close()
    assert not hooks(model)
    generator = watching(model)
    next(generator)
    del generator
    gc.collect()
    assert not hooks(model)
    assert torch.overrides._get_current_function_mode_stack() == []


def test_a_callback_may_stop_the_training():
    class Enough(Exception):
        pass

    def stop(line):
        raise Enough(line)

    model = built()
    with pytest.raises(Enough, match="unit 1 of fc2 has not fired for 3 epochs"):
        train(model, epochs=20, watch="fc2", callback=stop)
    harness.watch(model, "fc2").__exit__(None)


class Recurrent(nn.Module):
    """The layer is called once per position; unit 0 fires in the last call alone, unit 1 never."""

    def __init__(self):
        super().__init__()
        self.cell, self.read = nn.Linear(4, 3), nn.Linear(3, 1)
        with torch.no_grad():
            self.cell.weight[:2] = 0
            self.cell.bias[:2] = torch.tensor([-1.0, -1000.0])

    def forward(self, sequence):
        out = 0
        for position in range(sequence.shape[1]):
            value = sequence[:, position] + 0 * self.cell.bias[0]
            out = out + self.read(F.relu(self.cell(value) + (position == sequence.shape[1] - 1) * self.shift()))
        return out

    def shift(self):
        return torch.tensor([2.0, 0.0, 0.0])


@pytest.mark.parametrize("lengths", [(3, 3, 3, 3), (3, 5, 2, 4)])
def test_all_calls_of_a_layer_in_a_step_are_rows(lengths):
    torch.manual_seed(0)
    model = Recurrent().train()
    model(torch.randn(2, 3, 4))
    with harness.watch(model, "cell") as monitor:
        for _ in range(6):
            for length in lengths:
                model(torch.randn(40, length, 4))
    units = monitor.units()
    # as many calls are read as there were in an earlier step
    missed = lengths[0] - 1 + max(0, lengths[1] - lengths[0])
    assert int(units["rows"].iloc[0]) == 40 * (6 * sum(lengths) - missed)
    assert dead(monitor.diagnosis()) == [1]
    assert float(units["activation_frequency"].iloc[0]) > 0
    finding = next(finding for finding in monitor.diagnosis().findings if finding.rule == "unit_axis")
    assert "times per step" in finding.evidence
    diagnosis = harness.diagnose_model(model, torch.randn(400, 3, 4), "cell")
    assert diagnosis.rows == 1200
    assert dead(diagnosis) == [1]


class Encoder(nn.Module):
    """Unit 2 of the feed-forward layer fires on padding alone."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 3), nn.Linear(3, 4)
        with torch.no_grad():
            self.embed.weight[1:] = self.embed.weight[1:].abs() + 0.1
            self.up.weight[:2] = 1.0
            self.up.weight[2] = -100.0
            self.up.bias[2] = 1.0

    def forward(self, input_ids, attention_mask=None):
        return self.down(F.relu(self.up(self.embed(input_ids))))


def test_padding_is_left_out():
    torch.manual_seed(0)
    model = Encoder().train()
    tokens = torch.randint(1, 9, (400, 5))
    tokens[:, 3:] = 0
    mask = (tokens > 0).long()
    pairs = zip(tokens.split(50), mask.split(50), strict=True)
    batches = [{"input_ids": ids, "attention_mask": tokens_mask} for ids, tokens_mask in pairs]
    with harness.watch(model, "up") as monitor:
        for batch in batches:
            model(**batch)
    assert dead(monitor.diagnosis()) == [2]
    assert monitor.diagnosis().rows == 1050  # 7 batches of 150 positions that are no padding
    assert "padding is left out" in monitor.diagnosis().findings[-1].evidence
    assert dead(harness.diagnose_model(model, batches, "up")) == [2]
    assert harness.diagnose_model(model, batches, "up").rows == 1200
    with harness.watch(model, "up") as monitor:
        for batch in batches:
            model(batch["input_ids"])
    assert dead(monitor.diagnosis()) == []
    declared = harness.diagnose_model(model, tokens, "up", mask=lambda batch: batch > 0)
    assert dead(declared) == [2]
    with harness.watch(model, "up", mask=lambda: ids > 0) as monitor:
        for ids in tokens.split(50):
            model(ids)
    assert dead(monitor.diagnosis()) == [2]


class Functional(nn.Module):
    """The code is read by no module, and is not the layer's output after one activation."""

    def __init__(self):
        super().__init__()
        self.fc, self.weight = nn.Linear(6, 5), nn.Parameter(torch.randn(6, 5))
        with torch.no_grad():
            self.fc.bias[3] = -1000.0

    def forward(self, rows):
        return F.linear(F.relu(0.5 * self.fc(rows) + 0.1), self.weight)


def test_a_code_that_no_hook_can_read_is_followed_in_every_step():
    torch.manual_seed(0)
    model = Functional().train()
    with harness.watch(model, "fc") as monitor:
        for batch in rows(1600).split(64):
            model(batch)
    assert dead(monitor.diagnosis()) == [3]
    assert len(monitor.history()) == 25 * 5


class Switching(nn.Module):
    """Reads the layer through a module in the first steps, and through another path later."""

    def __init__(self):
        super().__init__()
        self.fc, self.first, self.second, self.steps = nn.Linear(6, 4), nn.Linear(4, 1), nn.Linear(4, 1), 0

    def forward(self, rows):
        self.steps += 1
        code = F.relu(self.fc(rows))
        if self.steps < 10:
            return self.first(code)
        return self.second(code) + self.first(-code)


def test_a_site_that_no_longer_holds_the_code_is_found_out():
    torch.manual_seed(0)
    model = Switching().train()
    with harness.watch(model, "fc") as monitor:
        for batch in rows(64 * 40).split(64):
            model(batch)
    frame = monitor.history()
    late = frame[frame["step"] > 20]  # checked at step 17
    assert (late["mean"] > 0).all()


def test_copies_inside_the_block_are_ordinary_models(tmp_path):
    import copy

    model = built()
    with harness.watch(model, "fc2") as monitor:
        for batch in rows().split(64):
            model(batch)
        twin = copy.deepcopy(model)
        torch.save(model, tmp_path / "model.pt")
        loaded = torch.load(tmp_path / "model.pt", weights_only=False)
        for other in (twin, loaded):
            with torch.no_grad():
                other.fc2.weight.zero_()
                other.fc2.bias.fill_(1.0)
            assert not hooks(other)
            other.eval()
            assert torch.equal(other(rows()), other.fc3(torch.ones(320, 5)))
        assert monitor.step == 5
    assert not hooks(model)


def test_a_monitor_of_gradients_gives_the_layers_their_own_forward_back():
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 6))
    with harness.watch(model, "0", gradients=True) as monitor:
        for batch in rows().split(64):
            monitor.terms(loss=model(batch).square().mean())
    assert all("forward" not in vars(module) for module in model.modules())


def test_monitors_of_one_model_may_end_in_any_order():
    model = built()
    first, second = harness.watch(model, "fc2"), harness.watch(model, "fc1")
    first.__enter__()
    second.__enter__()
    model(rows())
    first.__exit__(None)
    model(rows())
    second.__exit__(None)
    model(rows())
    assert (first.step, second.step) == (1, 2)


def test_one_large_batch_behind_the_training_does_not_change_the_length_of_an_epoch():
    """Ten epochs of 3 steps of 8 rows, then all 24 rows at once: an epoch keeps 24 rows."""
    rows = torch.arange(24.0)[:, None]
    for declared in (None, 3):
        epochs = EpochCounter(declared)
        for _ in range(10):
            for batch in rows.split(8):
                epochs.add(batch)
        before = epochs.progress(np.arange(1, 31)).rows[-1]
        epochs.add(rows)
        after = epochs.progress(np.array([31])).rows[-1]
        assert before == 24
        assert 24 <= after <= 26
