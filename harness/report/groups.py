"""Groups of members that fit on a page: by variant where there are few, else by the levels of one factor."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from harness.grid.factorial import changes, matches
from harness.report.style import by_severity, shown_verdict
from harness.results.records import Level, MemberRecord
from harness.text import plural

MOST_PANELS = 12
LONGEST_TABLE = 24  # variants: beyond that a first table shows those that change one factor of the baseline
Groups = dict[str, list[MemberRecord]]


def panels(
    records: Sequence[MemberRecord], baseline: Mapping[str, Level] | None = None, most: int = MOST_PANELS
) -> Groups:
    """Groups of the small multiples: variants, or levels of the first factor with few enough levels.

    The baseline, or the baseline's level of the factor, is marked.

    >>> list(panels([MemberRecord("k", level, {"batchnorm": level}, 0) for level in ("off", "on")], {"batchnorm": "off"}))
    ['off (baseline)', 'on']
    """
    by_variant = _by(records, [record.variant for record in records])
    if len(by_variant) <= most:
        return {baseline_marked(name, members, baseline or {}): members for name, members in by_variant.items()}
    for factor in dict.fromkeys(name for record in records for name in record.levels):
        names = [_level(factor, record, baseline or {}) for record in records]
        groups = _by(records, names)
        if 1 < len(groups) <= most:
            return groups
    return {f"all {plural(len(by_variant), 'variant')}": list(records)}


def in_declared_order(records: Sequence[MemberRecord], manifest: Mapping[str, Any]) -> list[MemberRecord]:
    """Sort members by the declared order of levels, then included cells, then by seed; stored results have no order.

    >>> members = [MemberRecord("k", level, {"penalty": level}, 0) for level in ("none", "l1")]
    >>> [record.variant for record in in_declared_order(members, {"factors": {"penalty": ["l1", "none"]}})]
    ['l1', 'none']
    """
    factors = manifest.get("factors") or {}
    included = (manifest.get("experiment") or {}).get("include") or ()
    ranks_of = {name: {str(level): rank for rank, level in enumerate(levels)} for name, levels in factors.items()}

    def order(record: MemberRecord) -> tuple[int, list[int], int]:
        ranks = [levels.get(str(record.levels.get(name)), len(levels)) for name, levels in ranks_of.items()]
        declared = all(rank < len(ranks_of[name]) for name, rank in zip(ranks_of, ranks, strict=True))
        positions = (position for position, cell in enumerate(included) if set(cell) <= set(record.levels))
        of_cell = next(
            (position for position in positions if matches(record.levels, included[position])), len(included)
        )
        return -1 if declared else of_cell, ranks, record.seed

    return sorted(records, key=order)


def baseline_marked(variant: str, members: Sequence[MemberRecord], baseline: Mapping[str, Level]) -> str:
    """Name of a variant, marked if it is the baseline."""
    return variant if not baseline or changes(members[0].levels, baseline) else f"{variant} (baseline)"


def _level(factor: str, record: MemberRecord, baseline: Mapping[str, Level]) -> str:
    level = record.levels.get(factor, "not set")
    return f"{factor}: {level}{' (baseline)' if factor in baseline and level == baseline[factor] else ''}"


def by_level(records: Sequence[MemberRecord]) -> dict[str, Groups]:
    """Factor -> level -> members of matched variants; factors without matched levels are omitted."""
    factors = dict.fromkeys(name for record in records for name in record.levels)
    groups = {factor: _by(*_with(matched(records, factor), factor)) for factor in factors}
    return {factor: levels for factor, levels in groups.items() if levels}


def variants(records: Sequence[MemberRecord]) -> Groups:
    """Variant -> members, in order of appearance."""
    return _by(records, [record.variant for record in records])


def nearest_first(records: Sequence[MemberRecord], baseline: Mapping[str, Level]) -> Groups:
    """Variants sorted by the number of factors that they change of the baseline, which comes first.

    Beyond 24 variants only those that change one factor remain, or the first 24 where there are none.

    >>> members = [MemberRecord("k", level, {"batchnorm": level}, 0) for level in ("on", "off")]
    >>> list(nearest_first(members, {"batchnorm": "off"}))
    ['off', 'on']
    """
    groups = variants(records)
    distance = {name: len(changes(members[0].levels, baseline)) for name, members in groups.items()}
    order = sorted(groups, key=lambda name: distance[name])
    single = [name for name in order if distance[name] < 2]
    selected = single if len(order) > LONGEST_TABLE and len(single) > 1 else order
    return {name: groups[name] for name in islice(selected, LONGEST_TABLE)}


def matched(records: Sequence[MemberRecord], factor: str) -> list[MemberRecord]:
    """Members of the settings of all other factors that exist with every level of this factor.

    Totals of two levels compare the same networks only over matched settings: in an experiment that changes one thing
    at a time, the baseline level occurs with many settings and each other level with one.
    """
    levels = {record.levels[factor] for record in records if factor in record.levels}
    beside: dict[object, set[Level]] = {}
    for record in records:
        if factor in record.levels:
            beside.setdefault(_rest(record, factor), set()).add(record.levels[factor])
    return [record for record in records if beside.get(_rest(record, factor)) == levels]


def tally(records: Sequence[MemberRecord]) -> str:
    """Number of members per verdict, the worst first.

    >>> tally([MemberRecord("k", "v", {}, 0, verdict="healthy")])
    '1 healthy'
    """
    outcomes = [shown_verdict(record) for record in records]
    return ", ".join(f"{outcomes.count(verdict)} {verdict}" for verdict in by_severity(outcomes)) or "no members"


def _rest(record: MemberRecord, factor: str) -> object:
    return frozenset((name, level) for name, level in record.levels.items() if name != factor)


def _with(records: Sequence[MemberRecord], factor: str) -> tuple[list[MemberRecord], list[str]]:
    chosen = [record for record in records if factor in record.levels]
    return chosen, [str(record.levels[factor]) for record in chosen]


def _by(records: Sequence[MemberRecord], names: Sequence[str]) -> Groups:
    groups: Groups = {}
    for record, name in zip(records, names, strict=True):
        groups.setdefault(name, []).append(record)
    return groups
