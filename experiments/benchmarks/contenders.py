"""Who trains: a plain PyTorch loop and this harness (JAX has a file of its own), and what the machine can do at most."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice

import torch
from ready import BATCH, EPOCH, Ready
from torch import Tensor
from workloads import WORKLOADS

from harness import Case
from harness.remedies.layout import build_model
from harness.training import check_vmap_support
from harness.training.stacked import StackedEngine
from harness.training.train import gather_rows

LARGEST_STACK = 64
PLAIN_MODELS = 4  # models of a plain loop know nothing of each other: a few stand for all
STACKS = 2  # the stacks of one structure are alike, and one is trained after the other


def share_of(workload: str, contender: str, members: int, share: int, shares: int) -> Ready:
    """A contender with one process's share: of the structures where there are several, else of the members."""
    found, make = WORKLOADS[workload](), CONTENDERS[contender]
    if len(found.cases) > 1:
        return unprepared(make, found.cases[share::shares], members // len(found.cases), found.rows)
    return make(found.cases[0], members // shares + (share < members % shares), found.rows)


def unprepared(make: "Maker", cases: Sequence[Case], each: int, rows: Tensor) -> Ready:
    """One structure after the other, from nothing to the end of an epoch; only the libraries have been used before."""
    threads, turns = make(cases[0], each, rows).threads, cycle(cases)
    return Ready(lambda steps: make(next(turns), each, rows).work(steps), threads, steps=EPOCH)


def plain(case: Case, members: int, rows: Tensor) -> Ready:
    """One model after the other, as a good user would write it."""
    models = [build_model(case, seed, rows[:4]) for seed in range(min(members, PLAIN_MODELS))]
    optimisers = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in models]
    keywords = {name: case.numbers[name] for name in case.loss_keywords()}
    starts = batch_starts(rows)

    def work(steps: int) -> int:
        now = list(islice(starts, steps))
        for model, optimiser in zip(models, optimisers, strict=True):
            for start in now:
                optimiser.zero_grad(set_to_none=True)
                case.total(case.losses(model, rows[start : start + BATCH], **keywords), case.numbers).backward()
                optimiser.step()
        return steps * len(models)

    return Ready(work, torch.get_num_threads())


def stacked(case: Case, members: int, rows: Tensor, largest: int = LARGEST_STACK) -> Ready:
    """Stacks of at most so many, filled up as in an experiment (the copies are not counted), one after the other."""
    found = check_vmap_support(case, rows)
    assert found.rule is not None, found.reason
    most = largest if found.shares else 1
    sizes = ([most] * (members // most) + [members % most] * (members % most > 0))[:STACKS]
    filled = [found.filled(size) for size in sizes]
    engines = [
        StackedEngine([case] * size, list(range(size)), found.rule, rows, found.fixed, found.shares) for size in filled
    ]
    orders = [torch.stack([torch.randperm(len(rows)) for _ in range(size)]).to(rows.device) for size in filled]
    starts = batch_starts(rows)

    def work(steps: int) -> int:
        now = list(islice(starts, steps))
        for engine, order in zip(engines, orders, strict=True):
            for start in now:
                engine.step(gather_rows(rows, order[:, start : start + BATCH]))
        return steps * sum(sizes)

    return Ready(work, torch.get_num_threads())


def products() -> Ready:
    """Matrix products of 1024 x 1024 numbers: billions of operations."""
    left, right, made = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.empty(1024, 1024)

    def work(steps: int) -> float:
        for _ in range(steps):
            torch.mm(left, right, out=made)
        return steps * 2 * 1024**3 / 1e9

    return Ready(work, torch.get_num_threads())


def copies() -> Ready:
    """Copies of 128 MB, far more than a cache holds: billions of bytes read and written."""
    source, target = torch.randn(1 << 25), torch.empty(1 << 25)

    def work(steps: int) -> float:
        for _ in range(steps):
            target.copy_(source)
        return steps * 2 * source.nbytes / 1e9

    return Ready(work, torch.get_num_threads())


def batch_starts(rows: Tensor) -> Iterator[int]:
    """The first row of each batch, over and over."""
    return cycle(range(0, len(rows) - BATCH, BATCH))


Maker = Callable[[Case, int, Tensor], Ready]
CONTENDERS: dict[str, Maker] = {"plain loop": plain, "harness": stacked}
LIMITS: dict[str, Callable[[], Ready]] = {"matrix products": products, "copies": copies}
