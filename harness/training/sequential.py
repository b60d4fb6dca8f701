"""Members trained one after the other in a plain loop: for programs that cannot be batched. Same interface as `Stacked`."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.capture import eval_mode
from harness.case import Case, set_seed
from harness.models import accumulation_dtype, build_model, precision_for
from harness.remedies.gradients import gradient_norms
from harness.training.graph.nested import restore_nesting
from harness.training.program import BottleneckView, Program, State
from harness.training.rng import RandomCall, RandomOverride, RandomStream, generator
from harness.training.stacked import Keep, joined, whole


class SequentialEngine:
    """A plain PyTorch loop over members, with the case's own optimiser.

    Args:
        cases: one treated case a member.
        seeds: one seed a member.
        rows: the training inputs, for their dtype and shape; of integers, the model's own precision holds.
    """

    def __init__(self, cases: Sequence[Case], seeds: Sequence[int], rows: Tensor) -> None:
        self.members = [MemberModel(case, seed, rows) for case, seed in zip(cases, seeds, strict=True)]

    @property
    def precision(self) -> torch.dtype:
        """In what the members compute."""
        return self.members[0].precision

    def step(self, batch: Tensor) -> tuple[Tensor, State]:
        """One optimiser step of each member on its rows of `[member, sample, *feature]`."""
        done = [member.step(rows) for member, rows in zip(self.members, batch, strict=True)]
        return torch.stack([total for total, _ in done]), _together([terms for _, terms in done])

    def totals(self, batch: Tensor) -> Tensor:
        """What the next step would find as totals, `[member]`; nothing is stepped, but buffers and draws go on."""
        return torch.stack([member.total(rows)[0] for member, rows in zip(self.members, batch, strict=True)]).detach()

    def losses(self, batch: Tensor) -> State:
        """The loss terms on a batch in eval mode, `[member]` each, with `total`."""
        return _together([member.losses(rows) for member, rows in zip(self.members, batch, strict=True)])

    @property
    def replaces_code(self) -> bool:
        """False if an observation with held units could not put them into the forward pass."""
        return all(member.program.replaces_code for member in self.members)

    def observe(
        self, rows: Tensor, purpose: str = "observation", keep: Keep | None = whole, held: Tensor | None = None
    ) -> BottleneckView:
        """What the bottlenecks do on `[sample, *feature]`, in eval mode; another purpose draws other random numbers.

        Args:
            rows: seen at once. purpose: of the random numbers.
            keep: what is kept of the reconstruction, given that and its rows; None where it is not wanted.
            held: numbers at which units are held, `[member, unit]`, NaN for those that are not; None where none is.
        """
        fixed = [None] * len(self.members) if held is None else held
        parts = [member.observe(rows, purpose, each) for member, each in zip(self.members, fixed, strict=True)]
        names = set.intersection(*(set(part) for part in parts)) - ({"reconstruction"} if keep is None else set())
        seen = {name: torch.stack([part[name] for part in parts]) for name in names}
        if keep is not None and "reconstruction" in seen:
            seen["reconstruction"] = keep(seen["reconstruction"], rows)
        return joined([seen], self.members[0].activation)

    def repeats(self, rows: Tensor) -> bool:
        """Whether observing these rows once more could only give the same numbers: not known of plain code."""
        return False

    def gradients(self, batch: Tensor) -> dict[str, Tensor]:
        """The norm of each term's gradient at the output of the bottleneck's module, over all its calls, `[member]`."""
        return _together([member.gradients(rows) for member, rows in zip(self.members, batch, strict=True)])

    def state_of(self, member: int) -> State:
        """A member's parameters and buffers under the names of its model."""
        return {name: value.detach().clone() for name, value in self.members[member].model.state_dict().items()}


