"""Members of stored results, selected by the experiment that declares them."""

from collections.abc import Mapping
from typing import Protocol

from harness.errors import HarnessError
from harness.grid import Experiment
from harness.results.records import Level, MemberRecord


class StoredExperiment(Protocol):
    """Contents of a results folder."""

    @property
    def manifest(self) -> Mapping[str, object]: ...
    @property
    def records(self) -> list[MemberRecord]: ...


def stored_experiment(results: StoredExperiment) -> Experiment:
    """The experiment that the results belong to.

    Raises:
        HarnessError: when the manifest does not contain it.
    """
    described = results.manifest.get("experiment")
    if not isinstance(described, Mapping):
        raise HarnessError(
            "results: expected an experiment in the manifest, got none; `harness run FILE.yaml` writes one"
        )
    try:
        return Experiment(**dict(described))
    except (HarnessError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise HarnessError(
            "results: expected an experiment in the manifest, got something else; `harness run FILE.yaml` writes it again"
        ) from error


def stored_members(results: StoredExperiment) -> list[MemberRecord]:
    """Latest record of each variant, seed and split that the experiment declares; other stored records are ignored."""
    experiment = stored_experiment(results)
    requested = {(_name(member.variant.levels), (member.split, member.seed)) for member in experiment.members()}
    latest: dict[tuple[object, tuple[int, int]], MemberRecord] = {}
    for record in results.records:
        position = (_name(record.levels), record.block)
        if position in requested and (position not in latest or latest[position].logged_at <= record.logged_at):
            latest[position] = record
    return list(latest.values())


def _name(levels: Mapping[str, Level]) -> object:
    return frozenset(levels.items())
