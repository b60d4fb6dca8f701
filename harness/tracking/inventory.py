"""What a store has of an experiment: this folder's own runs, and the members that others have finished."""

from collections.abc import Iterable
from dataclasses import dataclass

ENDED = ("FINISHED", "FAILED")  # the second is a member that could not be run


@dataclass(frozen=True)
class StoredRun:
    """A run that the store has.

    Args:
        run: its id.
        key: of the member, or of the experiment's parent run.
        origin: of the run; empty where it has none, as those of other programs and earlier versions.
        status: as MLflow calls it.
        start: the stored time it began with.
        filled: whether it has parameters and metrics.
    """

    run: str
    key: str
    origin: str
    status: str
    start: int
    filled: bool

    @property
    def whole(self) -> bool:
        """Whether everything of it was logged."""
        return self.status in ENDED and self.filled


class Inventory:
    """Runs by key, as one origin sees them.

    Args:
        origin: whose own runs are told from those of others.
        runs: that the store has.

    >>> ours = StoredRun("1", "k0", "me", "FINISHED", 0, True)
    >>> theirs = StoredRun("2", "k1", "", "FINISHED", 0, True)
    >>> found = Inventory("me", [ours, theirs])
    >>> list(found.own), found.elsewhere, found.has("k1")
    (['k0'], {'k1'}, True)
    """

    def __init__(self, origin: str, runs: Iterable[StoredRun]) -> None:
        self.origin = origin
        self.own: dict[str, StoredRun] = {}
        self.elsewhere: set[str] = set()  # equal keys are equal results, whoever logged them
        self.doubled: list[StoredRun] = []
        for run in runs:
            self.add(run)

    def add(self, run: StoredRun) -> None:
        """Take note of a run; of two own ones with one key, the more complete one stays."""
        if run.origin != self.origin:
            if run.status == "FINISHED":
                self.elsewhere.add(run.key)
            return
        pair = [self.own[run.key], run] if run.key in self.own else [run]
        *less, most = sorted(pair, key=lambda each: (each.whole, each.status in ENDED))
        self.doubled += less
        self.own[run.key] = most

    def has(self, key: str) -> bool:
        """Whether a member is there, wholly logged; an own run counts before those of others."""
        return self.own[key].whole if key in self.own else key in self.elsewhere
