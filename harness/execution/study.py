"""One stack, trained and judged: what its members left behind. Pure: it writes nothing and asks nobody."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.case import Case, load_case
from harness.data import split_of
from harness.data.rows import Rows, Split
from harness.errors import HarnessError
from harness.execution.histories import History, few_rows
from harness.execution.spec import StackMember, StackSpec
from harness.results.packed import Document, Series
from harness.results.records import Level, MemberRecord
from harness.training import Snapshot, Stackability, stackability, train
from harness.training.stackable import is_of_batching, not_batched

LARGEST_ABLATION = 32  # units: each costs a forward pass
LARGEST_EVALUATION = 1024  # held-out rows that a verdict rests on: frequencies down to .0036 can be told from never
ABLATION_ROWS = 256


class Known:
    """What is found out once of an experiment's case, for all stacks that one process trains of it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str | None, ...], Any] = {}

    def once(self, find: Callable[[], Any], spec: StackSpec, *of: str) -> Any:
        """What `find` finds, or found before of the same case, data and training numbers."""
        key = (str(spec.case), spec.data, str(spec.train), *of)
        if key not in self._found:
            self._found[key] = find()
        return self._found[key]


def study(
    spec: StackSpec, progress: Callable[[int], None] | None = None, known: Known | None = None
) -> list[MemberRecord]:
    """Train the members of a stack and judge each.

    Args:
        spec: who they are.
        progress: told how many member-steps were done since it was last told.
        known: what earlier stacks of the same experiment found out.

    Returns:
        One record a member, in the order of `spec.members`. A remedy that finds no place, or a loss that raises, is
        a failed record with the reason, never an exception.
    """
    records: dict[str, MemberRecord] = {}
    known = known or Known()
    for batch in _programs(spec, records, known):
        found = _carried_out(batch, spec, known, progress or (lambda steps: None))
        records |= {record.key: record for record in found}
    return [records[member.key] for member in spec.members]


def _carried_out(batch: "_Batch", spec: StackSpec, known: Known, progress: Callable[[int], None]) -> list[MemberRecord]:
    """The records of a program, and of its parts where it fails as a whole."""
    told: list[int] = []

    def tell(steps: int) -> None:
        told.append(steps)
        progress(steps)

    try:
        found = _trained(batch, tell)
    except Exception as error:  # the author's code may raise anything, and the other programs go on
        parts = _parts(batch, spec, known, error)
        if parts:
            progress(-sum(told))
            return [record for part in parts for record in _carried_out(part, spec, known, progress)]
        return [_failed(each, error) for each in batch.members]
    return [replace(record, alone=batch.alone) for record in found]


def _parts(batch: "_Batch", spec: StackSpec, known: Known, error: Exception) -> list["_Batch"]:
    """What a stack that failed is tried as: halves, a member of its own alone; nothing where that would fail as well.

    In halves a member has the same numbers, so that they never depend on the one that fails (a diverged one whose loss
    raises, as `binary_cross_entropy` does). What `vmap` refuses it refuses for all.
    """
    if batch.stacking.rule is None or isinstance(error, HarnessError) or _is_of_memory(error):
        return []
    if len(batch.members) > 1 and not is_of_batching(error):
        middle = len(batch.members) // 2
        return [
            replace(batch, members=batch.members[part], cases=batch.cases[part])
            for part in (slice(middle), slice(middle, None))
        ]
    why, split = not_batched(error), _split(spec, known)
    alone = replace(batch, stacking=Stackability(None, frozenset(), why), alone=why)
    return [replace(alone, members=[each], cases=[treated(spec, each.levels, split)]) for each in batch.members]


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def _split(spec: StackSpec, known: Known) -> Split:
    return known.once(lambda: split_of(_case(spec), spec.data), spec)


@dataclass(frozen=True)
class _Batch:
    """Members that are one program; `alone` says why they train as plain loops where they stacked when tried."""

    members: list[StackMember]
    cases: list[Case]
    split: Split
    stacking: Stackability
    first_seed: int
    alone: str | None = None


