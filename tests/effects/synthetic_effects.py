"""Records of an experiment whose outcomes are planted."""

from collections.abc import Callable, Mapping
from typing import Any

from harness.grid import Experiment
from harness.results.records import MemberRecord

Plant = Callable[[Mapping[str, Any], int], Mapping[str, Any] | None]


def planted(experiment: Experiment, plant: Plant) -> list[MemberRecord]:
    """A record for every member; `plant` gives its fields, or None for a member that was not run."""
    usual = {"verdict": "healthy", "units": 4, "live_units": 4, "r2": 0.5}
    found = []
    for member in experiment.members():
        told = plant(member.variant.levels, member.seed)
        if told is not None:
            fields = {**usual, **told}
            found.append(MemberRecord("key", member.variant.name, dict(member.variant.levels), member.seed, **fields))
    return found


def collapsed(which: bool) -> dict[str, Any]:
    return {"verdict": "full_collapse", "live_units": 0, "r2": 0.0} if which else {}
