"""Merging of results that several folders hold, as shards on machines without a shared disk leave them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.experiment.locks import publishing, running
from harness.results import read_manifest, read_records, write_atomic, write_manifest
from harness.results.store import MANIFEST, sound_files

WEIGHTS = "weights"  # folder of the members whose weights are kept


@dataclass(frozen=True)
class Merged:
    """Outcome of merging an experiment.

    Args:
        name: of the experiment.
        members: number of members that the results now hold.
        added: number of members that were not there before.
        notes: messages for the user.
    """

    name: str
    members: int
    added: int
    notes: tuple[str, ...] = ()


def merge(folders: Sequence[str | Path], root: Path | None = None) -> list[Merged]:
    """Copy the results of other folders into this one; `harness sync` or `harness run` then writes report and store.

    Args:
        folders: each contains `mlruns/`, or is the `mlruns/` or a results folder itself.
        root: folder that contains `mlruns/`; None means the current one.

    Raises:
        HarnessError: if a folder has no results, or an experiment is running here.
    """
    target = (root or Path.cwd()) / "mlruns" / "results"
    sources: dict[str, list[Path]] = {}
    for folder in folders:
        for source in _results_in(Path(folder)):
            sources.setdefault(source.name, []).append(source)
    return [_merged(target / name, parts) for name, parts in sources.items()]


def _results_in(folder: Path) -> Iterator[Path]:
    """Yield the results folders of a folder.

    Raises:
        HarnessError: if there are none.
    """
    for candidate in (folder / "mlruns" / "results", folder / "results"):
        experiments = sorted(path for path in candidate.glob("*") if path.is_dir())
        if experiments:
            yield from experiments
            return
    if not any(folder.glob("*.parquet")) and not (folder / MANIFEST).is_file():
        raise HarnessError(f"{folder}: expected a folder with mlruns/results, or a results folder, got neither")
    yield folder.resolve()


def _merged(target: Path, sources: Sequence[Path]) -> Merged:
    notes: list[str] = []
    with running(target), publishing(target):
        before = {record.key for record in read_records(target)[0]}
        for source in sources:
            if source.resolve() == target.resolve():
                raise HarnessError(f"{source}: expected other folders, got the one that they are merged into")
            notes += _copied(source, target)
        members = {record.key for record in read_records(target)[0]}
    name = str(read_manifest(target).get("name", target.name))
    return Merged(name, len(members), len(members - before), tuple(notes))


def _copied(source: Path, target: Path) -> list[str]:
    """Copy whole files that are not there yet; return notes on the others."""
    files, damaged = sound_files(source)
    notes = [f"{source / name}: the file is damaged and left out" for name in damaged]
    for name, content in files:
        if not (target / name).is_file():
            write_atomic(target / name, content)
    for weights in sorted((source / WEIGHTS).glob("*.safetensors")):
        if not (target / WEIGHTS / weights.name).is_file():
            write_atomic(target / WEIGHTS / weights.name, weights.read_bytes())
    theirs, ours = read_manifest(source), read_manifest(target)
    if not ours and theirs:  # without what holds only there: its report and its store
        write_manifest(target, {name: value for name, value in theirs.items() if name not in ("logged", "files")})
    elif theirs and any(theirs.get(entry) != ours.get(entry) for entry in ("format", "experiment", "inputs")):
        notes.append(f"{source}: its experiment, case or data differ: members with other inputs are not counted")
    return notes
