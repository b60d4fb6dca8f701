"""Parts of the benchmark: a stranger with its truth, data sets, plain training, and symptoms measured in plain torch."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Case

TRAIN_ROWS, TEST_ROWS = 1600, 600
PRIOR_NATS, PRIOR_ROWS = 0.01, 0.99
MEAN_R2 = 0.05
SEEDS = (0, 1, 2)


class Observed(NamedTuple):
    """Values of a model on rows, read without the harness.

    Args:
        code: `[sample, unit]`, the values that the next layer reads.
        output: `[sample, ...]`, or None where no output is compared with the rows or targets.
        logvar: log-variances of a latent whose means are the code, or None.
    """

    code: Tensor
    output: Tensor | None = None
    logvar: Tensor | None = None


@dataclass(frozen=True)
class Symptom:
    """State of a trained model.

    Args:
        lost: units that carry nothing: constant on the rows, or with a posterior that equals the prior.
        units: number of units.
        output: "good", "mean" (R2 at most 0.05), "constant", "invalid", or "" where nothing is compared.
    """

    lost: frozenset[int]
    units: int
    output: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"lost": sorted(self.lost), "units": self.units, "output": self.output}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Symptom":
        """Return the symptom of these plain values."""
        return cls(frozenset(values["lost"]), values["units"], values["output"])

    @property
    def share(self) -> str:
        """Return "none", "some", "one left" or "all"."""
        if not self.lost:
            return "none"
        left = self.units - len(self.lost)
        return "all" if left == 0 else "one left" if left == 1 and self.units > 1 else "some"


@dataclass(frozen=True)
class Stranger:
    """A public fault, re-created small, with its corrected twin.

    Args:
        name: of the case. kind: group of the table.
        source: repository and thread, or address.
        wrong: the fault in one sentence.
        sick: makes the faulty case. twin: makes the corrected one.
        causes: names of the audit's rules that name the cause, any of them; empty: not nameable from model and loss.
        lost: share of lost units after training: none, some, one left, all; "any" where it differs between seeds.
        output: as in `Symptom`, or "any".
        fact: plain torch: True on a model of the faulty case and False on one of the twin.
        also: further faults that are true of the faulty case.
        harmless: True if the thread is about something that is no fault of training.
    """

    name: str
    kind: str
    source: str
    wrong: str
    sick: Callable[[], Case]
    twin: Callable[[], Case]
    causes: tuple[str, ...] = ()
    lost: str = "none"
    output: str = "good"
    fact: Callable[[Case, nn.Module, Tensor], bool] | None = None
    also: tuple[str, ...] = ()
    harmless: bool = False


# --- data -------------------------------------------------------------------------------------------------------------


def smooth(train: bool) -> Tensor:
    """Return 40 features between 0 and 1 that follow 5 factors."""
    draw = torch.Generator().manual_seed(11)
    factors = torch.rand(TRAIN_ROWS + TEST_ROWS, 5, generator=draw) - 0.5
    return halves(torch.sigmoid(factors @ torch.randn(5, 40, generator=draw) * 3), train)


def linear(train: bool) -> Tensor:
    """Return 24 features with mean 0 that follow 6 factors, with noise."""
    draw = torch.Generator().manual_seed(12)
    factors = torch.randn(TRAIN_ROWS + TEST_ROWS, 6, generator=draw)
    noise = torch.randn(TRAIN_ROWS + TEST_ROWS, 24, generator=draw)
    return halves(factors @ torch.randn(6, 24, generator=draw) / 2.4 + 0.2 * noise, train)


def sparse(train: bool, offset: float = 0.0) -> Tensor:
    """Return 24 features that are sums of few of 32 directions, around an offset."""
    draw = torch.Generator().manual_seed(13)
    count = TRAIN_ROWS + TEST_ROWS
    directions = F.normalize(torch.randn(32, 24, generator=draw), dim=1)
    sizes = (torch.rand(count, 32, generator=draw) < 0.06) * (0.5 + torch.rand(count, 32, generator=draw))
    away = F.normalize(torch.randn(1, 24, generator=draw), dim=1)
    return halves(sizes @ directions + offset * away, train)


def clusters(train: bool) -> Tensor:
    """Return 16 features around 24 centers."""
    draw = torch.Generator().manual_seed(14)
    count = TRAIN_ROWS + TEST_ROWS
    centers = torch.randn(24, 16, generator=draw) * 1.5
    noise = torch.randn(count, 16, generator=draw)
    return halves(centers[torch.randint(0, 24, (count,), generator=draw)] + 0.3 * noise, train)


def waves(train: bool) -> Tensor:
    """Return sequences of 12 steps: sines of varied frequency, phase and size."""
    draw = torch.Generator().manual_seed(15)
    frequency, phase, size = (torch.rand(TRAIN_ROWS + TEST_ROWS, 1, generator=draw) for _ in range(3))
    return halves((size + 0.5) * torch.sin((frequency * 0.5 + 0.35) * torch.arange(12) + 6.283 * phase), train)


def binary(train: bool) -> Tensor:
    """Return 24 features that are 0 or 1 and follow 5 factors."""
    draw = torch.Generator().manual_seed(16)
    factors = torch.randn(TRAIN_ROWS + TEST_ROWS, 5, generator=draw)
    return halves((factors @ torch.randn(5, 24, generator=draw) > 0.0).float(), train)


def digits(train: bool) -> Tensor:
    """Return scikit-learn's digits as images `[sample, 1, 8, 8]` between 0 and 1."""
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images).float().unsqueeze(1) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(17))
    return images[order[:1257]] if train else images[order[1257:]]


