"""Judgment of the members of a trained program, and their records."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.capture.code_form import CodeForm
from harness.case import Case
from harness.data.rows import Rows, Split
from harness.execution.history import History, few_rows, squared_errors
from harness.execution.spec import StackMember
from harness.remedies import judged_target
from harness.results.packed import PackedArrays, PackedJson
from harness.results.records import MemberRecord
from harness.training import Snapshot
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine

if TYPE_CHECKING:
    from harness.diagnosis import Diagnosis
    from harness.execution.program_batches import ProgramBatch

LARGEST_ABLATION = 32  # units; each costs a forward pass
LARGEST_EVALUATION = 1024  # held-out samples of a verdict; with one position each, 0.0036 can be told from 0
ABLATION_ROWS = 256
ROUNDINGS = 64  # differences of R2 below this many eps may be rounding


@dataclass(frozen=True)
class JudgedStack:
    """Diagnoses of trained models.

    Args:
        diagnoses: one per model.
        reconstruction: the reconstructed rows, `[member, sample, feature]`; None if no output is compared with them.
        rows: the held-out rows of the diagnoses.
    """

    diagnoses: "list[Diagnosis]"
    reconstruction: Tensor | None
    rows: Rows


def judge_members(
    engine: StackedEngine | SequentialEngine, cases: Sequence[Case], split: Split, device: str = "cpu"
) -> JudgedStack:
    """Diagnose trained models, each against the target of its own case.

    Args:
        engine: the models; those beyond the number of `cases` are padding.
        cases: one per model, treated or not.
        split: their rows.
        device: device of the engine.
    """
    from harness.diagnosis import diagnose
    from harness.diagnosis.inputs import is_relu

    count, evaluation = len(cases), few_rows(split.evaluation, LARGEST_EVALUATION)
    rows = evaluation.inputs.to(device)
    view = engine.observe(rows, keep=lambda reconstruction, _: reconstruction[:count].cpu())
    code, reconstruction = view.code[:count].cpu(), view.reconstruction
    again = code if engine.repeats(rows) else engine.observe(rows, "second observation").code[:count].cpu()
    repeat = None if torch.equal(code, again) or not bool(code.isfinite().all()) else again
    ablation = _ablation(engine, evaluation, device, count, view.form) if reconstruction is not None else None
    of_units, of_code = (None, None) if ablation is None else ablation
    scale = None if view.scale is None else view.scale[:count].cpu()
    posterior = None if view.posterior is None else view.form.rows(view.posterior[:count].cpu())
    code, raw = view.form.rows(code), view.form.rows(view.raw[:count].cpu())
    repeat = None if repeat is None else view.form.rows(repeat)
    references = _at_positions(evaluation, view.form)
    output = None if view.output is None else view.output[:count].cpu()
    diagnoses: dict[int, Diagnosis] = {}
    for target, members in _by_target(cases).items():
        options = _compared(_of(members, reconstruction), _of(members, output), evaluation)
        options |= {} if posterior is None else {"posterior": posterior[members]}
        group = diagnose(
            code[members],
            # values behind a normalization or a shift may be negative after a ReLU
            activation="none" if view.activation == "relu" and not is_relu(code[members]) else view.activation,
            inputs=evaluation.quantities,
            target=target,
            repeat=_of(members, repeat),
            members=True,
            dtype=engine.precision,
            scale=_of(members, scale),
            normalised=raw[members],
            ablation=_of(members, of_units),
            code_ablation=_of(members, of_code),
            training_inputs=split.train.quantities,
            **references,
            **options,
        )
        diagnoses |= dict(zip(members, group, strict=True))
    return JudgedStack([diagnoses[member] for member in range(count)], reconstruction, evaluation)


def _at_positions(evaluation: Rows, form: CodeForm) -> dict[str, Any]:
    """Return labels, factors and blocks of the rows of a code, and their positions where it has several."""
    factors = {name: form.repeat_samples(values) for name, values in evaluation.factors.items()}
    labels = None if evaluation.labels is None else form.repeat_samples(evaluation.labels)
    references = {"labels": labels, "factors": factors or None, "blocks": evaluation.blocks}
    if form.positions == 1:
        return references
    samples = torch.arange(len(evaluation))
    blocks = samples if evaluation.blocks is None else evaluation.blocks
    positions = torch.arange(form.positions).repeat(len(samples))
    return {**references, "blocks": form.repeat_samples(blocks), "positions": positions}


def _compared(reconstruction: Tensor | None, output: Tensor | None, evaluation: Rows) -> dict[str, Any]:
    """Return the options of `diagnose` for the output: compared with the inputs, with the targets, or with nothing."""
    targets = evaluation.targets
    if output is None:
        expected = {} if evaluation.reference is evaluation.inputs else {"expected_output": evaluation.reference}
        return {"reconstruction": reconstruction, **(expected if reconstruction is not None else {})}
    if (
        targets is not None
        and targets.is_floating_point()
        and targets.reshape(len(targets), -1).shape == output.shape[1:]
    ):
        return {"reconstruction": output, "expected_output": targets}
    return {"output": output}


def _by_target(cases: Sequence[Case]) -> dict[float | None, list[int]]:
    """Group the positions of the cases by target."""
    members: dict[float | None, list[int]] = {}
    for position, case in enumerate(cases):
        members.setdefault(judged_target(case), []).append(position)
    return members


def _of(members: list[int], values: Tensor | None) -> Tensor | None:
    return None if values is None else values[members]


def member_records(batch: "ProgramBatch", snapshot: Snapshot, history: History, seconds: float) -> list[MemberRecord]:
    """Return the record of each member of a trained program."""
    judged = judge_members(snapshot.engine, batch.cases, batch.split, batch.device)
    history.conclude(judged.diagnoses)
    losses = history.final_losses(snapshot, batch.split.evaluation)
    reconstruction = judged.reconstruction
    return [
        _record(
            batch,
            i,
            diagnosis,
            snapshot,
            history,
            histories,
            losses,
            seconds,
            None if reconstruction is None else reconstruction[i],
            judged.rows,
        )
        for i, (diagnosis, histories) in enumerate(zip(judged.diagnoses, history.by_member(), strict=True))
    ]


def _ablation(
    engine: StackedEngine | SequentialEngine, evaluation: Rows, device: str, count: int, form: CodeForm
) -> tuple[Tensor, Tensor] | None:
    """Return the drop in R2 when one unit is set to its mean at each position, `[member, unit]`, and when all are, `[member, 1]`.

    None for wide codes, and where no unit can be replaced. NaN where no layer was seen to read the code and setting all of it
    changes nothing: the replacement may not have reached the decoder.
    """
    from harness.measures import r2_from_sse

    if form.units > LARGEST_ABLATION:
        return None
    sample = few_rows(evaluation, ABLATION_ROWS)
    rows, expected = sample.inputs.to(device), sample.reference.flatten(1)

    def look(numbers: Tensor | None = None) -> tuple[Tensor, Tensor]:
        view = engine.observe(rows, keep=squared_errors(sample, count, device), clamp=numbers)
        return r2_from_sse(sum(view.parts[1:], start=view.parts[0]), expected), view.code

    r2, code = look()
    means = code.double().mean(dim=-2).to(code)
    single_unit = form.spread_units(torch.eye(form.units, dtype=torch.bool, device=means.device))
    code_loss = r2 - look(means)[0]
    if not engine.replaces_code:
        return None
    units = [code_loss] if form.units == 1 else [r2 - look(means.where(unit, torch.nan))[0] for unit in single_unit]
    losses = torch.stack(units, dim=-1)
    if not engine.reads_code:
        unknown = code_loss.abs() <= ROUNDINGS * torch.finfo(engine.precision).eps
        losses, code_loss = losses.where(~unknown[:, None], torch.nan), code_loss.where(~unknown, torch.nan)
    return losses, code_loss[:, None]


def _record(
    batch: "ProgramBatch",
    index: int,
    diagnosis: Any,
    snapshot: Snapshot,
    history: History,
    histories: tuple[Any, Any],
    losses: dict[str, Tensor],
    seconds: float,
    reconstruction: Tensor | None,
    evaluation: Rows,
) -> MemberRecord:
    member, content = batch.members[index], diagnosis.to_dict()
    diverged_step = int(snapshot.diverged[index])
    live = [bool(value) for value in history.live(index, diagnosis)]
    output = diagnosis.output
    return MemberRecord(
        key=member.key,
        variant=member.variant,
        levels=dict(member.levels),
        seed=member.seed,
        split=member.split,
        status="diverged" if diverged_step >= 0 or not _finite(losses, index) else "ok",
        diverged_step=diverged_step if diverged_step >= 0 else None,
        verdict=str(diagnosis.verdict.value),
        flags=list(content["flags"]),
        units=len(diagnosis.units),
        live_units=sum(live),
        r2=None if output is None else _number(output.r2),
        pca_r2=[] if output is None else [float(value) for value in output.pca_r2],
        losses={name: float(value[index]) for name, value in losses.items()},
        history=PackedArrays.of(histories[0]),
        unit_history=PackedArrays.of(histories[1]),
        died_at=history.died_at(index, live),
        diagnosis=PackedJson.of(content),
        examples=PackedJson.of(_examples(member, batch.first_seed, reconstruction, evaluation)),
        seconds=seconds,
        logged_at=int(time.time() * 1000),
    )


def _finite(losses: Mapping[str, Tensor], index: int) -> bool:
    return all(bool(torch.isfinite(value[index])) for value in losses.values())


def _number(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def _examples(member: StackMember, first_seed: int, reconstruction: Tensor | None, evaluation: Rows) -> dict[str, Any]:
    if member.seed != first_seed or member.split or reconstruction is None or not bool(reconstruction.isfinite().all()):
        return {}
    if evaluation.reference is not evaluation.inputs:
        return {}
    index = torch.linspace(0, len(evaluation) - 1, 6).long()
    return {
        "inputs": evaluation.inputs[index].flatten(1).tolist(),
        "reconstruction": reconstruction[index].flatten(1).tolist(),
        "shape": list(evaluation.inputs.shape[1:]),
    }
