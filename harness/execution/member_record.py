"""The members of a trained program, judged: a record each."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.case import Case
from harness.data.rows import Rows, Split
from harness.errors import HarnessError
from harness.execution.history import History, few_rows
from harness.execution.spec import StackMember, failed_record
from harness.remedies import judged_target
from harness.results.packed import PackedArrays, PackedJson
from harness.results.records import MemberRecord
from harness.training import Snapshot
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine
from harness.user_code import CaseExit

if TYPE_CHECKING:
    from harness.diagnosis import Diagnosis
    from harness.execution.program_batches import ProgramBatch

LARGEST_ABLATION = 32  # units: each costs a forward pass
LARGEST_EVALUATION = 1024  # held-out rows that a verdict rests on: frequencies down to .0036 can be told from never
ABLATION_ROWS = 256


@dataclass(frozen=True)
class JudgedStack:
    """What was found of trained models.

    Args:
        diagnoses: one a model.
        reconstruction: what they made of the rows, `[member, sample, feature]`; None where no output is compared with them.
        rows: the held-out rows that the diagnoses rest on.
    """

    diagnoses: "list[Diagnosis]"
    reconstruction: Tensor | None
    rows: Rows


def judge_members(
    engine: StackedEngine | SequentialEngine, cases: Sequence[Case], split: Split, device: str = "cpu"
) -> JudgedStack:
    """Judge trained models, each against the target of its own case.

    Args:
        engine: the models; those beyond the number of `cases` are padding.
        cases: one a model, treated or not.
        split: their rows.
        device: where the engine is.
    """
    from harness.diagnosis import diagnose

    count, held = len(cases), few_rows(split.evaluation, LARGEST_EVALUATION)
    rows = held.inputs.to(device)
    seen = engine.observe(rows, keep=lambda made, _: made[:count].cpu())
    code, made = seen.code[:count].cpu(), seen.reconstruction
    again = code if engine.repeats(rows) else engine.observe(rows, "second observation").code[:count].cpu()
    repeat = None if torch.equal(code, again) or not bool(code.isfinite().all()) else again
    ablation = _ablation(engine, held, device, count, code.shape[-1]) if made is not None else None
    scale = None if seen.scale is None else seen.scale[:count].cpu()
    diagnoses: dict[int, Diagnosis] = {}
    for target, members in _by_target(cases).items():
        found = diagnose(
            code[members],
            activation=seen.activation,
            labels=held.labels,
            factors=held.factors or None,
            inputs=held.quantities,
            reconstruction=_of(members, made),
            target=target,
            repeat=_of(members, repeat),
            members=True,
            dtype=engine.precision,
            scale=_of(members, scale),
            normalised=seen.raw[:count].cpu()[members],
            ablation=_of(members, ablation),
            blocks=held.blocks,
            training_inputs=split.train.quantities,
        )
        diagnoses |= dict(zip(members, found, strict=True))
    return JudgedStack([diagnoses[member] for member in range(count)], made, held)


def _by_target(cases: Sequence[Case]) -> dict[float | None, list[int]]:
    """The positions of the cases that are judged against each target."""
    members: dict[float | None, list[int]] = {}
    for position, case in enumerate(cases):
        members.setdefault(judged_target(case), []).append(position)
    return members


def _of(members: list[int], values: Tensor | None) -> Tensor | None:
    return None if values is None else values[members]


def member_records(batch: "ProgramBatch", snapshot: Snapshot, history: History, seconds: float) -> list[MemberRecord]:
    """The record of each member of a trained program."""
    found = judge_members(snapshot.engine, batch.cases, batch.split, batch.device)
    history.conclude(found.diagnoses)
    losses = history.final_losses(snapshot, batch.split.evaluation)
    made = found.reconstruction
    return [
        _record(batch, i, each, snapshot, history, told, losses, seconds, None if made is None else made[i], found.rows)
        for i, (each, told) in enumerate(zip(found.diagnoses, history.by_member(), strict=True))
    ]


def _ablation(
    engine: StackedEngine | SequentialEngine, held: Rows, device: str, count: int, units: int
) -> Tensor | None:
    """R2 lost when a unit shows its mean, `[member, unit]`; None for wide codes, and where no unit can be replaced."""
    from harness.measures import r2_from_sse, sum_squared_error

    if units > LARGEST_ABLATION:
        return None
    few = few_rows(held, ABLATION_ROWS).inputs
    rows, truth = few.to(device), few.flatten(1)

    def look(numbers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen = engine.observe(rows, keep=lambda made, part: sum_squared_error(made, part.flatten(1)), held=numbers)
        return r2_from_sse(sum(seen.made[1:], start=seen.made[0])[:count].cpu(), truth), seen.code

    whole, code = look()
    means = code.double().mean(dim=-2).to(code)
    one = torch.eye(units, dtype=torch.bool, device=means.device)
    lost = torch.stack([whole - look(means.where(one[unit], torch.nan))[0] for unit in range(units)], dim=-1)
    return lost if engine.replaces_code else None


def _record(
    batch: "ProgramBatch",
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
        history=PackedArrays.of(told[0]),
        unit_history=PackedArrays.of(told[1]),
        died_at=history.died_at(index, live),
        diagnosis=PackedJson.of(found),
        examples=PackedJson.of(_examples(member, batch.first_seed, made, held)),
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


def failed(member: StackMember, error: Exception) -> MemberRecord:
    """The record of a member whose remedies, model or loss raised this."""
    kind = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
    kind = "the case's code ended with " if isinstance(error, CaseExit) else kind
    return failed_record(member, f"{kind}{error}"[:1000])
