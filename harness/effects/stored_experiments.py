"""The members of stored results, as the experiment that made them declares them."""

from collections.abc import Mapping
from typing import Protocol

from harness.errors import HarnessError
from harness.grid import Experiment
from harness.results.records import Level, MemberRecord


class StoredExperiment(Protocol):
    """What lies in a results folder."""

    @property
    def manifest(self) -> Mapping[str, object]: ...
    @property
    def records(self) -> list[MemberRecord]: ...


def stored_experiment(results: StoredExperiment) -> Experiment:
    """The experiment that the results belong to.

    Raises:
        HarnessError: when they do not say.
    """
    described = results.manifest.get("experiment")
    if not isinstance(described, Mapping):
        raise HarnessError("results: the manifest names no experiment; `harness run FILE.yaml` writes one")
    return Experiment(**dict(described))


def stored_members(results: StoredExperiment) -> list[MemberRecord]:
    """The records that the experiment asks for, the latest of each variant and seed; older questions' are left out."""
    experiment = stored_experiment(results)
    wanted = {(_name(member.variant.levels), member.seed) for member in experiment.members()}
    latest: dict[tuple[object, int], MemberRecord] = {}
    for record in results.records:
        place = (_name(record.levels), record.seed)
        if place in wanted and (place not in latest or latest[place].logged_at <= record.logged_at):
            latest[place] = record
    return list(latest.values())


def _name(levels: Mapping[str, Level]) -> object:
    return frozenset(levels.items())
