"""Members of one structure as one batched program: `vmap` over members, gradients per member, one flat optimiser."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from harness.case import Case
from harness.models import build_model, precision_for
from harness.placement import place_invariant
from harness.remedies.gradients import bottleneck_outputs
from harness.training.functional_grad import gradient_and_value, gradients_of
from harness.training.graph.capture import GraphedFunction
from harness.training.optimizers import OptimizerSpec, stack_optimizer
from harness.training.program import BottleneckView, Program, State
from harness.training.rng import RandomCall, RandomOverride, RandomStream

# numbers of one member's input that are observed at once, at most: they have to fit the cache
OBSERVED_AT_ONCE = 1 << 13

# a member's parameters fill whole vector registers: the few numbers past the last full register go through another
# instruction, with another rounding, and which numbers those are would depend on who shares the stack
ALIGNED_TO = 64

Keep = Callable[[Tensor, Tensor], Tensor]


def whole(reconstruction: Tensor, rows: Tensor) -> Tensor:
    """All of a part of the reconstruction is kept."""
    return reconstruction


class StackedEngine:
    """Several members trained as one program. Same interface as `Alone`.

    Args:
        cases: one treated case a member, all of one structure.
        seeds: one seed a member.
        rule: the optimiser that they share.
        rows: the training inputs, for their dtype and shape; of integers, the model's own precision holds.
        fixed: numbers that the loss can only take as plain floats, the same for all members.
        shares: whether such members are ever several in a stack: then it computes as `Kernels` does.
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
        number_axes = {name: None if name in fixed else 0 for name in self.numbers}
        axes = (0, 0, 0, number_axes, 0)
        self._gradients = self._batched(gradient_and_value(self.program.loss), axes)
        self._downhill = GraphedFunction(self._descend)
        self._observations: dict[tuple[bool, bool], GraphedFunction] = {}
        self._losses = self._batched(self.program.loss, axes)
        self._evaluate = GraphedFunction(self._evaluation)
        self._norms = self._batched(self._norms_of_one, axes)
        rates = [rule.rate(case) for case in cases]
        self._optimiser = stack_optimizer(rule, torch.tensor(rates, dtype=self.precision, device=rows.device))
        self._draws = self._fresh_draws("training")
        self._sites: dict[tuple[Any, ...], list[RandomCall]] = {}

    def step(self, batch: Tensor) -> tuple[Tensor, State]:
        """One optimiser step on `[member, sample, *feature]`; totals and terms before it, `[member]`."""
        if not self.program.training:
            self.program.train()
        batch = batch.contiguous()  # an index chooses the strides of what it picks
        totals, terms = self._downhill(batch.shape, batch, self._draws.take(self._sites_of(batch)))
        self._optimiser.step(self._flat, self._flat_gradients)
        return totals, terms

    def totals(self, batch: Tensor) -> Tensor:
        """What the next step would find as totals, `[member]`; nothing is stepped, but draws go on."""
        self.program.train()
        return self._evaluated(batch, self._draws)["total"]

    def losses(self, batch: Tensor) -> State:
        """The loss terms on a batch in eval mode, `[member]` each, with `total`; nothing is changed."""
        self.program.eval()
        return self._evaluated(batch, self._fresh_draws("evaluation"))

    @property
    def replaces_code(self) -> bool:
        """False if an observation with held units could not put them into the forward pass."""
        return self.program.replaces_code

    def observe(
        self, rows: Tensor, purpose: str = "observation", keep: Keep | None = whole, held: Tensor | None = None
    ) -> BottleneckView:
        """What the bottlenecks do on `[sample, *feature]`, in eval mode; another purpose draws other random numbers.

        Args:
            rows: some at a time are seen. purpose: of the random numbers.
            keep: what is kept of each part of the reconstruction, given that and its rows; None where it is not wanted,
                which saves the operations that make it.
            held: numbers at which units are held, `[member, unit]`, NaN for those that are not; None where none is.
        """
        self.program.eval()
        draws, found = self._fresh_draws(purpose), []
        for part, new in _parts(rows, _at_once(rows)):
            seen = self._look(part, draws, held, keep is not None)
            seen = {name: value if name == "scale" else value[..., new, :] for name, value in seen.items()}
            if keep is not None and "reconstruction" in seen:
                seen["reconstruction"] = keep(seen["reconstruction"], part[new])
            found.append(seen)
        return joined(found, self.program.activation)

    def repeats(self, rows: Tensor) -> bool:
        """Whether observing these rows, which were observed, once more could only give the same numbers."""
        part, _ = next(_parts(rows, _at_once(rows)))
        look = self._observations.get((False, True))
        return look is not None and look.is_pure(part.shape) and not self._sites_of_looking(part)

    def gradients(self, batch: Tensor) -> dict[str, Tensor]:
        """The norm of each term's gradient at the output of the bottleneck's module, over all its calls, `[member]`."""
        self.program.eval()
        draws = self._fresh_draws("evaluation").take(self._sites_of(batch))
        return self._norms(self.parameters, {n: v.clone() for n, v in self.buffers.items()}, batch, self.numbers, draws)

    def state_of(self, member: int) -> State:
        """A member's parameters and buffers under the names of its model."""
        return {name: value[member].clone() for name, value in {**self.parameters, **self.buffers}.items()}

    def _descend(self, batch: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        """Totals and terms; the flat gradients and the buffers are changed in place."""
        found = self._gradients(self.parameters, self.buffers, batch, self.numbers, draws)
        gradients, (totals, (terms, buffers)) = found
        self._flatten(gradients)
        for name, value in buffers.items():
            if value.data_ptr() != self.buffers[name].data_ptr():  # most are changed in place already
                self.buffers[name].copy_(value.detach())
        return totals.detach(), {name: value.detach() for name, value in terms.items()}

    def _norms_of_one(self, parameters: State, buffers: State, batch: Tensor, numbers: Any, draws: Any) -> State:
        def terms_and_outputs(point: tuple[State, Tensor]) -> tuple[State, list[Tensor]]:
            given, nudge = point
            with bottleneck_outputs(self.program.model, self.program.case.bottleneck, nudge) as outputs:
                return self.program.loss(given, buffers, batch, numbers, draws)[1][0], outputs

        zero = torch.zeros(1, dtype=self.precision, device=batch.device)
        found = gradients_of(terms_and_outputs)((parameters, zero[0]))
        return {name: torch.cat([zero, *map(torch.flatten, at)]).norm() for name, at in found.items()}

    def _batched(self, function: Callable[..., Any], axes: tuple[Any, ...]) -> Callable[..., Any]:
        """A member's function as that of all members; the same bits wherever in a stack a member is."""
        batched = vmap(function, in_dims=axes)
        return place_invariant(batched) if self._shares_a_processor else batched

    def _fresh_draws(self, purpose: str) -> RandomStream:
        return RandomStream(self.seeds, purpose, self.precision, self.rows.device)

    def _evaluated(self, batch: Tensor, source: RandomStream) -> State:
        key = batch.shape, batch.stride(), self.program.training
        return self._evaluate(key, batch, source.take(self._sites_of(batch)))

    def _evaluation(self, batch: Tensor, draws: Mapping[str, Tensor]) -> State:
        buffers = {name: value.clone() for name, value in self.buffers.items()}
        with torch.no_grad():
            totals, (terms, _) = self._losses(self.parameters, buffers, batch, self.numbers, draws)
        return {**terms, "total": totals}

    @torch.no_grad()
    def _look(self, rows: Tensor, draws: RandomStream, held: Tensor | None, made: bool) -> State:
        key, others = (held is not None, made), () if held is None else (held,)
        if key not in self._observations:
            see = self._batched(partial(self.program.see, made=made), (0, 0, None, 0, *(0 for _ in others)))
            self._observations[key] = GraphedFunction(partial(see, self.parameters, self.buffers), compiles=False)
        numbers = draws.take(self._sites_of_looking(rows))
        return self._observations[key](rows.shape, rows, numbers, *others)

    def _sites_of_looking(self, rows: Tensor) -> list[RandomCall]:
        key = ("look", rows.shape)
        if key not in self._sites:
            with RandomOverride() as feed, torch.random.fork_rng(devices=[]):
                self.program.look(rows[:1].expand(len(rows), *rows.shape[1:]))
            self._sites[key] = feed.sites
        return self._sites[key]

    def _sites_of(self, batch: Tensor) -> list[RandomCall]:
        key = (batch.shape[1:], self.program.training)
        if key not in self._sites:
            self._sites[key] = random_sites(self.program, batch[0], {n: _first(v) for n, v in self.numbers.items()})
        return self._sites[key]

    def _stack(self, models: Sequence[nn.Module], trained: frozenset[str]) -> None:
        """All trained parameters as views of one `[member, parameter]` buffer; the rest are buffers."""
        named = [dict(model.named_parameters()) for model in models]
        shapes = {name: value.shape for name, value in named[0].items() if name in trained}
        sizes = [shape.numel() for shape in shapes.values()]
        padding = torch.zeros(-sum(sizes) % ALIGNED_TO, dtype=self.precision, device=self.rows.device)
        rows = [torch.cat([*(each[name].detach().reshape(-1) for name in shapes), padding]) for each in named]
        self._flat = torch.stack(rows)
        self._flat_gradients = torch.zeros_like(self._flat)
        views = self._flat[:, : sum(sizes)].split(sizes, dim=1)
        self.parameters = {
            name: view.unflatten(1, shape) if shape else view[:, 0]
            for (name, shape), view in zip(shapes.items(), views, strict=True)
        }
        frozen = {
            name: torch.stack([each[name].detach() for each in named]) for name in named[0] if name not in trained
        }
        kept = [dict(model.named_buffers()) for model in models]
        self.buffers = {**frozen, **{name: torch.stack([each[name] for each in kept]) for name in kept[0]}}

    def _flatten(self, gradients: Mapping[str, Tensor]) -> None:
        pieces = [gradients[name].reshape(len(self.seeds), -1) for name in self.parameters]
        torch.cat(pieces, dim=1, out=self._flat_gradients[:, : sum(piece.shape[1] for piece in pieces)])


def _at_once(rows: Tensor) -> int:
    """How many rows are seen together: a power of two, so that a few rows and many are seen in parts of one shape.

    >>> _at_once(torch.zeros(5000, 100))
    64
    """
    most = max(32, OBSERVED_AT_ONCE // max(1, rows[0].numel()))
    return 1 << most.bit_length() - 1


def _parts(rows: Tensor, size: int) -> Iterator[tuple[Tensor, slice]]:
    """Parts of one size, and which rows of each are new: a few left over would be other kernels' work."""
    size = min(size, len(rows))
    for start in range(0, len(rows), size):
        first = min(start, len(rows) - size)
        yield rows[first : first + size], slice(start - first, size)


def joined(parts: Sequence[Mapping[str, Tensor]], activation: str) -> BottleneckView:
    """Chunks of rows put together again; the scale is their mean, added one after the other: torch's mean adds in an
    order that depends on the number of members.
    """
    code, before, raw = (torch.cat([part[name] for part in parts], dim=-2) for name in ("code", "preactivation", "raw"))
    made = tuple(part["reconstruction"] for part in parts if "reconstruction" in part)
    scales = [part["scale"] for part in parts if "scale" in part]
    scale = sum(scales[1:], start=scales[0]) / len(scales) if scales else None
    return BottleneckView(code, before, raw, made, scale, activation)


def random_sites(program: Program, batch: Tensor, numbers: Mapping[str, Any]) -> list[RandomCall]:
    """The random operations of one evaluation of the loss, found by running it once; nothing is changed."""
    kept = {name: value.clone() for name, value in program.named_buffers()}
    with RandomOverride() as feed, torch.random.fork_rng(devices=[]), torch.enable_grad():
        program(batch, numbers)
    for name, value in program.named_buffers():
        value.data.copy_(kept[name])
    return feed.sites


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, Tensor) else value
