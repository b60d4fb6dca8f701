"""Specification of a stack for a worker: plain values, read and written without torch."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Union

from harness.errors import HarnessError, well_formed
from harness.results.records import Level, MemberRecord
from harness.user_code import CaseExit, description

if TYPE_CHECKING:
    from harness.case import Case


@dataclass(frozen=True)
class StackMember:
    """A member of a stack, in plain values only."""

    key: str
    variant: str
    levels: Mapping[str, Level]
    seed: int
    split: int = 0


@dataclass(frozen=True)
class StackSpec:
    """Specification of a stack.

    Args:
        case: a shipped name or the path of a case file; a Case only within this process.
        data: a data set or file in place of the case's own rows, or None.
        members: its members, all on the same split of the rows.
        train: training numbers of the experiment; a member's levels override them.
        first_seed: the seed whose reconstructions are stored as examples.
        keep_weights: "all", "shown" or "none": the members whose weights come with their records.
    """

    case: Union[str, "Case"]
    data: str | None
    members: tuple[StackMember, ...]
    train: Mapping[str, Any] = field(default_factory=dict)
    first_seed: int = 0
    keep_weights: str = "none"

    @property
    def split(self) -> int:
        """Number of the split of the rows."""
        return self.members[0].split if self.members else 0


def spec_line(spec: StackSpec) -> str:
    """Return a stack as one line of JSON."""
    return json.dumps({**asdict(spec), "members": [asdict(member) for member in spec.members]}) + "\n"


def spec_of(line: str) -> StackSpec:
    """Read the stack of a line.

    >>> spec_of(spec_line(StackSpec("forum", None, ()))).case
    'forum'
    """
    content = json.loads(line)
    return StackSpec(**{**content, "members": tuple(StackMember(**member) for member in content["members"])})


def failed_record(member: StackMember, error: str) -> MemberRecord:
    """Return the record of a member that could not be run, with the reason."""
    return MemberRecord(
        key=member.key,
        variant=member.variant,
        levels=dict(member.levels),
        seed=member.seed,
        split=member.split,
        status="failed",
        error=error,
        logged_at=int(time.time() * 1000),
    )


def failed(member: StackMember, error: Exception) -> MemberRecord:
    """Return the record of a member whose remedies, model or loss raised this error."""
    sentence = str(error) if isinstance(error, HarnessError) else description(error)
    sentence = f"the case's code ended with {error}" if isinstance(error, CaseExit) else sentence
    return failed_record(member, well_formed(sentence[:1000]))