class MemberModel:
    """One model, its optimiser and its own source of random numbers."""

    def __init__(self, case: Case, seed: int, rows: Tensor) -> None:
        self.case, self.seed, self.steps = case, seed, 0
        model = build_model(case, seed, rows[:4])
        self.precision = precision_for(model, rows)
        self.model = model.to(self.precision)
        self.program = Program(case, self.model)
        self.numbers = {name: float(value) for name, value in case.numbers.items()}
        self._draws = RandomStream([seed], "training", self.precision, rows.device)

    @property
    def activation(self) -> str:
        """The name of the bottleneck's activation, once it was observed."""
        return self.program.activation

    @cached_property
    def optimiser(self) -> torch.optim.Optimizer:
        """Made when it first steps: torch loads its compiler for it, a second and a half."""
        return _optimiser(self.case, self.model)

    def total(self, batch: Tensor) -> tuple[Tensor, State]:
        """The total and the terms of the loss in training mode."""
        self.program.train()
        with _seeded(self.seed, f"step {self.steps}"), LiveRandom(self._draws):
            terms = self.program(batch, self.numbers)
        return self.case.total(terms, self.numbers), terms

    def step(self, batch: Tensor) -> tuple[Tensor, State]:
        """One optimiser step; the total and the terms before it."""
        self.optimiser.zero_grad()
        total, terms = self.total(batch)
        if total.requires_grad:
            total.backward()
            self.optimiser.step()
        self.steps += 1
        return total.detach(), {name: value.detach() for name, value in terms.items()}

    def losses(self, batch: Tensor) -> State:
        """The loss terms in eval mode, and `total`."""
        kept = {name: value.clone() for name, value in self.model.named_buffers()}
        with torch.no_grad(), self._looked_at("evaluation"):
            terms = self.program(batch, self.numbers)
        for name, value in self.model.named_buffers():
            value.data.copy_(kept[name])
        return {**terms, "total": self.case.total(terms, self.numbers)}

    def observe(self, rows: Tensor, purpose: str, held: Tensor | None = None) -> dict[str, Tensor]:
        """What the bottleneck does on these rows, with units held or none."""
        with torch.no_grad(), self._looked_at(purpose):
            return self.program.look(rows, held)

    def gradients(self, batch: Tensor) -> dict[str, Tensor]:
        """The norm of each term's gradient at the bottleneck's output; 0 for a term without one."""
        with self._looked_at("evaluation"):
            norms = gradient_norms(self.case, self.model, batch, self.numbers)
        return {name: torch.tensor(value, dtype=accumulation_dtype(self.precision)) for name, value in norms.items()}

    @contextmanager
    def _looked_at(self, purpose: str) -> Iterator[None]:
        """Eval mode, seeded; a model that sets its own parameters as it runs has them back afterwards."""
        with restore_nesting(list(self.model.parameters())), eval_mode(self.model), _seeded(self.seed, purpose):
            yield


class LiveRandom(RandomOverride):
    """Draws a member's numbers as they are asked for, the same that a stack would have drawn for it."""

    def __init__(self, source: RandomStream) -> None:
        super().__init__({})
        self.source = source

    def _numbers(self, kind: str, shape: tuple[int, ...], like: Tensor | None) -> Tensor:
        site = RandomCall(kind, shape, self._count[kind, shape])
        self._count[kind, shape] += 1
        return self.source.take([site])[site.purpose][0].clone()  # the model may write to it


def _optimiser(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    trained = [value for value in model.parameters() if value.requires_grad]
    if case.optimizer is None:
        return torch.optim.Adam(trained, lr=case.training()["learning_rate"])
    made = case.optimizer(list(model.parameters()))
    if "learning_rate" in case.train:
        for group in made.param_groups:
            group["lr"] = case.train["learning_rate"]
    return made


@contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    """Global random states that depend on the member and the purpose alone, and come back as they were."""
    start = generator(seed, purpose).initial_seed()
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  # the user's code may use the global state
    with torch.random.fork_rng():
        set_seed(start)
        random.seed(start)
        np.random.seed(start % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


def _together(parts: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
