"""What an experiment asks, and what of it is there already."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.credentials import masked
from harness.experiment.locks import WHOLE
from harness.experiment.manifest import fingerprints, manifest_of, source_digest, training_of
from harness.grid import Experiment, stacks
from harness.grid.case_facts import case_facts, case_file
from harness.planning.cost import Training
from harness.results import (
    RESULTS_FORMAT,
    MemberRecord,
    Results,
    member_key,
    read_results,
    remove_abandoned,
    slug,
    stored_keys,
)

if TYPE_CHECKING:
    from harness.execution.spec import StackSpec


@dataclass(frozen=True)
class ResumeState:
    """An experiment with what is done of it.

    Args:
        experiment: what is asked.
        folder: of its results.
        keys: (variant name, seed) -> key.
        done: key -> record, of its members.
        manifest: what is written beside the results.
        notes: what was noticed.
        logged: whether the store has all of it.
        stamps: key -> when its record on disk was made.
    """

    experiment: Experiment
    folder: Path
    keys: Mapping[tuple[str, int], str]
    done: dict[str, MemberRecord]
    manifest: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    logged: bool = False
    stamps: Mapping[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do: every member is there, and the store has them."""
        return self.logged and all(key in self.done for key in self.keys.values())

    def dated(self, records: Sequence[MemberRecord]) -> list[MemberRecord]:
        """The records, each later than the one on disk that it replaces, even where the clock was set back."""
        return [replace(each, logged_at=max(each.logged_at, self.stamps.get(each.key, 0) + 1)) for each in records]

    def records(self) -> list[MemberRecord]:
        """The records that are there, in the order of the members, under their names of today."""
        found = []
        for member in self.experiment.members():
            record = self.done.get(self.keys[member.variant.name, member.seed])
            if record is not None:
                found.append(replace(record, variant=member.variant.name, levels=dict(member.variant.levels)))
        return found


def store_name(tracking_uri: str | None) -> str:
    """Which store is meant, wherever the folder lies; another password is no other store."""
    return masked(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "local")


def results_folder(name: str, root: Path) -> Path:
    """Where the results of an experiment lie."""
    return root / "mlruns" / "results" / slug(name)


def report_folder(name: str, root: Path) -> Path:
    """Where its report lies."""
    return root / "mlruns" / "reports" / slug(name)


def load_state(
    experiment: Experiment, folder: Path, fresh: bool = False, retry_failed: bool = False, store: str = ""
) -> ResumeState:
    """What is asked, and what of it is there.

    Args:
        experiment: what is asked.
        folder: of its results.
        fresh: take nothing of what is there.
        retry_failed: take no member that could not be run.
        store: the MLflow store that has to have it all.
    """
    stored = read_results(folder)
    mark = source_digest(experiment)
    known = mark is not None and stored.manifest.get("stamp") == mark
    earlier = stored.manifest.get("inputs", {})
    inputs = dict(earlier) if known else fingerprints(experiment, earlier)
    keys = _keys(experiment, inputs)
    notes = [f"{name}: the file is damaged, its members are trained again" for name in stored.damaged]
    wanted = set(keys.values())
    done = {} if fresh else {record.key: record for record in stored.records if record.key in wanted}
    if retry_failed:
        done = {key: record for key, record in done.items() if record.status != "failed"}
    notes += _changes(stored, inputs, experiment)
    manifest = {
        **manifest_of(experiment, inputs),
        "stamp": mark,
        **{name: stored.manifest[name] for name in ("audit",) if name in stored.manifest and known},
    }
    logged = bool(stored.manifest.get("logged") == store_digest(keys.values(), store)) and not fresh
    stamps = {record.key: record.logged_at for record in stored.records}
    return ResumeState(experiment, folder, keys, done, manifest, notes, logged, stamps)


def known_stacks(experiment: Experiment, folder: Path, fresh: bool, shard: tuple[int, int]) -> int:
    """How many stacks are to be run whatever `load_state` finds: of a shipped case, on shipped data, without a result.

    A case file may be wrong, and what is there may be all there is: that is known only when the data are read.
    """
    if (not fresh and any(folder.glob("*.parquet"))) or source_digest(experiment) is None:
        return 0
    return len(stacks(experiment)[shard[0] - 1 :: shard[1]])


