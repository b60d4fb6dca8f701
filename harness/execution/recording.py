"""The members of a trained program, judged: a record each."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.boundary import CaseExit
from harness.case import Case
from harness.data.rows import Rows
from harness.errors import HarnessError
from harness.execution.histories import History, few_rows
from harness.execution.spec import StackMember, failed_record
from harness.results.packed import Document, Series
from harness.results.records import MemberRecord
from harness.training import Snapshot

if TYPE_CHECKING:
    from harness.execution.programs import Batch

LARGEST_ABLATION = 32  # units: each costs a forward pass
LARGEST_EVALUATION = 1024  # held-out rows that a verdict rests on: frequencies down to .0036 can be told from never
ABLATION_ROWS = 256


def judged(batch: "Batch", snapshot: Snapshot, history: History, seconds: float) -> list[MemberRecord]:
    from harness.diagnosis import diagnose

    count, case = len(batch.members), batch.cases[0]
    held = few_rows(batch.split.evaluation, LARGEST_EVALUATION)
    rows = held.inputs.to(batch.device)
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
        ablation=_ablation(snapshot, held, batch.device, count, code.shape[-1]) if made is not None else None,
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
    from harness.measures import explained, missed_squares

    if units > LARGEST_ABLATION:
        return None
    few = few_rows(held, ABLATION_ROWS).inputs
    rows, truth = few.to(device), few.flatten(1)

    def look(numbers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen = snapshot.engine.observe(
            rows, keep=lambda made, part: missed_squares(made, part.flatten(1)), held=numbers
        )
        return explained(sum(seen.made[1:], start=seen.made[0])[:count].cpu(), truth), seen.code

    whole, code = look()
    means = code.double().mean(dim=-2).to(code)
    one = torch.eye(units, dtype=torch.bool, device=means.device)
    return torch.stack([whole - look(means.where(one[unit], torch.nan))[0] for unit in range(units)], dim=-1)


def _record(
    batch: "Batch",
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


def failed(member: StackMember, error: Exception) -> MemberRecord:
    """The record of a member whose remedies, model or loss raised this."""
    kind = "" if isinstance(error, HarnessError) else f"{type(error).__name__}: "
    kind = "the case's code ended with " if isinstance(error, CaseExit) else kind
    return failed_record(member, f"{kind}{error}"[:1000])
