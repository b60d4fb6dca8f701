"""Resume state: which members already have results."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.credentials import masked
from harness.execution.first_look import source_digest
from harness.experiment.inspection import Look, look_here
from harness.experiment.locks import WHOLE
from harness.experiment.manifest import manifest_of, training_of
from harness.grid import Experiment, load_experiment, stacks
from harness.grid.case_facts import case_facts, case_file
from harness.planning.cost import Training
from harness.results import (
    RESULTS_FORMAT,
    MemberRecord,
    StoredResults,
    member_key,
    read_records,
    read_results,
    remove_abandoned,
    stored_keys,
)
from harness.results.store import MANIFEST
from harness.results.weights import remove_weights

if TYPE_CHECKING:
    from harness.execution.spec import StackSpec

REUSED = frozenset({"data", "case", "train_rows"})  # inputs of a manifest that an unchanged experiment takes over


@dataclass(frozen=True)
class ResumeState:
    """An experiment and its existing results.

    Args:
        experiment: to be run.
        folder: of its results.
        keys: (variant name, seed, split) -> key.
        done: key -> record of a finished member.
        manifest: written beside the results.
        notes: messages for the user.
        logged: whether the store has all members.
        stamps: key -> date of the record on disk, in milliseconds since 1970.
        damaged: names of damaged files.
        files: name -> checksum of the files of the report.
        brief: whether the large fields of the records in `done` were left out.
    """

    experiment: Experiment
    folder: Path
    keys: Mapping[tuple[str, int, int], str]
    done: dict[str, MemberRecord]
    manifest: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    logged: bool = False
    stamps: Mapping[str, int] = field(default_factory=dict)
    damaged: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    brief: bool = False

    @property
    def complete(self) -> bool:
        """True if every member has a result, and the store has all members."""
        return self.logged and all(key in self.done for key in self.keys.values())

    def dated(self, records: Sequence[MemberRecord]) -> list[MemberRecord]:
        """Date each record later than the one on disk that it replaces, even if the clock was set back."""
        return [
            replace(record, logged_at=max(record.logged_at, self.stamps.get(record.key, 0) + 1)) for record in records
        ]

    def records(self) -> list[MemberRecord]:
        """Return the existing records in the order of the members, with the current variant names."""
        records = []
        for member in self.experiment.members():
            record = self.done.get(self.keys[member.variant.name, member.seed, member.split])
            if record is not None:
                name, levels = member.variant.name, dict(member.variant.levels)
                current = record.variant == name and record.levels == levels
                records.append(record if current else replace(record, variant=name, levels=levels))
        return records


def store_name(tracking_uri: str | None) -> str:
    """Name of the store, independent of the folder; the password is not part of it."""
    return masked(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "local")


def loaded(experiment: "str | Path | Experiment") -> Experiment:
    """Load an experiment; its path becomes absolute, since the case's code may change the working directory."""
    loaded = experiment if isinstance(experiment, Experiment) else load_experiment(experiment)
    if loaded.path is None or loaded.path.is_absolute():
        return loaded
    return loaded.with_changes(path=loaded.path.absolute())


def load_state(
    experiment: Experiment,
    folder: Path,
    fresh: bool = False,
    retry_failed: bool = False,
    store: str = "",
    look: Look = look_here,
    brief: bool = False,
) -> ResumeState:
    """Load the existing results of an experiment.

    Args:
        experiment: to be run.
        folder: of its results.
        fresh: ignore existing results.
        retry_failed: ignore members that could not be run.
        store: the MLflow store that must contain all members.
        look: fingerprints data and case.
        brief: leave out the large fields of the records, if their files are known to be sound.
    """
    stored = read_results(folder, brief)
    digest = source_digest(experiment)
    earlier = stored.manifest.get("inputs", {})
    unchanged = digest is not None and stored.manifest.get("stamp") == digest and earlier.keys() >= REUSED
    inputs = dict(earlier) if unchanged else look(experiment, earlier)
    keys = _keys(experiment, inputs)
    notes = [_damage(name) for name in stored.damaged]
    requested = set(keys.values())
    done = {} if fresh else {record.key: record for record in stored.records if record.key in requested}
    if retry_failed:
        done = {key: record for key, record in done.items() if record.status != "failed"}
    notes += _changes(stored, inputs, experiment)
    manifest = {
        **manifest_of(experiment, inputs),
        "stamp": digest,
        **{name: stored.manifest[name] for name in ("audit", "code") if name in stored.manifest and unchanged},
    }
    logged = bool(stored.manifest.get("logged") == store_digest(keys.values(), store)) and not fresh
    stamps = {record.key: record.logged_at for record in stored.records}
    files = stored.manifest.get("files", {})
    return ResumeState(
        experiment, folder, keys, done, manifest, notes, logged, stamps, stored.damaged, files, stored.brief
    )


def first_workers(experiment: Experiment, folder: Path, fresh: bool, shard: tuple[int, int]) -> int:
    """Count workers that are certainly needed: one per stack of a shipped case, on shipped data, without any result.

    Other cases are read and tried first, by one worker.
    """
    if source_digest(experiment) is None:
        return 1
    if not fresh and any(folder.glob("*.parquet")):
        return 0
    return len(stacks(experiment)[shard[0] - 1 :: shard[1]])


