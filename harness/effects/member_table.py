"""Members as arrays `[variant, seed]`: NaN where a member has no number, with a category that gives the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.effects.outcomes import OUTCOMES, category, outcome_value
from harness.results.records import Level, MemberRecord

Array = NDArray[np.float64]
NOT_RUN = "not run"


@dataclass(frozen=True)
class MemberTable:
    """All members of an experiment by variant and seed.

    Args:
        variants: names. levels: of each variant.
        blocks: pairs (split, seed), in ascending order; without several splits of the rows, the seeds.
        values: outcome -> `[variant, seed]`, NaN where the member has no number.
        categories: `[variant, seed]`: collapsed, not collapsed, diverged, failed, invalid, not_testable, not run.
        records: (variant index, seed index) -> member.
    """

    variants: tuple[str, ...]
    levels: tuple[Mapping[str, Level], ...]
    blocks: tuple[tuple[int, int], ...]
    values: Mapping[str, Array]
    categories: NDArray[np.str_]
    records: Mapping[tuple[int, int], MemberRecord]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of each block."""
        return tuple(seed for _, seed in self.blocks)

    @property
    def refused(self) -> NDArray[np.bool_]:
        """`[variant]`: True where every member that ran failed, so the levels cannot be applied to this case."""
        tried = self.categories != NOT_RUN
        return tried.any(axis=1) & ((self.categories == "failed") | ~tried).all(axis=1)


def member_table(records: Sequence[MemberRecord], seeds: Sequence[int] = (), splits: int = 1) -> MemberTable:
    """Arrange members by variant (in order of appearance) and block (ascending; `seeds` and `splits` add the planned ones)."""
    names = tuple(dict.fromkeys(record.variant for record in records))
    planned = {(split, seed) for split in range(splits) for seed in seeds}
    blocks = tuple(sorted(planned | {record.block for record in records}))
    row = {name: index for index, name in enumerate(names)}
    column = {block: index for index, block in enumerate(blocks)}
    at = {(row[record.variant], column[record.block]): record for record in records}
    levels = {record.variant: record.levels for record in records}
    values = {name: np.full((len(names), len(blocks)), np.nan) for name in OUTCOMES}
    categories = np.full((len(names), len(blocks)), NOT_RUN, dtype="<U16")
    for position, record in at.items():
        categories[position] = category(record)
        for name, outcome in OUTCOMES.items():
            values[name][position] = outcome_value(outcome, record)
    return MemberTable(names, tuple(levels[name] for name in names), blocks, values, categories, at)
