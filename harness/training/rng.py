"""Random numbers of a member, which depend on the member's seed and not on its stack.

Initial weights, batch order and every random operation inside a model have generators of their own. The operations
are intercepted and return numbers drawn per member, so that a dropout mask depends neither on the stack nor on the random
operations that a variant adds.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# steps drawn at once: a constant, because normal numbers depend on how many are drawn together
STEPS_AT_ONCE = 8


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a generator that depends on the seed and the purpose alone."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@dataclass(frozen=True)
class RandomCall:
    """One random operation of a model: distribution, shape, and index among the calls with the same two."""

    distribution: str
    shape: tuple[int, ...]
    occurrence: int

    @property
    def purpose(self) -> str:
        """Purpose of the generator of this call."""
        return f"{self.distribution}{list(self.shape)}#{self.occurrence}"


class RandomStream:
    """Random numbers of the members of a stack, `[member, ...]` per site, one call per step.

    A member's numbers are drawn in its own order from its own generators.
    """

    def __init__(self, seeds: Sequence[int], purpose: str, dtype: torch.dtype, device: torch.device) -> None:
        self.seeds, self.purpose, self.dtype, self.device = list(seeds), purpose, dtype, device
        self._generators: dict[RandomCall, list[torch.Generator]] = {}
        self._chunks: dict[RandomCall, Tensor] = {}
        self._used: Counter[RandomCall] = Counter()

    def take(self, sites: Sequence[RandomCall]) -> dict[str, Tensor]:
        """Return the next numbers of these sites, by purpose."""
        return {site.purpose: self._next(site) for site in sites}

    def _next(self, site: RandomCall) -> Tensor:
        position = self._used[site] % STEPS_AT_ONCE
        if position == 0:
            self._chunks[site] = self._draw(site)
        self._used[site] += 1
        return self._chunks[site][position]

    def _draw(self, site: RandomCall) -> Tensor:
        if site not in self._generators:
            self._generators[site] = [generator(seed, f"{self.purpose}/{site.purpose}") for seed in self.seeds]
        draw, shape = DISTRIBUTIONS[site.distribution], (STEPS_AT_ONCE, *site.shape)
        drawn = [draw(shape, generator=source, dtype=self.dtype) for source in self._generators[site]]
        return torch.stack(drawn, dim=1).to(self.device)


class RandomOverride(TorchFunctionMode):
    """Replace random operations by the numbers in `draws`; with None, draw new ones and record the sites."""

    def __init__(self, draws: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.draws = draws
        self.sites: list[RandomCall] = []
        self._count: Counter[tuple[str, tuple[int, ...]]] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        replacement = RANDOM_OPERATIONS.get(func)
        return replacement(self, *args, **(kwargs or {})) if replacement is not None else func(*args, **(kwargs or {}))

    def uniform(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Return numbers in [0, 1)."""
        return self._numbers("uniform", tuple(shape), like)

    def normal(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Return standard normal numbers."""
        return self._numbers("normal", tuple(shape), like)

    def _numbers(self, distribution: str, shape: tuple[int, ...], like: Tensor | None) -> Tensor:
        site = RandomCall(distribution, shape, self._count[distribution, shape])
        self._count[distribution, shape] += 1
        self.sites.append(site)
        if self.draws is None:
            floats = like.dtype if like is not None and like.is_floating_point() else None
            return DISTRIBUTIONS[distribution](shape, dtype=floats, device=None if like is None else like.device)
        numbers = self.draws[site.purpose]
        return numbers if like is None or not like.is_floating_point() else numbers.to(like.dtype)


def _dropout(
    feed: RandomOverride, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    return _dropped(feed, values, p, values.shape, inplace) if training and p > 0 else values


def _channel_dropout(
    feed: RandomOverride, values: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    if not training or p == 0:
        return values
    return _dropped(feed, values, p, (*values.shape[:2], *(1 for _ in values.shape[2:])), inplace)


def _dropped(feed: RandomOverride, values: Tensor, p: float, shape: Sequence[int], inplace: bool) -> Tensor:
    masked = _masked(feed, values, p, shape)
    return values.copy_(masked) if inplace else masked


def _masked(feed: RandomOverride, values: Tensor, p: float, shape: Sequence[int]) -> Tensor:
    if p >= 1:
        return values * 0.0
    return values * (feed.uniform(shape, values) >= p) / (1 - p)


def _shape(size: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    size = size or (kwargs.get("size", ()),)
    return tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else tuple(size)


def _cast(numbers: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
    options = {name: kwargs[name] for name in ("dtype", "device") if kwargs.get(name)}
    return numbers.to(**options) if options else numbers


def _rand(feed: RandomOverride, *size: Any, **kwargs: Any) -> Tensor:
    return _cast(feed.uniform(_shape(size, kwargs)), kwargs)


def _randn(feed: RandomOverride, *size: Any, **kwargs: Any) -> Tensor:
    return _cast(feed.normal(_shape(size, kwargs)), kwargs)


def _rand_like(feed: RandomOverride, values: Tensor, **kwargs: Any) -> Tensor:
    return _cast(feed.uniform(values.shape, values), kwargs)


def _randn_like(feed: RandomOverride, values: Tensor, **kwargs: Any) -> Tensor:
    return _cast(feed.normal(values.shape, values), kwargs)


def _normal(feed: RandomOverride, mean: Any = 0.0, std: Any = 1.0, size: Any = None, **kwargs: Any) -> Tensor:
    shaped = mean if isinstance(mean, Tensor) else std
    shape = (
        tuple(size)
        if size is not None
        else torch.broadcast_shapes(*(v.shape for v in (mean, std) if isinstance(v, Tensor)))
    )
    return mean + std * feed.normal(shape, shaped if isinstance(shaped, Tensor) else None)


def _bernoulli(feed: RandomOverride, values: Tensor, p: Any = None, **kwargs: Any) -> Tensor:
    chance = values if p is None else p
    return (feed.uniform(values.shape, values) < chance).to(values.dtype)


def _bernoulli_in_place(feed: RandomOverride, values: Tensor, p: Any = 0.5, **kwargs: Any) -> Tensor:
    return values.copy_((feed.uniform(values.shape, values) < p).to(values.dtype))


def _uniform_in_place(feed: RandomOverride, values: Tensor, a: float = 0.0, b: float = 1.0, **kwargs: Any) -> Tensor:
    low, high = kwargs.get("from", a), kwargs.get("to", b)
    return values.copy_(low + (high - low) * feed.uniform(values.shape, values))


def _normal_in_place(
    feed: RandomOverride, values: Tensor, mean: float = 0.0, std: float = 1.0, **kwargs: Any
) -> Tensor:
    return values.copy_(mean + std * feed.normal(values.shape, values))


DISTRIBUTIONS: dict[str, Callable[..., Tensor]] = {"uniform": torch.rand, "normal": torch.randn}

# vmap refuses any random operation that is not here; its model then trains alone, with one seed per step
RANDOM_OPERATIONS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.dropout: _dropout,
    F.dropout1d: _channel_dropout,
    F.dropout2d: _channel_dropout,
    F.dropout3d: _channel_dropout,
    torch.rand: _rand,
    torch.randn: _randn,
    torch.rand_like: _rand_like,
    torch.randn_like: _randn_like,
    torch.normal: _normal,
    torch.bernoulli: _bernoulli,
    Tensor.bernoulli: _bernoulli,
    Tensor.bernoulli_: _bernoulli_in_place,
    Tensor.uniform_: _uniform_in_place,
    Tensor.normal_: _normal_in_place,
}
