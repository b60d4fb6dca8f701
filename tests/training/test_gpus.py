"""The same laws on a GPU, where there is one: the reference is a plain PyTorch loop on the same device."""

from dataclasses import replace

import pytest
import torch
from reference_loop import TRAIN, last, plain_loop
from torch import nn

import harness
from harness.data import split_of
from harness.data.rows import Rows
from harness.errors import HarnessError
from harness.execution.run_stack import run_stack
from harness.execution.spec import StackMember, StackSpec
from harness.experiment import run_experiment
from harness.remedies import apply_remedies
from harness.training import check_device, check_vmap_support, device_of, gpu_is_lost, train
from harness.training.graph import capture
from harness.training.stacked import StackedEngine

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
LEVELS = [
    {},
    {"penalty": "kl_sigmoid_of_preactivation", "activation": "leaky_relu"},
    {"penalty": "kl_sigmoid_bottleneck", "units": 3},
    {"penalty": "topk"},
    {"activation": "gelu"},
    {"batchnorm": "on", "batch_size": 45},
    {"dropout": 0.3},
]


@pytest.fixture(autouse=True)
def cuda_graph_early(monkeypatch):
    """Every law holds for a step as a function (1, 2), as a list (3), and as a CUDA graph (from 4 on)."""
    monkeypatch.setattr(capture, "CUDA_GRAPH_AT", 4)


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.code = nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Linear(200, 8)
        self.up, self.out = nn.Linear(8, 200), nn.ConvTranspose2d(8, 1, 2, stride=2)

    def forward(self, rows):
        hidden = self.first(rows.view(-1, 1, 10, 10)).relu().flatten(1)
        return self.out(self.up(self.code(hidden).relu()).relu().view(-1, 8, 5, 5)).flatten(1)