def _programs(spec: StackSpec, records: dict[str, MemberRecord], known: Known) -> list[_Batch]:
    """The members by program; those whose remedies find no place are put into `records` as failed."""
    groups: dict[str, list[tuple[StackMember, Case]]] = {}
    split = _split(spec, known)
    cases: dict[str, Case] = {}
    for member in spec.members:
        levels = json.dumps(dict(member.levels), sort_keys=True)
        try:
            case = cases[levels] = cases.get(levels) or treated(spec, member.levels, split)
        except Exception as error:
            records[member.key] = _failed(member, error)
            continue
        groups.setdefault(_structure(member.levels, case), []).append((member, case))
    return [batch for name, group in groups.items() for batch in _split_group(spec, name, group, split, known)]


def treated(spec: StackSpec, levels: Mapping[str, Level], split: Split) -> Case:
    """The case under these levels, with the experiment's training numbers."""
    from harness.remedies import matched_beta, treat

    case = _case(spec)
    case = replace(case, train={**case.train, **spec.train})
    if levels.get("beta") == "matched":
        levels = {**levels, "beta": matched_beta(case, levels, split)}
    return treat(case, levels, split)


def _case(spec: StackSpec) -> Case:
    return load_case(spec.case) if isinstance(spec.case, str) else spec.case


def _structure(levels: Mapping[str, Level], case: Case) -> str:
    from harness.remedies.levels import is_number

    numbers = set(case.numbers) | {"learning_rate", "bias_init"}
    return json.dumps(
        {name: value for name, value in sorted(levels.items()) if name not in numbers and not is_number(name)}
    )


def _split_group(
    spec: StackSpec, structure: str, group: list[tuple[StackMember, Case]], split: Split, known: Known
) -> list[_Batch]:
    """Members that stack, by the numbers that their loss wants as plain floats; or each member alone."""
    members, cases = [member for member, _ in group], [case for _, case in group]

    def tried() -> tuple[Stackability, Split]:
        try:
            rows = split_of(cases[0]) if members[0].levels.get("inputs") == "centred" else split
            return stackability(cases[0], rows.train.inputs), rows
        except Exception:
            return Stackability(None, frozenset(), "it could not be tried"), split

    stacking, rows = known.once(tried, spec, structure)
    if stacking.rule is None:
        # a fresh case each: what one member's loss remembers is not the next one's business
        return [_Batch([m], [treated(spec, m.levels, split)], rows, stacking, spec.first_seed) for m in members]
    parts: dict[tuple[float, ...], list[int]] = {}
    for index, case in enumerate(cases):
        apart = () if stacking.shares else (float(index),)
        numbers = tuple(float(case.numbers[name]) for name in sorted(stacking.fixed))
        parts.setdefault((*apart, *numbers), []).append(index)
    return [
        _Batch([members[i] for i in part], [cases[i] for i in part], rows, stacking, spec.first_seed)
        for part in parts.values()
    ]


def _trained(batch: _Batch, progress: Callable[[int], None]) -> list[MemberRecord]:
    started, done = time.perf_counter(), 0
    members, cases = batch.members, batch.cases
    padding = _padding(batch)
    seeds = [member.seed for member in members]
    numbers = cases[0].training()
    device = _device(numbers["device"])
    history = History(len(members), batch.split, numbers, device)
    cases, seeds = [*cases, *[cases[-1]] * padding], [*seeds, *[seeds[-1]] * padding]
    snapshot: Snapshot | None = None
    for snapshot in train(cases, seeds, batch.split, batch.stacking, device):
        history.add(snapshot)
        progress((snapshot.step - done) * len(members))
        done = snapshot.step
    assert snapshot is not None
    return _judged(batch, snapshot, history, (time.perf_counter() - started) / len(members), device)


