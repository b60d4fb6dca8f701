"""The trained model of a member: from its kept weights, or trained again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError
from harness.experiment.state import load_state
from harness.experiment.stored import declared_experiment
from harness.grid import Experiment
from harness.results import MemberRecord, results_folder, write_atomic
from harness.results.packed import PackedMapping
from harness.results.weights import weights_file

if TYPE_CHECKING:
    from torch import nn

    from harness.execution.spec import StackSpec

SHORTEST_PREFIX = 4  # characters of a key
NAMED = 3  # members that an error names
UNCOMPARED = ("seconds", "logged_at", "alone", "variant", "weights")  # the same result may differ in them


@dataclass(frozen=True)
class TrainedMember:
    """The trained model of a member.

    Args:
        record: of the member.
        model: the treated model with its trained weights, in eval mode.
        weights: the file of the weights, in the results folder.
        trained: True if the member was trained again because its weights were not kept.
    """

    record: MemberRecord
    model: "nn.Module"
    weights: Path
    trained: bool


def member_model(experiment: "str | Path | Experiment", member: str, root: Path | None = None) -> TrainedMember:
    """Load the trained model of a member. If its weights were not kept, it is trained again, and its weights are kept.

    Args:
        experiment: the name of an experiment that was run, the path of its YAML file, or an `Experiment`.
        member: its key, the unambiguous beginning of its key (4 characters or more), or its variant and seed as in
            "as_posted s3".
        root: folder that contains `mlruns/`; None means the current one.

    Raises:
        HarnessError: if there is no such member, it has no trained model, or it cannot be trained again to the same
            result (on another machine, for example).
    """
    root = root or Path.cwd()
    declared = declared_experiment(experiment, root)
    folder = results_folder(declared.name, root)
    state = load_state(declared, folder)
    record = find_member(state.records(), member, declared.name, state.notes)
    if record.status == "failed":
        raise HarnessError(f"{declared.name}: {member}: this member was not trained ({record.error})")
    specification = _specification(declared, record)
    file = weights_file(folder, record.key)
    trained = not file.is_file()
    if trained:
        write_atomic(file, _train_again(specification, record))
    return TrainedMember(record, _model(specification, record, file), file, trained)


def find_member(
    records: Sequence[MemberRecord], member: str, experiment: str, notes: Sequence[str] = ()
) -> MemberRecord:
    """Find a member by its key, the beginning of its key, or its variant and seed.

    Raises:
        HarnessError: if there is none, or more than one.
    """
    matching = [record for record in records if member in (record.key, record.name)]
    if not matching and len(member) >= SHORTEST_PREFIX:
        matching = [record for record in records if record.key.startswith(member)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        names = ", ".join(f"{record.key} ({record.name})" for record in matching[:NAMED])
        raise HarnessError(f"{experiment}: {len(matching)} members match {member!r}: {names}; write more of the key")
    reasons = "".join(f" ({note})" for note in notes)
    similar = get_close_matches(member, [record.name for record in records], n=1)
    instead = f"; did you mean {similar[0]!r}?" if similar else "; members.csv beside the report has the keys"
    raise HarnessError(f"{experiment}: no member is called {member[:60]!r}{instead}{reasons}")


def _specification(experiment: Experiment, record: MemberRecord) -> "StackSpec":
    from harness.execution.spec import StackMember, StackSpec

    member = StackMember(record.key, record.variant, dict(record.levels), record.seed, record.split)
    return StackSpec(
        experiment.case_reference,
        experiment.data_reference,
        (member,),
        dict(experiment.train),
        experiment.seeds[0],
        "all",
    )


def _train_again(specification: "StackSpec", record: MemberRecord) -> bytes:
    """Train the member in a worker process, as a run does, and return its weights.

    Raises:
        HarnessError: if the result differs from the stored one.
    """
    from harness.execution.pool import run_stacks

    [[again]] = run_stacks([specification], workers=1)
    different = [
        attribute.name
        for attribute in fields(MemberRecord)
        if attribute.name not in UNCOMPARED and _text(again, attribute.name) != _text(record, attribute.name)
    ]
    if different:
        raise HarnessError(
            f"{record.key}: training it again gave another result (it differs in {', '.join(different)}), so its model "
            "cannot be restored; run the experiment again with `keep_weights: all` on this machine"
        )
    return again.weights


def _text(record: MemberRecord, name: str) -> str:
    """Return a field as text that is equal for equal bits; NaN equals NaN, whatever its sign bit."""
    value = getattr(record, name)
    return json.dumps(value.plain() if isinstance(value, PackedMapping) else value)


def _model(specification: "StackSpec", record: MemberRecord, file: Path) -> "nn.Module":
    from harness.execution.member_weights import load_weights
    from harness.execution.program_batches import CaseCache, rows_of, treated_case
    from harness.models import build_model, precision_for

    split = rows_of(specification, CaseCache())
    case = treated_case(specification, record.levels, split)
    rows = split.train.inputs[:4]
    model = build_model(case, record.seed, rows)
    model = model.to(precision_for(model, rows))
    try:
        load_weights(model, file.read_bytes())
    except Exception as error:  # a damaged file, or a model of another shape
        raise HarnessError(
            f"{file}: these weights do not fit the model ({error}); remove the file to train it again"
        ) from error
    return model.eval()
