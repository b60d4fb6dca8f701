"""Members in groups that fit on a page: by variant while there are few, else by the level of one factor."""

from collections.abc import Mapping, Sequence

from harness.report.palette import in_order, outcome_of
from harness.report.wording import plural
from harness.results.records import Level, MemberRecord

MOST_PANELS = 12
Groups = dict[str, list[MemberRecord]]


def panels(records: Sequence[MemberRecord], most: int = MOST_PANELS) -> Groups:
    """The groups of the small multiples: variants, or levels of the first factor whose levels fit."""
    by_variant = _by(records, [record.variant for record in records])
    if len(by_variant) <= most:
        return by_variant
    for factor in dict.fromkeys(name for record in records for name in record.levels):
        groups = _by(records, [f"{factor}: {record.levels.get(factor, 'not set')}" for record in records])
        if 1 < len(groups) <= most:
            return groups
    return {f"all {plural(len(by_variant), 'variant')}": list(records)}


def in_declared_order(records: Sequence[MemberRecord], factors: Mapping[str, Sequence[Level]]) -> list[MemberRecord]:
    """Members in the order in which the experiment names levels, then by seed; stored results come in any order.

    >>> members = [MemberRecord("k", level, {"penalty": level}, 0) for level in ("none", "l1")]
    >>> [record.variant for record in in_declared_order(members, {"penalty": ["l1", "none"]})]
    ['l1', 'none']
    """
    places = {name: {str(level): place for place, level in enumerate(levels)} for name, levels in factors.items()}

    def place(record: MemberRecord) -> tuple[list[int], int]:
        return [ranks.get(str(record.levels.get(name)), len(ranks)) for name, ranks in places.items()], record.seed

    return sorted(records, key=place)


def by_level(records: Sequence[MemberRecord]) -> dict[str, Groups]:
    """Factor -> level -> members."""
    factors = dict.fromkeys(name for record in records for name in record.levels)
    return {factor: _by(*_with(records, factor)) for factor in factors}


def variants(records: Sequence[MemberRecord]) -> Groups:
    """Variant -> members, in the order in which they come."""
    return _by(records, [record.variant for record in records])


def tally(records: Sequence[MemberRecord]) -> str:
    """How many members came to which verdict, the worst first.

    >>> tally([MemberRecord("k", "v", {}, 0, verdict="healthy")])
    '1 healthy'
    """
    outcomes = [outcome_of(record) for record in records]
    return ", ".join(f"{outcomes.count(each)} {each}" for each in in_order(outcomes)) or "no members"


def _with(records: Sequence[MemberRecord], factor: str) -> tuple[list[MemberRecord], list[str]]:
    chosen = [record for record in records if factor in record.levels]
    return chosen, [str(record.levels[factor]) for record in chosen]


def _by(records: Sequence[MemberRecord], names: Sequence[str]) -> Groups:
    found: Groups = {}
    for record, name in zip(records, names, strict=True):
        found.setdefault(name, []).append(record)
    return found
