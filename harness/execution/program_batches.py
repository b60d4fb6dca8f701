"""Division of a stack into programs, and the fallback for a program that fails."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from harness.case import Case, load_case
from harness.data import split_of
from harness.data.rows import Split
from harness.errors import HarnessError
from harness.execution.process_state import kept_process_state
from harness.execution.spec import StackMember, StackSpec, failed
from harness.results.records import Level, MemberRecord
from harness.training import VmapSupport, check_vmap_support, device_of
from harness.training.vmap_support import is_vmap_error, refused_by_vmap
from harness.user_code import guarded


class CaseCache:
    """Cache of results about an experiment's case, for all of its stacks in one process."""

    def __init__(self) -> None:
        self._results: dict[tuple[str | None, ...], Any] = {}

    def once(self, find: Callable[[], Any], spec: StackSpec, *of: str) -> Any:
        """Return the cached result of `find` for the same case, data, split and training numbers."""
        key = (str(spec.case), spec.data, str(spec.split), str(spec.train), *of)
        if key not in self._results:
            self._results[key] = find()
        return self._results[key]


@dataclass(frozen=True)
class ProgramBatch:
    """Members of one program on one device.

    `alone` is the reason why they train as plain loops although the test of the case stacked them.
    """

    members: list[StackMember]
    cases: list[Case]
    split: Split
    stacking: VmapSupport
    first_seed: int
    device: str
    alone: str | None = None


def group_programs(spec: StackSpec, records: dict[str, MemberRecord], cache: CaseCache) -> list[ProgramBatch]:
    """Group the members of a stack by program; members whose remedies do not apply are recorded as failed."""
    groups: dict[str, list[tuple[StackMember, Case]]] = {}
    split = rows_of(spec, cache)
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
    return [batch for name, group in groups.items() for batch in _split_group(spec, name, group, split, cache)]


def treated_case(spec: StackSpec, levels: Mapping[str, Level], split: Split) -> Case:
    """Return the case under these levels, with the experiment's training numbers."""
    from harness.remedies import apply_remedies, matched_beta

    case = _case(spec)
    case = replace(case, train={**case.train, **spec.train})
    if levels.get("beta") == "matched":
        levels = {**levels, "beta": matched_beta(case, levels, split)}
    with kept_process_state():  # a loss may set torch's default dtype; what the case's file sets stays
        return apply_remedies(case, levels, split)


def _case(spec: StackSpec) -> Case:
    return load_case(spec.case) if isinstance(spec.case, str) else spec.case


def _structure(levels: Mapping[str, Level], case: Case) -> str:
    """Return what members of one program share: their structural levels, and the names of the numbers of their losses.

    A member without a number that another one sets, such as a weight that is 1 where none is given, is another program.
    """
    from harness.factors import is_number

    numbers = set(case.numbers) | {"learning_rate", "bias_init"}
    structural = {name: value for name, value in sorted(levels.items()) if name not in numbers and not is_number(name)}
    return json.dumps([structural, sorted(case.numbers)])


def _split_group(
    spec: StackSpec, structure: str, group: list[tuple[StackMember, Case]], split: Split, cache: CaseCache
) -> list[ProgramBatch]:
    """Split members by the numbers that their loss takes as plain floats, or into single members."""
    members, cases = [member for member, _ in group], [case for _, case in group]

    def support() -> tuple[VmapSupport, Split, str]:
        device = device_of(cases[0], split.train.inputs, split.train.targets)
        try:
            with guarded(), kept_process_state():
                rows = split_of(cases[0]) if members[0].levels.get("inputs") == "centred" else split
                inputs, targets = rows.train.inputs.to(device), rows.train.targets
                return check_vmap_support(cases[0], inputs, targets=targets), rows, device
        except Exception:
            return VmapSupport(None, frozenset(), "the test of the case failed"), split, device

    stacking, rows, device = cache.once(support, spec, structure)
    if stacking.rule is None:
        # a new case per member: state in one member's loss must not reach the next member
        return [
            ProgramBatch([m], [treated_case(spec, m.levels, split)], rows, stacking, spec.first_seed, device)
            for m in members
        ]
    parts: dict[tuple[float, ...], list[int]] = {}
    for index, case in enumerate(cases):
        separate = () if stacking.shares else (float(index),)
        numbers = tuple(float(case.numbers[name]) for name in sorted(stacking.fixed))
        parts.setdefault((*separate, *numbers), []).append(index)
    return [
        ProgramBatch([members[i] for i in part], [cases[i] for i in part], rows, stacking, spec.first_seed, device)
        for part in parts.values()
    ]


def fallback_batches(batch: ProgramBatch, spec: StackSpec, cache: CaseCache, error: Exception) -> list[ProgramBatch]:
    """Return the batches to try after a stack failed: halves, or single members; none if those would fail as well.

    A member has the same numbers in a half as in the whole stack, so that they do not depend on the failing member (a
    diverged one whose loss raises, as `binary_cross_entropy` does). An error of `vmap` concerns all members.
    """
    if batch.stacking.rule is None or isinstance(error, HarnessError) or _is_machine_error(error):
        return []
    if len(batch.members) > 1 and not is_vmap_error(error):
        middle = len(batch.members) // 2
        return [
            replace(batch, members=batch.members[part], cases=batch.cases[part])
            for part in (slice(middle), slice(middle, None))
        ]
    why, split = refused_by_vmap(error), rows_of(spec, cache)
    alone = replace(batch, stacking=VmapSupport(None, frozenset(), why), alone=why)
    return [
        replace(alone, members=[member], cases=[treated_case(spec, member.levels, split)]) for member in batch.members
    ]


def _is_machine_error(error: Exception) -> bool:
    """Return True if memory is exhausted or the GPU unusable, so that another attempt would fail as well."""
    device_error = isinstance(error, MemoryError | torch.OutOfMemoryError | torch.AcceleratorError)
    return device_error or "allocate memory" in str(error)


def rows_of(spec: StackSpec, cache: CaseCache) -> Split:
    """Return the rows of the stack's experiment, read once."""
    return cache.once(lambda: split_of(_case(spec), spec.data, spec.split), spec)