def halves(rows: Tensor, train: bool) -> Tensor:
    """Return the rows for training, or those for evaluation."""
    return rows[:TRAIN_ROWS].contiguous() if train else rows[TRAIN_ROWS:].contiguous()


def case(
    model: Callable[[], nn.Module], losses: Callable[..., Any], rows: Callable[[bool], Any], layer: str, **more: Any
) -> Case:
    """Return a case on one of the data sets; 12 epochs unless `train` says otherwise."""
    training = {"epochs": 12, "batch_size": 64, "learning_rate": 3e-3, **more.pop("train", {})}
    return Case(
        model=model,
        data=lambda: rows(True),
        evaluation=lambda: rows(False),
        losses=losses,
        bottleneck=layer,
        train=training,
        **more,
    )


# --- plain training and symptoms ------------------------------------------------------------------------------------


def inputs_and_targets(rows: Any) -> tuple[Tensor, Tensor | None]:
    """Return inputs and targets of a data set, the latter None where it has none."""
    if isinstance(rows, Tensor):
        return rows, None
    if isinstance(rows, torch.utils.data.TensorDataset):
        return rows.tensors[0], rows.tensors[1]
    return rows[0], rows[1]


def terms_of(case: Case, model: nn.Module, batch: Tensor, target: Tensor | None, step: int = 0) -> dict[str, Tensor]:
    """Return the loss terms as the case's function gives them."""
    names = inspect.signature(case.losses).parameters
    numbers = {name: value for name, value in case.numbers.items() if name in names}
    if "target" in names:
        numbers["target"] = target  # type: ignore[assignment]
    if "step" in names:
        numbers["step"] = step
    return dict(case.losses(model, batch, **numbers))


class Watcher:
    """What another tool sees of a training; each method does nothing unless an adapter overrides it."""

    def start(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Begin to watch."""

    def backward(self, loss: Tensor, batch: Tensor) -> None:
        """Look after the backward pass, before the step."""

    def step(self, loss: Tensor) -> None:
        """Look after the step."""


def trained(case: Case, seed: int, watcher: Watcher | None = None) -> nn.Module:
    """Return a model of the case, trained by a plain loop that a tool may watch."""
    watcher = watcher or Watcher()
    torch.manual_seed(seed)
    model = case.model()
    inputs, targets = inputs_and_targets(case.data())
    parameters = list(model.parameters())
    rate = float(case.train["learning_rate"])
    optimizer = case.optimizer(parameters) if case.optimizer else torch.optim.Adam(parameters, rate)
    model.train()
    watcher.start(model, optimizer)
    step = 0
    for _ in range(int(case.train["epochs"])):
        for index in torch.randperm(len(inputs)).split(int(case.train["batch_size"])):
            terms = terms_of(case, model, inputs[index], None if targets is None else targets[index], step)
            step += 1
            loss = sum(torch.as_tensor(term) for term in terms.values())
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                return model.eval()
            optimizer.zero_grad()
            loss.backward()
            watcher.backward(loss.detach(), inputs[index])
            optimizer.step()
            watcher.step(loss.detach())
    return model.eval()


def symptom(case: Case, model: nn.Module) -> Symptom:
    """Measure the symptom of a trained model on the evaluation rows, in plain torch."""
    inputs, targets = inputs_and_targets(case.evaluation())  # type: ignore[misc]
    torch.manual_seed(0)
    with torch.no_grad():
        observed = model.observe(inputs)  # type: ignore[operator]
    code, output, logvar = observed
    expected = inputs if targets is None else targets
    return Symptom(frozenset(_lost(code, logvar)), code.shape[1], _output_state(output, expected))


def _lost(code: Tensor, logvar: Tensor | None) -> list[int]:
    values = code.double()
    if not torch.isfinite(values).all():
        return list(range(code.shape[1]))
    spread = values.amax(0) - values.amin(0)
    lost = spread <= 64 * torch.finfo(code.dtype).eps * values.abs().amax(0).clamp_min(1e-30)
    if logvar is not None:
        variance = logvar.double()
        divergence = -0.5 * (1 + variance - values**2 - variance.exp())
        lost |= (divergence < PRIOR_NATS).double().mean(0) >= PRIOR_ROWS
    return lost.nonzero().flatten().tolist()


def _output_state(output: Tensor | None, expected: Tensor) -> str:
    if output is None:
        return ""
    if not torch.isfinite(output).all():
        return "invalid"
    made, rows = (values.double().reshape(len(values), -1) for values in (output, expected))
    if float((made - made[:1]).abs().max()) <= 1e-5 * max(float(made.abs().max()), 1e-30):
        return "constant"
    r2 = 1 - float((made - rows).square().sum() / (rows - rows.mean(0)).square().sum())
    return "mean" if r2 <= MEAN_R2 else "good"


def gradients(case: Case, term: str, seed: int = 0) -> dict[str, float]:
    """Return the norm of a term's gradient at every parameter of a new model, -1 where no path leads to it."""
    torch.manual_seed(seed)
    model = case.model()
    inputs, targets = inputs_and_targets(case.data())
    value = terms_of(case, model, inputs[:64], None if targets is None else targets[:64])[term]
    named = dict(model.named_parameters())
    if not isinstance(value, Tensor) or not value.requires_grad:
        return dict.fromkeys(named, -1.0)
    found_gradients = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    pairs = zip(named, found_gradients, strict=True)
    return {name: -1.0 if gradient is None else float(gradient.norm()) for name, gradient in pairs}