def missing_members(work: ResumeState, shard: tuple[int, int]) -> list["StackSpec"]:
    """Return the missing members of each stack; stacks are padded, so results do not depend on which members were done before."""
    from harness.execution.spec import StackMember, StackSpec

    experiment, specs = work.experiment, []
    for index, plan in enumerate(stacks(experiment)):
        if index % shard[1] != shard[0] - 1:
            continue
        members = tuple(
            StackMember(
                work.keys[m.variant.name, m.seed, m.split], m.variant.name, dict(m.variant.levels), m.seed, m.split
            )
            for m in plan.members
            if work.keys[m.variant.name, m.seed, m.split] not in work.done
        )
        if not members:
            continue
        case = experiment.case_reference
        train, first_seed = dict(experiment.train), experiment.seeds[0]
        specs.append(StackSpec(case, experiment.data_reference, members, train, first_seed, experiment.keep_weights))
    return specs


def _keys(experiment: Experiment, inputs: Mapping[str, Any]) -> dict[tuple[str, int, int], str]:
    facts, train = case_facts(case_file(experiment.case, experiment.folder)), training_of(experiment)
    return {
        (member.variant.name, member.seed, member.split): member_key(
            member.variant.levels, member.seed, facts.numbers, train, inputs["data"], inputs["case"], member.split
        )
        for member in experiment.members()
    }


def _changes(stored: StoredResults, inputs: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """List the inputs that changed since the stored results were computed."""
    if not stored.manifest:
        return []
    before, notes = stored.manifest, []
    inputs_before = before.get("inputs", {})
    if inputs_before.get("data", inputs["data"]) != inputs["data"]:
        notes.append("the data changed since the last run: members are trained again")
    if inputs_before.get("case", inputs["case"]) != inputs["case"]:
        notes.append("the case's file changed since the last run: members are trained again")
    if before.get("format", RESULTS_FORMAT) != RESULTS_FORMAT:
        notes.append("the results are of another format: members are trained again")
    if before.get("experiment", experiment.resolved()) != experiment.resolved():
        notes.append("the experiment changed since the last run: members that both share are kept")
    return notes


def _damage(name: str) -> str:
    if name.startswith(MANIFEST):
        return f"{name}: damaged; it is written again"
    return f"{name}: the file is damaged, its members are trained again"


def member_steps(work: ResumeState, specs: Sequence["StackSpec"]) -> int:
    """Return the optimizer steps of these stacks, summed over their members."""
    training = _training(work)
    return sum(training.steps(member.levels) for spec in specs for member in spec.members)


def steps_per_epoch(work: ResumeState) -> int:
    """Optimizer steps of one epoch of the baseline."""
    return _training(work).steps_per_epoch(work.experiment.baseline)


def _training(work: ResumeState) -> Training:
    return Training(training_of(work.experiment), int(work.manifest["inputs"]["train_rows"]))


def check_device(experiment: Experiment) -> None:
    """Check that the experiment's device is available.

    Raises:
        HarnessError: if it is not.
    """
    name = training_of(experiment)["device"]
    if name not in ("auto", "cpu"):  # always available; torch need not be loaded
        from harness.training import check_device as look

        look(name)


def clean_results(folders: Sequence[Path]) -> None:
    """Remove temporary files of killed processes."""
    for folder in folders:
        remove_abandoned(folder)


def start_over(work: ResumeState, shard: tuple[int, int]) -> None:
    """Remove the results in the folder, or only those of one shard."""
    if shard == WHOLE:
        for path in work.folder.glob("*.parquet"):
            path.unlink(missing_ok=True)
        remove_weights(work.folder, work.keys.values())
        return
    own = {member.key for spec in missing_members(work, shard) for member in spec.members}
    remove_weights(work.folder, own)
    for path, keys in stored_keys(work.folder).items():
        if keys <= own:
            path.unlink(missing_ok=True)


def refreshed(work: ResumeState, store: str) -> ResumeState:
    """Reload the state, with the results of other processes."""
    stored = read_results(work.folder)
    keys = set(work.keys.values())
    done = {**work.done, **{record.key: record for record in stored.records if record.key in keys}}
    logged = stored.manifest.get("logged") == store_digest(keys, store)
    shares_audit = work.manifest["stamp"] is not None and is_described(work, stored.manifest)
    audit = {name: stored.manifest[name] for name in ("audit", "code") if shares_audit and name in stored.manifest}
    files = stored.manifest.get("files", {})
    return replace(work, done=done, manifest={**work.manifest, **audit}, logged=logged, files=files)


def completed(work: ResumeState) -> ResumeState:
    """Return the state with the large fields of its records."""
    if not work.brief:
        return work
    records = read_records(work.folder, work.done)[0]
    return replace(work, done={record.key: record for record in records}, brief=False)


def is_described(work: ResumeState, manifest: Mapping[str, Any]) -> bool:
    """Return True if a stored manifest describes the same experiment, case and data."""
    ours = json.loads(json.dumps(work.manifest, default=str))
    return all(manifest.get(name) == ours[name] for name in ("format", "experiment", "text", "inputs", "stamp"))


def without_result(work: ResumeState, keys: Set[str]) -> list[str]:
    """Return the keys that have no result on disk."""
    on_disk = {key for stored in stored_keys(work.folder).values() for key in stored}
    return [key for key in dict.fromkeys(work.keys.values()) if key in keys and key not in on_disk]


def store_digest(keys: Iterable[str], store: str) -> str:
    """Digest of a store's name and the keys of its members."""
    return hashlib.sha256(" ".join([store, *sorted(keys)]).encode()).hexdigest()[:16]