class Wide(nn.Module):
    """Too large to share a processor, not to share a GPU."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Sequential(nn.Linear(100, 500), nn.ReLU()), nn.Linear(500, 100)

    def forward(self, rows):
        return self.decoder(self.encoder(rows))


class Stranger(nn.Module):
    """Its author knew the processor only."""

    def __init__(self):
        super().__init__()
        self.code, self.back = nn.Linear(100, 3), nn.Linear(3, 100)

    def forward(self, rows):
        return self.back(self.code(rows).relu() * torch.tensor([0.0, 1.0, 1.0]))


def losses(model, batch):
    return {"reconstruction": nn.functional.mse_loss(model(batch), batch)}


def own(model, split, bottleneck="code", **train):
    return harness.Case(model, lambda: split.train, losses, bottleneck, train={**TRAIN, **train})


def cases(forum, split):
    yield from (apply_remedies(replace(forum, train=TRAIN), levels, split) for levels in LEVELS)
    yield own(Convolutional, split)
    yield own(Wide, split, "encoder")


@pytest.fixture(params=range(len(LEVELS) + 2), ids=[*map(str, LEVELS), "convolutional", "wide"])
def case(request, forum, split):
    return list(cases(forum, split))[request.param]


@on_a_gpu
def test_a_stack_equals_a_plain_loop_on_the_same_gpu(case, split):
    engine = last(train([case] * 2, [3, 4], split, device="cuda", dtype=torch.float64)).engine
    for member, seed in enumerate((3, 4)):
        wanted = plain_loop(case, seed, split.train.inputs.double().cuda(), 10**9)[0].state_dict()
        for name, value in engine.state_of(member).items():
            torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-9)


@on_a_gpu
def test_a_member_has_the_same_bits_in_any_stack_and_every_time(case, split):
    found = check_vmap_support(case, split.train.inputs.cuda())
    few = last(train([case] * 64, [5] * 64, split, found, "cuda")).engine
    again = last(train([case] * 64, [5] * 64, split, found, "cuda")).engine
    assert found.filled(1) == found.filled(64) == 64
    for size in (128, 320):
        many = last(train([case] * size, [*range(100, 110), 5, *range(111, 100 + size)], split, found, "cuda")).engine
        for name, value in few.state_of(0).items():
            assert torch.equal(value, again.state_of(63)[name]), name
            assert torch.equal(value, many.state_of(10)[name]), (size, name)


@on_a_gpu
def test_a_step_is_one_cuda_graph(case, split):
    rows = split.train.inputs.cuda()
    found = check_vmap_support(case, rows)
    stack = StackedEngine([case] * 64, range(64), found.rule, rows, found.fixed, found.shares)
    for _ in range(5):
        stack.step(rows[:70].expand(64, 70, 100))
    (operations,) = stack._descent._lists.values()
    assert "replayed" in operations._run.__qualname__


@on_a_gpu
def test_a_member_that_becomes_nan_leaves_the_others_bit_for_bit_alone_on_a_gpu(forum, split):
    calm = replace(forum, train=TRAIN)
    wild = replace(calm, train={**TRAIN, "learning_rate": 1e30})
    alone = last(train([calm] * 64, [0] * 64, split, device="cuda")).engine
    mixed = last(train([wild, *[calm] * 63], [0] * 64, split, device="cuda"))
    there = last(train([wild] * 8, [0] * 8, split))
    assert mixed.diverged.tolist() == [int(there.diverged[0]), *[-1] * 63]
    assert all(torch.equal(value, mixed.engine.state_of(1)[name]) for name, value in alone.state_of(1).items())


@on_a_gpu
@pytest.mark.parametrize("levels", [{}, {"dropout": 0.2}, {"penalty": "none"}, {"optimiser": "another"}], ids=str)
def test_the_records_of_a_gpu_say_what_those_of_a_processor_do(levels):
    other = levels.pop("optimiser", "")
    case = replace(harness.load_case("forum"), optimizer=torch.optim.RMSprop if other else None)
    members = tuple(StackMember(f"k{seed}", "v", levels, seed) for seed in range(3))
    gpu, cpu = (
        run_stack(StackSpec(case, None, members, {"epochs": 6, "snapshot_every": 3, "device": device}))
        for device in ("auto", "cpu")
    )
    for one, two in zip(gpu, cpu, strict=True):
        assert (one.status, one.verdict, one.live_units) == (two.status, two.verdict, two.live_units), one.error
        assert (one.gpu, two.gpu) == (torch.cuda.get_device_name(), None)
        assert one.losses == pytest.approx(two.losses, rel=0.1)  # float32: a ReLU that flips is enough
        assert set(one.history) == set(two.history)


@on_a_gpu
def test_what_runs_on_a_processor_only_does_so_unless_the_gpu_is_asked_for(split):
    case = own(Stranger, split)
    assert device_of(case, split.train.inputs) == "cpu"
    assert device_of(own(Convolutional, split), split.train.inputs) == "cuda"
    asked, left = (
        run_stack(StackSpec(case, None, (StackMember("k", "v", {}, 0),), {"device": device}))[0]
        for device in ("cuda", "auto")
    )
    assert (asked.status, left.status) == ("failed", "ok")
    assert "cuda" in asked.error


@on_a_gpu
def test_a_token_past_the_end_of_its_table_never_reaches_the_gpu(split):
    def model():
        return nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(24, 3), nn.ReLU(), nn.Linear(3, 24))

    def missed(model, batch):
        return {"reconstruction": (model(batch) - model[:2](batch)).square().mean()}

    rows = torch.arange(120).view(20, 6) % 5
    good = harness.Case(model, lambda: rows, missed, "2", train=TRAIN)
    assert device_of(good, rows) == "cuda"
    assert device_of(good, torch.cat([rows, torch.full((1, 6), 5)])) == "cpu"
    assert not gpu_is_lost()


@on_a_gpu
def test_models_and_rows_of_a_gpu_are_audited_as_those_of_a_processor(split):
    train = split.train
    there = Rows(train.inputs.cuda(), factors={name: each.cuda() for name, each in train.factors.items()})
    found, wanted = (
        harness.audit(own(model, replace(split, train=rows))).to_dict()
        for model, rows in ((lambda: Convolutional().cuda(), there), (Convolutional, train))
    )
    assert found["findings"] == wanted["findings"]


@on_a_gpu
def test_numbers_of_a_gpu_are_judged_as_those_of_a_processor(split):
    code = (split.train.inputs[:, :5] * torch.tensor([1.0, 0.0, 1.0, -1.0, 2.0])).relu()
    labels = (split.train.inputs[:, 0] > 0).long()
    given = {"activation": "relu", "labels": labels, "inputs": split.train.inputs}
    there = {name: each.cuda() if torch.is_tensor(each) else each for name, each in given.items()}
    assert harness.diagnose(code.cuda(), **there).to_dict() == harness.diagnose(code, **given).to_dict()
    for measure in (harness.mutual_information, harness.dependence):
        assert repr(measure(code[:, :2].cuda(), labels.cuda())) == repr(measure(code[:, :2], labels))


@pytest.mark.parametrize("device", ["cuda:99", "mps"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_written(device, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    file = tmp_path / "one.yaml"
    file.write_text(
        f"name: one\ncase: forum\nfactors: {{penalty: [none, topk]}}\nseeds: 1\ntrain: {{device: {device}}}\n"
    )
    with pytest.raises(HarnessError, match=f"expected a device that torch finds here, got {device}"):
        run_experiment(file, root=tmp_path)
    assert list(tmp_path.iterdir()) == [file]


def test_a_processor_is_always_here(split):
    check_device("cpu")
    assert device_of(own(Wide, split, device="cpu"), split_of(own(Wide, split)).train.inputs) == "cpu"
