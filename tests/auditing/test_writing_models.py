"""An audit finds the same in a model that writes to its activations as in its twin that writes nowhere."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from in_place import PAIRS, twins
from penalty_zoo import HONEST, PLANTED, Plain, case_of, data, images
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness import Case
from harness.auditing import audit
from harness.capture import submodule
from harness.remedies.gradients import gradient_norms

pytestmark = pytest.mark.many

WRITES = {F.relu: torch.relu_, torch.relu: torch.relu_, torch.sigmoid: torch.sigmoid_}
# these read what enters the code's activation under another name, and another program would do so if that were overwritten
READ_BEFORE = (
    "sigmoid of the pre-activation",
    "sigmoid of a hooked output",
    "before batch norm",
    "KL of the sigmoid, computed again",
    "a penalty on a hook",
    "top-k",
    "mean over units, from logits",
    "squares of a sigmoid code's logits",
    "mean of a sigmoid code's logits",
    "sigmoid behind batch norm, from its logits",
    "KL of a sigmoid code from its logits",
    "KL of a sigmoid code from a hooked output",
    "distance of a sigmoid's mean, from its logits",
)


class Writing(TorchFunctionMode):
    """Makes activations write to what they are given, but for those at the places to spare."""

    def __init__(self, spared: tuple[int, ...]) -> None:
        super().__init__()
        self.spared, self.count = spared, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        writes = WRITES.get(func)
        if writes is None:
            return func(*args, **(kwargs or {}))
        self.count += 1
        return writes(args[0]) if self.count - 1 not in self.spared else func(*args, **(kwargs or {}))


def writing(case: Case, spared: tuple[int, ...] = ()) -> Case:
    """The case whose model writes to its activations in the forward pass."""

    def build(**keywords):
        model = case.model(**keywords)
        plain = model.forward

        def forward(*args, **kwargs):
            with Writing(spared):
                return plain(*args, **kwargs)

        model.forward = forward
        return model

    return replace(case, model=build)


def said(found):
    """Every finding with its numbers, to six digits, and every rule that was left undecided."""
    findings = {
        (each.term, each.rule, each.severity, tuple((name, f"{v:.6g}") for name, v in sorted(each.numbers.items())))
        for each in found.findings
    }
    return findings, {(each.term, each.rule) for each in found.undecided}


@pytest.mark.parametrize("name", [*PLANTED, *HONEST])
def test_a_case_and_its_twin_that_writes_get_the_same_findings(name):
    case = PLANTED[name][0]() if name in PLANTED else HONEST[name]()
    spared = (1,) if name in READ_BEFORE else ()
    first, second = (audit(each, "light" in name, seeds=1) for each in (case, writing(case, spared)))
    assert said(first) == said(second)


ALIKE = ("F.relu", "F.relu_", "torch.relu_", "clamp_min_", "nn.LeakyReLU", "elu", "hardtanh_", "x -= b", "masked_fill_")


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ALIKE])
def test_whatever_writes_is_audited_as_its_twin(name):
    first, second = (audit(case, during_training=False, seeds=1) for case in twins(name))
    assert said(first) == said(second)


class Small(nn.Module):
    """As in most public code: every ReLU writes, in containers."""

    def __init__(self, writes: bool = True) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 16), nn.ReLU(writes), nn.Linear(16, 6), nn.ReLU(writes))
        self.decoder = nn.Sequential(nn.Linear(6, 16), nn.ReLU(writes), nn.Linear(16, 20))

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(batch)
        return code, self.decoder(code)


class Convolutional(nn.Module):
    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(writes)),
            *(nn.Conv2d(6, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(writes)),
        )
        self.decoder = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2), nn.ReLU(writes), nn.ConvTranspose2d(6, 1, 2, 2))

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(batch)
        return code, self.decoder(code)


class Residual(nn.Module):
    def __init__(self, writes: bool) -> None:
        super().__init__()
        sizes = ((12, 16), (16, 16), (16, 16), (16, 4), (4, 16), (16, 12))
        self.first, self.one, self.two, self.code, self.back, self.last = (nn.Linear(*size) for size in sizes)
        self.writes = writes

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.first(batch)
        more = self.two(F.relu(self.one(hidden), inplace=self.writes))
        if self.writes:
            more += hidden
        else:
            more = more + hidden
        code = F.relu(self.code(F.relu(more, inplace=self.writes)), inplace=self.writes)
        return code, self.last(F.relu(self.back(code), inplace=self.writes))


class Recurrent(nn.Module):
    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.rnn, self.back, self.writes = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 3), writes

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        code = F.relu(self.rnn(batch)[0], inplace=self.writes)
        return code, self.back(code)


class WritesFirst(nn.Module):
    """The decoder begins by writing to the code that the encoder has returned."""

    def __init__(self, writes: bool) -> None:
        super().__init__()
        self.enc, self.dec = nn.Linear(12, 4), nn.Sequential(nn.LeakyReLU(0.2, writes), nn.Linear(4, 12))

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        code = self.enc(batch)
        return self.dec(code), batch


def rows() -> Tensor:
    return torch.randn(400, 20, generator=torch.Generator().manual_seed(0))


def series() -> Tensor:
    return torch.randn(128, 6, 3, generator=torch.Generator().manual_seed(2))


def losses(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    code, made = model(batch)
    return {"reconstruction": F.mse_loss(made, batch), "l1": 1e-2 * code.abs().mean()}


def only_reconstruction(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    return {"reconstruction": F.mse_loss(model(batch)[0], batch)}


NETWORKS = {
    "a layer in a container": (Small, rows, "encoder.2", losses, "out:1"),
    "the container": (Small, rows, "encoder", losses, "out:1"),
    "an output": (Small, rows, "out:0", losses, "out:1"),
    "convolutions": (Convolutional, images, "encoder.3", losses, "out:1"),
    "a residual sum": (Residual, data, "code", losses, "out:1"),
    "a recurrent layer": (Recurrent, series, "rnn", losses, "out:1"),
    "a decoder that writes first": (WritesFirst, data, "enc", only_reconstruction, "out:0"),
}


def network_twins(name: str) -> tuple[Case, Case]:
    build, load, bottleneck, loss, output = NETWORKS[name]
    first, second = (
        Case(lambda writes=writes: build(writes), load, loss, bottleneck, reconstruction=output)
        for writes in (False, True)
    )
    return first, second


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_many_kinds_are_audited_as_their_twins(name):
    first, second = (audit(case, "container" in name, seeds=1) for case in network_twins(name))
    assert said(first) == said(second)
    assert not second.faults, str(second)


def test_a_healthy_network_that_writes_has_no_symmetric_units_and_nothing_undecided():
    # a third of the hidden units of the decoder are off on all rows at birth: zeros once the ReLU has written
    found = audit(Case(Small, rows, losses, "encoder.2"))
    assert found.faults == ()
    assert found.undecided == ()


def test_dead_units_are_no_copies_of_one_another():
    class Own(nn.Module):
        """A layer that ends in a ReLU of its own, and of whose units three are off on every row."""

        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.randn(6, 12) / 4), nn.Parameter(torch.zeros(6))
            self.bias.data[3:] = -50.0

        def forward(self, batch: Tensor) -> Tensor:
            return F.relu(F.linear(batch, self.weight, self.bias))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc, self.dec = Own(), nn.Linear(6, 12)

        def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
            code = self.enc(batch)
            return code, self.dec(code)

    found = audit(Case(Model, data, losses, "enc", reconstruction="out:1"), during_training=False)
    assert "symmetric_init" not in found.rules, str(found)


@pytest.mark.parametrize(("value", "count"), [(0.0, 3), (0.1, 3)])
def test_units_that_start_alike_are_symmetric_if_they_start_at_zero_too(value, count):
    class Alike(Plain):
        def __init__(self) -> None:
            super().__init__()
            nn.init.constant_(self.enc2.weight, value)

    for case in (case_of(None, Alike), writing(case_of(None, Alike))):
        (finding,) = [each for each in audit(case, during_training=False).findings if each.rule == "symmetric_init"]
        assert finding.numbers == {"enc2": count}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_at_the_bottleneck_are_those_of_the_twin(name):
    norms = []
    for case in network_twins(name):
        torch.manual_seed(0)
        model, batch = case.model(), case.data()[:32]
        norms.append(gradient_norms(case, model, batch, {}))
        handles = [] if case.bottleneck.startswith("out:") else submodule(model, case.bottleneck)._forward_hooks
        assert len(handles) == 0
    assert norms[0] == norms[1]
    assert norms[0]["reconstruction"] > 0


def test_a_penalty_on_what_a_hook_of_the_author_keeps_has_its_gradient_at_the_bottleneck():
    case = case_of(lambda m, c, b: m.saved["raw"].abs().mean())
    torch.manual_seed(0)
    model, batch = case.model(), case.data()[:32]
    norms = gradient_norms(case, model, batch, {})
    before = model.enc2(torch.relu(model.enc1(batch)))
    (gradient,) = torch.autograd.grad(before.abs().mean(), before)
    assert norms["penalty"] == pytest.approx(float(gradient.norm()), rel=1e-6)