def missing_members(work: ResumeState, shard: tuple[int, int]) -> list["StackSpec"]:
    """What is left of each stack: stacks are padded, so that a member does not know who was done before it."""
    from harness.execution.spec import StackMember, StackSpec

    experiment, specs = work.experiment, []
    for index, plan in enumerate(stacks(experiment)):
        if index % shard[1] != shard[0] - 1:
            continue
        members = tuple(
            StackMember(work.keys[m.variant.name, m.seed], m.variant.name, dict(m.variant.levels), m.seed)
            for m in plan.members
            if work.keys[m.variant.name, m.seed] not in work.done
        )
        if not members:
            continue
        case = experiment.case_reference
        specs.append(StackSpec(case, experiment.data_reference, members, dict(experiment.train), experiment.seeds[0]))
    return specs


def _keys(experiment: Experiment, inputs: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    facts, train = case_facts(case_file(experiment.case, experiment.folder)), training_of(experiment)
    return {
        (member.variant.name, member.seed): member_key(
            member.variant.levels, member.seed, facts.numbers, train, inputs["data"], inputs["case"]
        )
        for member in experiment.members()
    }


def _changes(stored: Results, inputs: Mapping[str, Any], experiment: Experiment) -> list[str]:
    """What is no longer what the stored results were made with."""
    if not stored.manifest:
        return []
    before, notes = stored.manifest.get("inputs", {}), []
    if before.get("data") != inputs["data"]:
        notes.append("the data changed since the last run: members are trained again")
    if before.get("case") != inputs["case"]:
        notes.append("the case's file changed since the last run: members are trained again")
    if stored.manifest.get("format") != RESULTS_FORMAT:
        notes.append("the results are of another format: members are trained again")
    if stored.manifest.get("experiment") != experiment.resolved():
        notes.append("the experiment changed since the last run: members that both share are kept")
    return notes


def member_steps(work: ResumeState, specs: Sequence["StackSpec"]) -> int:
    """Optimizer steps of all members of these stacks together."""
    training = _training(work)
    return sum(training.steps(member.levels) for spec in specs for member in spec.members)


def steps_per_epoch(work: ResumeState) -> int:
    """Optimizer steps of one epoch of the baseline."""
    return _training(work).steps_per_epoch(work.experiment.baseline)


def _training(work: ResumeState) -> Training:
    return Training(training_of(work.experiment), int(work.manifest["inputs"]["train_rows"]))


def check_device(experiment: Experiment) -> None:
    """Look whether the device that the experiment names is here.

    Raises:
        HarnessError: where it is not.
    """
    name = training_of(experiment)["device"]
    if name not in ("auto", "cpu"):  # these need no torch to be known
        from harness.training import check_device as look

        look(name)


def clean_results(folders: Sequence[Path]) -> None:
    """Remove what killed processes left half written."""
    for folder in folders:
        remove_abandoned(folder)


def start_over(work: ResumeState, shard: tuple[int, int]) -> None:
    """Remove results: all that lie in the folder, or those of one shard alone."""
    if shard == WHOLE:
        for path in work.folder.glob("*.parquet"):
            path.unlink(missing_ok=True)
        return
    own = {member.key for spec in missing_members(work, shard) for member in spec.members}
    for path, keys in stored_keys(work.folder).items():
        if keys <= own:
            path.unlink(missing_ok=True)


def refreshed(work: ResumeState, store: str) -> ResumeState:
    """The work with what other processes have done of it since."""
    stored = read_results(work.folder)
    keys = set(work.keys.values())
    done = {**work.done, **{record.key: record for record in stored.records if record.key in keys}}
    logged = stored.manifest.get("logged") == store_digest(keys, store)
    shares_audit = work.manifest["stamp"] is not None and is_described(work, stored.manifest)
    audit = {"audit": stored.manifest["audit"]} if shares_audit and "audit" in stored.manifest else {}
    return replace(work, done=done, manifest={**work.manifest, **audit}, logged=logged)


def is_described(work: ResumeState, manifest: Mapping[str, Any]) -> bool:
    """Whether a stored manifest asks the same of the same case and data."""
    ours = json.loads(json.dumps(work.manifest, default=str))
    return all(manifest.get(name) == ours[name] for name in ("format", "experiment", "text", "inputs", "stamp"))


def without_result(work: ResumeState, keys: Set[str]) -> list[str]:
    """The keys, of these, that have no result on disk."""
    on_disk = {key for stored in stored_keys(work.folder).values() for key in stored}
    return [key for key in dict.fromkeys(work.keys.values()) if key in keys and key not in on_disk]


def store_digest(keys: Iterable[str], store: str) -> str:
    """What a store has when it has these members."""
    return hashlib.sha256(" ".join([store, *sorted(keys)]).encode()).hexdigest()[:16]
