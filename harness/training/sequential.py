"""Members trained one after the other in a plain loop, for programs that cannot be batched; interface of `StackedEngine`."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.capture import eval_mode
from harness.case import RAMP, Case, set_seed, training_optimizer
from harness.errors import HarnessError
from harness.models import accumulation_dtype, build_model, cast_floats, precision_for
from harness.remedies.gradients import gradient_norms
from harness.training.graph.nested import restore_nesting
from harness.training.observed_parts import joined, mixes_rows, parts_of
from harness.training.program import BottleneckView, Program, State
from harness.training.rng import RandomCall, RandomOverride, RandomStream, generator
from harness.training.schedules import advance, make_scheduler, training_steps
from harness.training.stacked import NOTHING, Keep, identity
from harness.user_code import failure, guarded


class SequentialEngine:
    """Plain PyTorch loop over members, with the case's own optimizer.

    Args:
        cases: one treated case a member.
        seeds: one seed a member.
        rows: the training inputs, for their dtype and shape; with integers, the precision is the model's.
    """

    def __init__(self, cases: Sequence[Case], seeds: Sequence[int], rows: Tensor) -> None:
        self.cases = list(cases)
        self.members = [MemberModel(case, seed, rows) for case, seed in zip(cases, seeds, strict=True)]
        self._mixes_rows: bool | None = None  # known after the first observation

    @property
    def precision(self) -> torch.dtype:
        """Precision in which the members compute."""
        return self.members[0].precision

    def step(self, batch: Tensor, extras: Mapping[str, Any] = NOTHING) -> tuple[Tensor, State]:
        """Take one optimizer step of each member on its rows of `[member, sample, *feature]`."""
        done = [member.step(rows, own) for member, rows, own in self._zipped(batch, extras)]
        return torch.stack([total for total, _ in done]), _stacked([terms for _, terms in done])

    def totals(self, batch: Tensor, extras: Mapping[str, Any] = NOTHING) -> Tensor:
        """Return the totals of the next step, `[member]`, without stepping; buffers and random numbers advance."""
        return torch.stack([member.total(rows, own)[0] for member, rows, own in self._zipped(batch, extras)]).detach()

    def losses(self, batch: Tensor, extras: Mapping[str, Any] = NOTHING) -> State:
        """Return the loss terms on a batch in eval mode, `[member]` each, with `total`."""
        return _stacked([member.losses(rows, own) for member, rows, own in self._zipped(batch, extras)])

    @property
    def replaces_code(self) -> bool:
        """False if an observation with held units could not put them into the forward pass."""
        return all(member.program.replaces_code for member in self.members)

    @property
    def reads_code(self) -> bool:
        """False where no layer was seen to read the code."""
        return all(member.program.reads_code for member in self.members)

    def observe(
        self, rows: Tensor, purpose: str = "observation", keep: Keep | None = identity, clamp: Tensor | None = None
    ) -> BottleneckView:
        """Observe the bottlenecks on `[sample, *feature]` in eval mode.

        Args:
            rows: the rows, observed at once; in batches of the training where a row depends on its batch.
            purpose: purpose of the random numbers; another purpose draws other numbers.
            keep: function of the reconstruction and its rows whose result is kept; None for no reconstruction.
            clamp: values at which numbers of the code are fixed, `[member, number]`, NaN for free ones; None for none.
        """
        values = [None] * len(self.members) if clamp is None else clamp
        views = []
        for part, new in parts_of(rows, self._observed_together(rows)):
            looks = [
                member.observe(part, purpose, numbers) for member, numbers in zip(self.members, values, strict=True)
            ]
            names = set.intersection(*map(set, looks)) - ({"reconstruction"} if keep is None else set())
            view = {name: torch.stack([look[name] for look in looks]) for name in names}
            view = {name: value if name == "scale" else value[..., new, :] for name, value in view.items()}
            if keep is not None and "reconstruction" in view:
                view["reconstruction"] = keep(view["reconstruction"], part[new])
            views.append(view)
        return joined(views, self.members[0].activation, self.members[0].program.form)

    def _observed_together(self, rows: Tensor) -> int:
        """Return the number of rows observed at once."""
        first = self.members[0]
        if self._mixes_rows is None:
            with first._observing("observation"):
                self._mixes_rows = mixes_rows(first.program, rows, int(first.case.training()["batch_size"]))
        return int(first.case.training()["batch_size"]) if self._mixes_rows else len(rows)

    def repeats(self, rows: Tensor) -> bool:
        """Return False: plain code may give other numbers when it observes the same rows again."""
        return False

    def gradients(self, batch: Tensor, extras: Mapping[str, Any] = NOTHING) -> dict[str, Tensor]:
        """Return the norm of each term's gradient at the output of the bottleneck's module, over all calls, `[member]`."""
        return _stacked([member.gradients(rows, own) for member, rows, own in self._zipped(batch, extras)])

    def fit(self) -> Tensor:
        """Train each member by the case's own function; return True for members with a non-finite value, `[member]`."""
        for member in self.members:
            member.fit()
        return torch.tensor([not member.is_finite() for member in self.members])

    def state_of(self, member: int) -> State:
        """Return a member's parameters and buffers under the names of its model."""
        return {name: value.detach().clone() for name, value in self.members[member].model.state_dict().items()}

    def _zipped(
        self, batch: Tensor, extras: Mapping[str, Any]
    ) -> Iterator[tuple["MemberModel", Tensor, dict[str, Any]]]:
        """Yield each member with its rows and its own extras."""
        for index, (member, rows) in enumerate(zip(self.members, batch, strict=True)):
            yield member, rows, {name: value[index] if name == "target" else value for name, value in extras.items()}


