"""Kept weights of members: one safetensors file per member beside the results, named after its key."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.results.files import write_atomic
from harness.results.records import MemberRecord

LARGEST_SHOWN = 32_000_000  # bytes of a model: a larger one is kept only if all are


def weights_file(folder: Path, key: str) -> Path:
    """Path of a member's weights in the results folder."""
    return folder / "weights" / f"{key}.safetensors"


def kept_weights(folder: Path) -> list[Path]:
    """Files of all kept weights in the results folder."""
    return sorted((folder / "weights").glob("*.safetensors"))


def extremes(members: Iterable[MemberRecord]) -> tuple[MemberRecord, MemberRecord] | None:
    """Return the worst and the best of the members whose training ended with finite numbers; None without one.

    A failed member is worse than a usable one. Among equals R2 decides, without R2 the final loss, then the seed.

    >>> worst, best = extremes([MemberRecord(str(seed), "v", {}, seed, verdict="healthy", r2=seed / 2) for seed in (0, 1)])
    >>> worst.seed, best.seed
    (0, 1)
    """
    ordered = sorted((member for member in members if member.status == "ok"), key=_quality)
    return (ordered[0], ordered[-1]) if ordered else None


def keep_weights(
    folder: Path,
    records: Sequence[MemberRecord],
    done: Iterable[MemberRecord],
    baseline: Mapping[str, object],
    keep: str,
) -> None:
    """Write the weights that came with these records, all of them or the shown ones.

    The shown member of the baseline is its worst one, the shown member of any other variant its best one. A file of a
    member that is no longer shown is removed.

    Args:
        folder: of the results.
        records: new records, with their weights.
        done: all records of the experiment so far, including the new ones.
        baseline: levels of the baseline.
        keep: "shown", "all" or "none".
    """
    if keep == "none":
        return
    if keep == "all":
        _write(folder, records)
        return
    variants: dict[object, list[MemberRecord]] = {_levels(record): [] for record in records if record.weights}
    for record in done:
        if (levels := _levels(record)) in variants:
            variants[levels].append(record)
    for members in variants.values():
        worst, best = extremes(members) or (members[0], members[0])
        chosen = worst if dict(worst.levels) == dict(baseline) else best
        _write(folder, [record for record in records if record.key == chosen.key])
        remove_weights(folder, {record.key for record in members if record.key != chosen.key})


def remove_weights(folder: Path, keys: Iterable[str]) -> None:
    """Remove the weights of these members."""
    for key in keys:
        weights_file(folder, key).unlink(missing_ok=True)


def _write(folder: Path, records: Iterable[MemberRecord]) -> None:
    for record in records:
        if record.weights:
            write_atomic(weights_file(folder, record.key), record.weights)


def _levels(record: MemberRecord) -> object:
    return frozenset(record.levels.items())


def _quality(record: MemberRecord) -> tuple[bool, bool, float, int]:
    fit = record.r2 if record.r2 is not None else -record.losses.get("total", 0.0)
    return not record.failed, not record.collapsed, fit, -record.seed
