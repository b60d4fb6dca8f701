"""Inventory of an experiment's runs in a store: this folder's own runs, and members finished by other folders."""

from collections.abc import Iterable
from dataclasses import dataclass

EARLIER = " (earlier)"
ENDED = ("FINISHED", "FAILED")  # the second is a member that could not be run


@dataclass(frozen=True)
class StoredRun:
    """A run in the store.

    Args:
        run: its id.
        key: of the member, or of the experiment's parent run.
        origin: of the run; empty for runs of other programs and of earlier versions.
        status: in MLflow's terms.
        start: the stored start time.
        filled: whether it has parameters and metrics.
        digest: of a summary run: a hash of what it shows.
        kind: "member", "summary" or "experiment"; with `EARLIER` appended if the experiment no longer declares it; empty
            for a run that was logged since the store was queried.
    """

    run: str
    key: str
    origin: str
    status: str
    start: int
    filled: bool
    digest: str = ""
    kind: str = ""

    @property
    def current_kind(self) -> str:
        """Kind of the run while the experiment declares it."""
        return self.kind.removesuffix(EARLIER)

    @property
    def whole(self) -> bool:
        """True if the run was logged completely."""
        return self.status in ENDED and self.filled


class Inventory:
    """Runs by key, from the view of one origin.

    Args:
        origin: its runs are `own`, all others `elsewhere`.
        runs: in the store.

    >>> ours = StoredRun("1", "k0", "me", "FINISHED", 0, True)
    >>> theirs = StoredRun("2", "k1", "", "FINISHED", 0, True)
    >>> inventory = Inventory("me", [ours, theirs])
    >>> list(inventory.own), inventory.elsewhere, inventory.has("k1")
    (['k0'], {'k1'}, True)
    """

    def __init__(self, origin: str, runs: Iterable[StoredRun]) -> None:
        self.origin = origin
        self.own: dict[str, StoredRun] = {}
        self.elsewhere: set[str] = set()  # equal keys are equal results, no matter who logged them
        self.doubled: list[StoredRun] = []
        for run in runs:
            self.add(run)

    def add(self, run: StoredRun) -> None:
        """Add a run; of two own runs with the same key, the more complete one stays."""
        if run.origin != self.origin:
            if run.status == "FINISHED":
                self.elsewhere.add(run.key)
            return
        pair = [self.own[run.key], run] if run.key in self.own else [run]
        *less, most = sorted(pair, key=lambda run: (run.whole, run.status in ENDED))
        self.doubled += less
        self.own[run.key] = most

    def has(self, key: str) -> bool:
        """Return True if the member is logged completely; an own run takes precedence over others."""
        return self.own[key].whole if key in self.own else key in self.elsewhere