class MemberModel:
    """One model, its optimizer and its random numbers."""

    def __init__(self, case: Case, seed: int, rows: Tensor) -> None:
        self.case, self.seed, self.steps = case, seed, 0
        self.device = rows.device
        self.training_steps = training_steps(case, len(rows))
        model = build_model(case, seed, rows[:4])
        self.precision = precision_for(model, rows)
        self.model = model.to(self.precision)
        self.program = Program(case, self.model)
        self.numbers = {name: float(value) for name, value in case.numbers.items()}
        self._draws = RandomStream([seed], "training", self.precision, rows.device)

    @property
    def activation(self) -> str:
        """Name of the bottleneck's activation, after an observation."""
        return self.program.activation

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """Optimizer, made at the first step because torch loads its compiler for it (1.5 seconds)."""
        return training_optimizer(self.case, self.model)

    @cached_property
    def scheduler(self) -> Any:
        """Scheduler of the optimizer, or None."""
        return make_scheduler(self.case, self.optimizer, self.training_steps)

    def total(self, batch: Tensor, extras: Mapping[str, Any]) -> tuple[Tensor, State]:
        """Return the total and the terms of the loss in training mode."""
        self.program.train()
        with _seeded(self.seed, f"step {self.steps}"), LiveRandom(self._draws):
            numbers = self._numbers(extras)
            terms = self.program(batch, numbers)
        return self.case.total(terms, numbers), terms

    def step(self, batch: Tensor, extras: Mapping[str, Any]) -> tuple[Tensor, State]:
        """Take one optimizer step; return the total and the terms before it."""
        scheduler = self.scheduler  # made before the first step: it may set the rate of that step
        self.optimizer.zero_grad()
        total, terms = self.total(batch, extras)
        if total.requires_grad:
            total.backward()
            if self.case.clip is not None:
                trained = [value for group in self.optimizer.param_groups for value in group["params"]]
                torch.nn.utils.clip_grad_norm_(trained, self.case.clip)
            self.optimizer.step()
        if scheduler is not None:
            advance(self.case, scheduler)
        self.steps += 1
        return total.detach(), {name: value.detach() for name, value in terms.items()}

    def fit(self) -> None:
        """Train the model by the case's own function, under random states of the member.

        Raises:
            HarnessError: when the function fails.
        """
        assert self.case.fit is not None
        self.model.train()
        try:
            with _seeded(self.seed, "fit"), guarded():
                self.case.fit(self.model, self.seed)
        except Exception as error:
            raise HarnessError(f"{self.case.name}: fit(model, seed) {failure(error)}") from error
        self.model.to(self.device, self.precision)

    def is_finite(self) -> bool:
        """Return True if all parameters and buffers are finite."""
        return all(bool(value.isfinite().all()) for value in self.model.state_dict().values())

    def losses(self, batch: Tensor, extras: Mapping[str, Any]) -> State:
        """Return the loss terms in eval mode, and `total`; nothing for a case without a loss."""
        if not self.case.has_losses:
            return {}
        numbers = self._numbers(extras)
        try:
            terms = self._evaluated(batch, numbers, with_graph=False)
        except RuntimeError:  # a penalty on a gradient, such as a contractive one, needs the graph
            terms = self._evaluated(batch, numbers, with_graph=True)
        return {**terms, "total": self.case.total(terms, numbers)}

    def _evaluated(self, batch: Tensor, numbers: Mapping[str, Any], with_graph: bool) -> State:
        """Return the loss terms in eval mode; the buffers are restored."""
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        try:
            with torch.set_grad_enabled(with_graph), self._observing("evaluation"):
                return {name: value.detach() for name, value in self.program(batch, numbers).items()}
        finally:
            for name, value in self.model.named_buffers():
                value.data.copy_(buffers[name])

    def observe(self, rows: Tensor, purpose: str, clamp: Tensor | None = None) -> dict[str, Tensor]:
        """Return the bottleneck tensors on these rows, with the units in `clamp` fixed."""
        with torch.no_grad(), self._observing(purpose):
            return self.program.look(rows, clamp)

    def gradients(self, batch: Tensor, extras: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the norm of each term's gradient at the bottleneck's output; 0 for a term without one."""
        if not self.case.has_losses:
            return {}
        with self._observing("evaluation"):
            norms = gradient_norms(self.case, self.model, batch, self._numbers(extras))
        return {name: torch.tensor(value, dtype=accumulation_dtype(self.precision)) for name, value in norms.items()}

    def _numbers(self, extras: Mapping[str, Any]) -> dict[str, Any]:
        """Return the case's numbers with the extras that its loss names, targets in the member's precision."""
        supplied = {name: extras[name] for name in self.case.supplied_keywords() if name in extras}
        if "target" in supplied:
            supplied["target"] = cast_floats(supplied["target"], self.precision)
        if self.case.training()["warmup"]:
            supplied[RAMP] = self.case.ramp(extras.get("progress", 0.0))
        return {**self.numbers, **supplied}

    @contextmanager
    def _observing(self, purpose: str) -> Iterator[None]:
        """Enter eval mode with a seed; parameters that the model sets as it runs are restored afterwards."""
        with restore_nesting(list(self.model.parameters())), eval_mode(self.model), _seeded(self.seed, purpose):
            yield


class LiveRandom(RandomOverride):
    """Draw a member's random numbers on demand, equal to those that a stack draws for it."""

    def __init__(self, source: RandomStream) -> None:
        super().__init__({})
        self.source = source

    def _numbers(self, distribution: str, shape: tuple[int, ...], like: Tensor | None) -> Tensor:
        site = RandomCall(distribution, shape, self._count[distribution, shape])
        self._count[distribution, shape] += 1
        return self.source.take([site])[site.purpose][0].clone()  # the model may write to it


@contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    """Seed the global random states by member and purpose, and restore them afterwards."""
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


def _stacked(parts: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
