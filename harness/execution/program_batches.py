"""Which members of a stack are one program, and what a program that fails is tried as."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.case import Case, load_case
from harness.data import split_of
from harness.data.rows import Split
from harness.errors import HarnessError
from harness.execution.member_record import failed
from harness.execution.spec import StackMember, StackSpec
from harness.results.records import Level, MemberRecord
from harness.training import VmapSupport, check_vmap_support, device_of
from harness.training.vmap_support import is_vmap_error, refused_by_vmap
from harness.user_code import guarded


class CaseCache:
    """What is found out once of an experiment's case, for all stacks that one process trains of it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str | None, ...], Any] = {}

    def once(self, find: Callable[[], Any], spec: StackSpec, *of: str) -> Any:
        """What `find` finds, or found before of the same case, data and training numbers."""
        key = (str(spec.case), spec.data, str(spec.train), *of)
        if key not in self._found:
            self._found[key] = find()
        return self._found[key]


@dataclass(frozen=True)
class ProgramBatch:
    """Members that are one program, on one device; `alone` says why they train as plain loops where they stacked when
    tried.
    """

    members: list[StackMember]
    cases: list[Case]
    split: Split
    stacking: VmapSupport
    first_seed: int
    device: str
    alone: str | None = None


def group_programs(spec: StackSpec, records: dict[str, MemberRecord], known: CaseCache) -> list[ProgramBatch]:
    """The members of a stack by program; those whose remedies find no place are put into `records` as failed."""
    groups: dict[str, list[tuple[StackMember, Case]]] = {}
    split = rows_of(spec, known)
    cases: dict[str, Case] = {}
    for member in spec.members:
        levels = json.dumps(dict(member.levels), sort_keys=True)
        try:
            with guarded():
                case = cases[levels] = cases.get(levels) or treated_case(spec, member.levels, split)
        except Exception as error:
            records[member.key] = failed(member, error)
            continue
        groups.setdefault(_structure(member.levels, case), []).append((member, case))
    return [batch for name, group in groups.items() for batch in _split_group(spec, name, group, split, known)]


def treated_case(spec: StackSpec, levels: Mapping[str, Level], split: Split) -> Case:
    """The case under these levels, with the experiment's training numbers."""
    from harness.remedies import apply_remedies, matched_beta

    case = _case(spec)
    case = replace(case, train={**case.train, **spec.train})
    if levels.get("beta") == "matched":
        levels = {**levels, "beta": matched_beta(case, levels, split)}
    return apply_remedies(case, levels, split)


def _case(spec: StackSpec) -> Case:
    return load_case(spec.case) if isinstance(spec.case, str) else spec.case


def _structure(levels: Mapping[str, Level], case: Case) -> str:
    from harness.factors import is_number

    numbers = set(case.numbers) | {"learning_rate", "bias_init"}
    return json.dumps(
        {name: value for name, value in sorted(levels.items()) if name not in numbers and not is_number(name)}
    )


def _split_group(
    spec: StackSpec, structure: str, group: list[tuple[StackMember, Case]], split: Split, known: CaseCache
) -> list[ProgramBatch]:
    """Members that stack, by the numbers that their loss wants as plain floats; or each member alone."""
    members, cases = [member for member, _ in group], [case for _, case in group]

    def tried() -> tuple[VmapSupport, Split, str]:
        device = device_of(cases[0], split.train.inputs)
        try:
            with guarded():
                rows = split_of(cases[0]) if members[0].levels.get("inputs") == "centred" else split
                return check_vmap_support(cases[0], rows.train.inputs.to(device)), rows, device
        except Exception:
            return VmapSupport(None, frozenset(), "it could not be tried"), split, device

    stacking, rows, device = known.once(tried, spec, structure)
    if stacking.rule is None:
        # a fresh case each: what one member's loss remembers is not the next one's business
        return [
            ProgramBatch([m], [treated_case(spec, m.levels, split)], rows, stacking, spec.first_seed, device)
            for m in members
        ]
    parts: dict[tuple[float, ...], list[int]] = {}
    for index, case in enumerate(cases):
        apart = () if stacking.shares else (float(index),)
        numbers = tuple(float(case.numbers[name]) for name in sorted(stacking.fixed))
        parts.setdefault((*apart, *numbers), []).append(index)
    return [
        ProgramBatch([members[i] for i in part], [cases[i] for i in part], rows, stacking, spec.first_seed, device)
        for part in parts.values()
    ]


def fallback_batches(batch: ProgramBatch, spec: StackSpec, known: CaseCache, error: Exception) -> list[ProgramBatch]:
    """What a stack that failed is tried as: halves, a member of its own alone; nothing where that would fail as well.

    In halves a member has the same numbers, so that they never depend on the one that fails (a diverged one whose loss
    raises, as `binary_cross_entropy` does). What `vmap` refuses it refuses for all.
    """
    if batch.stacking.rule is None or isinstance(error, HarnessError) or _is_of_the_machine(error):
        return []
    if len(batch.members) > 1 and not is_vmap_error(error):
        middle = len(batch.members) // 2
        return [
            replace(batch, members=batch.members[part], cases=batch.cases[part])
            for part in (slice(middle), slice(middle, None))
        ]
    why, split = refused_by_vmap(error), rows_of(spec, known)
    alone = replace(batch, stacking=VmapSupport(None, frozenset(), why), alone=why)
    return [replace(alone, members=[each], cases=[treated_case(spec, each.levels, split)]) for each in batch.members]


def _is_of_the_machine(error: Exception) -> bool:
    """Whether memory is used up, or a GPU lost to this process: what is tried next would fail as well."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError)
    return known or "allocate memory" in str(error)


def rows_of(spec: StackSpec, known: CaseCache) -> Split:
    """The rows of the stack's experiment, read once."""
    return known.once(lambda: split_of(_case(spec), spec.data), spec)