def _padding(batch: _Batch) -> int:
    """How many copies of the last member fill the stack to a size at which nobody's roundings depend on it."""
    count = len(batch.members)
    return 0 if batch.stacking.rule is None else batch.stacking.filled(count) - count


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _judged(batch: _Batch, snapshot: Snapshot, history: History, seconds: float, device: str) -> list[MemberRecord]:
    from harness.diagnosis import diagnose

    count, case = len(batch.members), batch.cases[0]
    held = few_rows(batch.split.evaluation, LARGEST_EVALUATION)
    rows = held.inputs.to(device)
    seen = snapshot.engine.observe(rows, keep=lambda made, _: made[:count].cpu())
    code, made = seen.code[:count].cpu(), seen.reconstruction
    again = code
    if not snapshot.engine.repeats(rows):
        again = snapshot.engine.observe(rows, "second observation").code[:count].cpu()
    diagnoses = diagnose(
        code,
        activation=seen.activation,
        labels=held.labels,
        factors=held.factors or None,
        inputs=held.quantities,
        reconstruction=made,
        target=_target(case),
        repeat=None if torch.equal(code, again) or not bool(code.isfinite().all()) else again,
        members=True,
        dtype=snapshot.engine.precision,
        scale=None if seen.scale is None else seen.scale[:count].cpu(),
        normalised=seen.raw[:count].cpu(),
        ablation=_ablation(snapshot, held, device, count, code.shape[-1]) if made is not None else None,
        blocks=held.blocks,
        training_inputs=batch.split.train.quantities,
    )
    history.conclude(diagnoses)
    losses = history.final_losses(snapshot, batch.split.evaluation)
    return [
        _record(batch, i, each, snapshot, history, told, losses, seconds, None if made is None else made[i], held)
        for i, (each, told) in enumerate(zip(diagnoses, history.by_member(), strict=True))
    ]


def _target(case: Case) -> float | None:
    names = case.loss_keywords()
    return case.rho if case.target is not None or "rho" in names else None


def _ablation(snapshot: Snapshot, held: Rows, device: str, count: int, units: int) -> Tensor | None:
    """R2 lost when a unit shows its mean, `[member, unit]`; None for wide codes."""
    from harness.measures import r2

    if units > LARGEST_ABLATION:
        return None
    few = few_rows(held, ABLATION_ROWS).inputs
    rows, truth = few.to(device), few.flatten(1)

    def fit(unit: int | None) -> Tensor:
        made = snapshot.engine.ablated(rows, unit)
        assert made is not None
        return r2(made[:count].cpu(), truth)

    whole = fit(None)
    return torch.stack([whole - fit(unit) for unit in range(units)], dim=-1)


def _record(
    batch: _Batch,
    index: int,
    diagnosis: Any,
    snapshot: Snapshot,
    history: History,
    told: tuple[Any, Any],
    losses: dict[str, Tensor],
    seconds: float,
    made: Tensor | None,
    held: Rows,
) -> MemberRecord:
    member, found = batch.members[index], diagnosis.to_dict()
    lost = int(snapshot.diverged[index])
    live = [bool(value) for value in history.live(index, diagnosis)]
    output = diagnosis.output
    return MemberRecord(
        key=member.key,
        variant=member.variant,
        levels=dict(member.levels),
        seed=member.seed,
        status="diverged" if lost >= 0 or not _finite(losses, index) else "ok",
        diverged_step=lost if lost >= 0 else None,
        verdict=str(diagnosis.verdict.value),
        flags=list(found["flags"]),
        units=len(diagnosis.units),
        live_units=sum(live),
        r2=None if output is None else _number(output.r2),
        pca_r2=[] if output is None else [float(value) for value in output.pca_r2],
        losses={name: float(value[index]) for name, value in losses.items()},
        history=Series.of(told[0]),
        unit_history=Series.of(told[1]),
        died_at=history.died_at(index, live),
        diagnosis=Document.of(found),
        examples=Document.of(_examples(member, batch.first_seed, made, held)),
        seconds=seconds,
        logged_at=int(time.time() * 1000),
    )


def _finite(losses: Mapping[str, Tensor], index: int) -> bool:
    return all(bool(torch.isfinite(value[index])) for value in losses.values())


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def _examples(member: StackMember, first_seed: int, made: Tensor | None, held: Rows) -> dict[str, Any]:
    if member.seed != first_seed or made is None or not bool(made.isfinite().all()):
        return {}
    index = torch.linspace(0, len(held) - 1, 6).long()
    return {
        "inputs": held.inputs[index].flatten(1).tolist(),
        "reconstruction": made[index].flatten(1).tolist(),
        "shape": list(held.inputs.shape[1:]),
    }


def _failed(member: StackMember, error: Exception) -> MemberRecord:
    kind = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
    return MemberRecord(
        key=member.key,
        variant=member.variant,
        levels=dict(member.levels),
        seed=member.seed,
        status="failed",
        error=f"{kind}{error}"[:1000],
        logged_at=int(time.time() * 1000),
    )


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimiser steps of one epoch."""
    from harness.training import batch_bounds

    return len(batch_bounds(rows, batch_size))
