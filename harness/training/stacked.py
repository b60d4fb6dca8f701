"""Members of one structure as one batched program: `vmap` over members, gradients per member, one flat optimizer."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from harness.case import RAMP, Case
from harness.models import build_model, cast_floats, precision_for
from harness.placement import place_invariant
from harness.remedies.gradients import bottleneck_outputs
from harness.training.functional_grad import gradient_and_value, gradients_of
from harness.training.graph.capture import GraphedFunction
from harness.training.observed_parts import joined, mixes_rows, parts_of, rows_at_once
from harness.training.optimizers import OptimizerSpec, clip_gradients, stack_optimizer
from harness.training.program import BottleneckView, Program, State
from harness.training.rng import RandomCall, RandomOverride, RandomStream
from harness.training.schedules import learning_rates, training_steps

# a member's parameters fill vector registers: elements past the last full register use another instruction, with
# another rounding, and which elements those are would depend on the other members of the stack
ALIGNED_TO = 64

Keep = Callable[[Tensor, Tensor], Tensor]
NOTHING: Mapping[str, Any] = MappingProxyType({})  # no targets, no step, no progress


def identity(reconstruction: Tensor, rows: Tensor) -> Tensor:
    """Return the reconstruction unchanged."""
    return reconstruction


class StackedEngine:
    """Several members trained as one program; interface of `SequentialEngine`.

    Args:
        cases: one treated case per member, all of one structure.
        seeds: one seed per member.
        rule: the optimizer of all members.
        rows: the training inputs, for their dtype and shape; with integers, the precision is the model's.
        fixed: names of numbers that the loss takes only as plain floats, the same for all members.
        shares: True if such members ever share a stack; the stack then uses `StackKernels`.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        seeds: Sequence[int],
        rule: OptimizerSpec,
        rows: Tensor,
        fixed: frozenset[str] = frozenset(),
        shares: bool = True,
    ) -> None:
        self.cases, self.seeds, self.rows = list(cases), list(seeds), rows
        self.parameters: State = {}
        self.buffers: State = {}
        models = [build_model(case, seed, rows[:4]) for case, seed in zip(cases, seeds, strict=True)]
        self.precision = precision_for(models[0], rows)
        models = [model.to(self.precision) for model in models]
        self.program = Program(cases[0], models[0], own_kernels=shares)
        self._shares_a_processor = shares and rows.device.type == "cpu"
        self._stack(models, rule.trained)
        self.numbers = {
            name: float(cases[0].numbers[name])
            if name in fixed
            else torch.tensor([float(case.numbers[name]) for case in cases], dtype=self.precision, device=rows.device)
            for name in cases[0].numbers
        }
        self._supplied = cases[0].supplied_keywords()
        self._warms_up = any(case.training()["warmup"] for case in cases)
        self._shared = {*fixed, "step", "progress"} - set(cases[0].numbers) | fixed
        self._unreached = set[str]()  # parameters that the latest loss does not depend on
        self._gradients = self._batched(gradient_and_value(self.program.loss, self._unreached))
        self._descent = GraphedFunction(self._descend)
        self._observations: dict[tuple[bool, bool], GraphedFunction] = {}
        self._losses = self._batched(self.program.loss)
        self._evaluate = GraphedFunction(self._evaluation)
        self._norms = self._batched(self._norms_of_one)
        self._clip = cases[0].clip
        self._mixes_rows: bool | None = None  # known after the first observation
        rates = torch.tensor([rule.rate(case) for case in cases], dtype=self.precision, device=rows.device)
        self._optimizer = stack_optimizer(rule, rates, self._schedules(rates))
        self._draws = self._fresh_draws("training")
        self._sites: dict[tuple[Any, ...], list[RandomCall]] = {}

    def step(self, batch: Tensor, extras: Mapping[str, Any] = NOTHING) -> tuple[Tensor, State]:
        """Take one optimizer step on `[member, sample, *feature]`; return totals and terms before the step, `[member]`.

        Args:
            batch: the rows of each member.
            extras: targets `[member, sample, ...]`, step and progress, for a loss that names them.
        """
        if not self.program.training:
            self.program.train()
        batch = batch.contiguous()  # indexing chooses the strides of its result
        extras = self._tensors(extras)
        draws = self._draws.take(self._sites_of(batch, extras))
        totals, terms = self._descent(_key(batch, extras), batch, extras, draws)
        if self._clip is not None:
            clip_gradients(self._flat_gradients, self._clip)
        unreached = [(self.parameters[name], self.parameters[name].clone()) for name in self._unreached]
        self._optimizer.step(self._flat, self._flat_gradients)
        for parameter, before in unreached:  # weight decay and momentum pass over a parameter without a gradient
            parameter.copy_(before)
        return totals, terms

    def member_parameters(self, index: int) -> tuple[State, dict[str, list[Tensor]]]:
        """Return a member's parameters, and the optimizer's averages of each; changes in place act on the member."""
        averages: dict[str, list[Tensor]] = {}
        for flat in self._optimizer.averages():
            for name, view in self._views(flat).items():
                averages.setdefault(name, []).append(view[index])
        return {name: value[index] for name, value in self.parameters.items()}, averages

    def _views(self, flat: Tensor) -> State:
        """Return the parts of a `[member, parameter]` tensor under the names of the parameters."""
        sizes = [value[0].numel() for value in self.parameters.values()]
        views = flat[:, : sum(sizes)].split(sizes, dim=1)
        return {
            name: view.unflatten(1, value.shape[1:]) if value.dim() > 1 else view[:, 0]
            for (name, value), view in zip(self.parameters.items(), views, strict=True)
        }

    def _schedules(self, rates: Tensor) -> dict[float, list[float]]:
        """Return, for each learning rate of the stack, the scheduled rate of each step; empty without a scheduler."""
        case, steps = self.cases[0], training_steps(self.cases[0], len(self.rows))
        schedules = {rate: learning_rates(case, rate, steps) for rate in dict.fromkeys(rates.tolist())}
        return {rate: schedule for rate, schedule in schedules.items() if schedule is not None}

    def totals(self, batch: Tensor, extras: Mapping[str, Any] = NOTHING) -> Tensor:
        """Return the totals of the next step, `[member]`, without stepping; random numbers advance."""
        self.program.train()
        return self._evaluate_terms(batch, extras, self._draws)["total"]

    def losses(self, batch: Tensor, extras: Mapping[str, Any] = NOTHING) -> State:
        """Return the loss terms on a batch in eval mode, `[member]` each, with `total`."""
        self.program.eval()
        return self._evaluate_terms(batch, extras, self._fresh_draws("evaluation"))

    def observe(
        self, rows: Tensor, purpose: str = "observation", keep: Keep | None = identity, clamp: Tensor | None = None
    ) -> BottleneckView:
        """Observe the bottlenecks on `[sample, *feature]` in eval mode.

        Args:
            rows: the rows, observed in parts.
            purpose: purpose of the random numbers; another purpose draws other numbers.
            keep: function of each part of the reconstruction and its rows whose result is kept; None for no
                reconstruction, which saves its operations.
            clamp: values at which numbers of the code are fixed, `[member, number]`, NaN for free ones; None for none.
        """
        self.program.eval()
        draws, parts = self._fresh_draws(purpose), []
        for part, new in parts_of(rows, self._observed_together(rows)):
            view = self._look(part, draws, clamp, keep is not None)
            view = {name: value if name == "scale" else value[..., new, :] for name, value in view.items()}
            if keep is not None and "reconstruction" in view:
                view["reconstruction"] = keep(view["reconstruction"], part[new])
            parts.append(view)
        return joined(parts, self.program.activation, self.program.form)

    def repeats(self, rows: Tensor) -> bool:
        """Return True if observing these rows again can only give the same numbers."""
        part, _ = next(parts_of(rows, self._observed_together(rows)))
        look = self._observations.get((False, True))
        return look is not None and look.is_pure(part.shape) and not self._observation_sites(part)

    def _observed_together(self, rows: Tensor) -> int:
        """Return the number of rows observed at once: a batch of the training where a row depends on its batch."""
        size = int(self.cases[0].training()["batch_size"])
        if self._mixes_rows is None:
            self._mixes_rows = mixes_rows(self.program, rows, size)
        return size if self._mixes_rows else rows_at_once(rows)

    def gradients(self, batch: Tensor, extras: Mapping[str, Any] = NOTHING) -> dict[str, Tensor]:
        """Return the norm of each term's gradient at the output of the bottleneck's module, over all calls, `[member]`."""
        self.program.eval()
        extras = self._tensors(extras)
        draws = self._fresh_draws("evaluation").take(self._sites_of(batch, extras))
        buffers = {name: value.clone() for name, value in self.buffers.items()}
        return self._norms(self.parameters, buffers, batch, {**self.numbers, **extras}, draws)

    @property
    def replaces_code(self) -> bool:
        """False if an observation with fixed units could not put them into the forward pass."""
        return self.program.replaces_code

    @property
    def reads_code(self) -> bool:
        """False where no layer was seen to read the code."""
        return self.program.reads_code

    def state_of(self, member: int) -> State:
        """Return a member's parameters and buffers under the names of its model."""
        return {name: value[member].clone() for name, value in {**self.parameters, **self.buffers}.items()}

    def _descend(self, batch: Tensor, extras: State, draws: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        """Return totals and terms; update the flat gradients and the buffers in place."""
        results = self._gradients(self.parameters, self.buffers, batch, {**self.numbers, **extras}, draws)
        gradients, (totals, (terms, buffers)) = results
        self._flatten(gradients)
        for name, value in buffers.items():
            if value.data_ptr() != self.buffers[name].data_ptr():  # most are updated in place already
                self.buffers[name].copy_(value.detach())
        return totals.detach(), {name: value.detach() for name, value in terms.items()}

    def _norms_of_one(self, parameters: State, buffers: State, batch: Tensor, numbers: Any, draws: Any) -> State:
        def terms_and_outputs(point: tuple[State, Tensor]) -> tuple[State, list[Tensor]]:
            values, nudge = point
            with bottleneck_outputs(self.program.model, self.program.case.bottleneck, nudge) as outputs:
                return self.program.loss(values, buffers, batch, numbers, draws)[1][0], outputs

        zero = torch.zeros(1, dtype=self.precision, device=batch.device)
        gradients = gradients_of(terms_and_outputs)((parameters, zero[0]))
        return {name: torch.cat([zero, *map(torch.flatten, at)]).norm() for name, at in gradients.items()}

    def _batched(self, function: Callable[..., Any], axes: tuple[Any, ...] | None = None) -> Callable[..., Any]:
        """Batch a function of one member over all members, with the same bits at every position of the stack."""

        def batched(*arguments: Any) -> Any:
            if axes is not None:
                return vmap(function, in_dims=axes)(*arguments)
            numbers = {name: None if name in self._shared else 0 for name in arguments[3]}
            return vmap(function, in_dims=(0, 0, 0, numbers, 0))(*arguments)

        return place_invariant(batched) if self._shares_a_processor else batched

    def _fresh_draws(self, purpose: str) -> RandomStream:
        return RandomStream(self.seeds, purpose, self.precision, self.rows.device)

    def _evaluate_terms(self, batch: Tensor, extras: Mapping[str, Any], source: RandomStream) -> State:
        extras = self._tensors(extras)
        key = _key(batch, extras), batch.stride(), self.program.training
        return self._evaluate(key, batch, extras, source.take(self._sites_of(batch, extras)))

    def _tensors(self, extras: Mapping[str, Any]) -> State:
        """Return the extras that the program uses as tensors, which a recorded list of operations can take as inputs."""
        supplied = {name: extras[name] for name in self._supplied if name in extras}
        tensors = {}
        if "target" in supplied:
            tensors["target"] = cast_floats(supplied["target"], self.precision).contiguous()
        if "step" in supplied:
            tensors["step"] = torch.tensor(supplied["step"], device=self.rows.device)
        if "progress" in supplied:
            tensors["progress"] = torch.tensor(supplied["progress"], dtype=self.precision, device=self.rows.device)
        if self._warms_up:
            ramps = [case.ramp(extras.get("progress", 0.0)) for case in self.cases]
            tensors[RAMP] = torch.tensor(ramps, dtype=self.precision, device=self.rows.device)
        return tensors

    def _evaluation(self, batch: Tensor, extras: State, draws: Mapping[str, Tensor]) -> State:
        buffers = {name: value.clone() for name, value in self.buffers.items()}
        with torch.no_grad():
            totals, (terms, _) = self._losses(self.parameters, buffers, batch, {**self.numbers, **extras}, draws)
        return {**terms, "total": totals}

    @torch.no_grad()
    def _look(self, rows: Tensor, draws: RandomStream, clamp: Tensor | None, reconstruct: bool) -> State:
        key, clamps = (clamp is not None, reconstruct), () if clamp is None else (clamp,)
        if key not in self._observations:
            see = self._batched(
                partial(self.program.see, reconstruct=reconstruct), (0, 0, None, 0, *(0 for _ in clamps))
            )
            self._observations[key] = GraphedFunction(partial(see, self.parameters, self.buffers), cuda_graph=False)
        numbers = draws.take(self._observation_sites(rows))
        return self._observations[key](rows.shape, rows, numbers, *clamps)

    def _observation_sites(self, rows: Tensor) -> list[RandomCall]:
        key = ("look", rows.shape)
        if key not in self._sites:
            with RandomOverride() as feed, torch.random.fork_rng(devices=[]):
                self.program.look(rows[:1].expand(len(rows), *rows.shape[1:]))
            self._sites[key] = feed.sites
        return self._sites[key]

    def _sites_of(self, batch: Tensor, extras: State) -> list[RandomCall]:
        key = (batch.shape[1:], self.program.training)
        if key not in self._sites:
            numbers: dict[str, Any] = {**self.numbers, **extras}
            first = {name: value if name in self._shared else value[0] for name, value in numbers.items()}
            self._sites[key] = random_sites(self.program, batch[0], first)
        return self._sites[key]

    def _stack(self, models: Sequence[nn.Module], trained: frozenset[str]) -> None:
        """Store all trained parameters as views of one `[member, parameter]` tensor, and the rest as buffers."""
        parameters = [dict(model.named_parameters()) for model in models]
        shapes = {name: value.shape for name, value in parameters[0].items() if name in trained}
        sizes = [shape.numel() for shape in shapes.values()]
        padding = torch.zeros(-sum(sizes) % ALIGNED_TO, dtype=self.precision, device=self.rows.device)
        rows = [torch.cat([*(values[name].detach().reshape(-1) for name in shapes), padding]) for values in parameters]
        self._flat = torch.stack(rows)
        self._flat_gradients = torch.zeros_like(self._flat)
        views = self._flat[:, : sum(sizes)].split(sizes, dim=1)
        self.parameters = {
            name: view.unflatten(1, shape) if shape else view[:, 0]
            for (name, shape), view in zip(shapes.items(), views, strict=True)
        }
        frozen = {
            name: torch.stack([values[name].detach() for values in parameters])
            for name in parameters[0]
            if name not in trained
        }
        buffers = [dict(model.named_buffers()) for model in models]
        self.buffers = {**frozen, **{name: torch.stack([values[name] for values in buffers]) for name in buffers[0]}}

    def _flatten(self, gradients: Mapping[str, Tensor]) -> None:
        flat_gradients = [gradients[name].reshape(len(self.seeds), -1) for name in self.parameters]
        torch.cat(
            flat_gradients, dim=1, out=self._flat_gradients[:, : sum(gradient.shape[1] for gradient in flat_gradients)]
        )


def random_sites(program: Program, batch: Tensor, numbers: Mapping[str, Any]) -> list[RandomCall]:
    """Return the random operations of the loss, recorded in one evaluation; buffers are restored."""
    buffers = {name: value.clone() for name, value in program.named_buffers()}
    with RandomOverride() as feed, torch.random.fork_rng(devices=[]), torch.enable_grad():
        program(batch, numbers)
    for name, value in program.named_buffers():
        value.data.copy_(buffers[name])
    return feed.sites


def _key(batch: Tensor, extras: State) -> tuple[Any, ...]:
    """Return the shapes that tell recorded lists of operations apart."""
    return (batch.shape, *(value.shape for value in extras.values()))
