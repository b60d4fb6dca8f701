"""Views of an experiment in MLflow's page, in the format in which that page stores shared views.

A link with the view's key (`viewStateShareKey`) opens it; the page reads it from a tag of the experiment.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from harness.results.records import MemberRecord

KIND_TAG = "harness.kind"
RANK_TAG = "harness.rank"
VIEW_TAG = "mlflow.sharedViewState"
LONGEST_TAG = 5000  # characters
LOADED = 100  # runs that the page shows at a time


def views(records: Sequence[MemberRecord]) -> dict[str, str]:
    """Return view -> the page's state as JSON, in the order in which they should be opened.

    `variants`: one summary run per variant, the baseline first; no member is loaded.
    `members`: members grouped by variant; a line is the mean over seeds, with a band from the minimum to the maximum.
    `factors`: one line per member through its factors, its live units and its R2 (parallel coordinates).
    """
    members = {**MEMBERS, "orderByKey": _order(records)}
    return {
        "variants": json.dumps(_summaries()),
        "members": _grouped(records, {**members, **_sections(MEMBER_SECTIONS, [])}),
        "factors": json.dumps({**members, **_parallel(records)}),
    }


def _summaries() -> dict[str, Any]:
    """State of the view of summary runs: bars of the outcomes. The bounds of their intervals are metrics without a chart."""
    charts = [_bar(metric) for metric in OUTCOMES] + [
        {**_bar(f"{metric}_{bound}"), "deleted": True} for metric in OUTCOMES for bound in ("low", "high")
    ]
    columns = [f"metrics.`{metric}`" for metric in OUTCOMES]
    return {
        "searchFilter": f"tags.`{KIND_TAG}` = 'summary'",
        "orderByKey": f"tags.`{RANK_TAG}`",
        "orderByAsc": True,
        "selectedColumns": ["tags.`remedy`", "tags.`seeds`", *columns],
        "runsHiddenMode": "SHOWALL",
        **_sections(("collapse", "health"), charts),
    }


def _sections(names: Sequence[str], charts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sections of charts in this order, and none of single units, whose numbers mean nothing across seeds."""
    displayed = [{"uuid": name, "name": name, "display": True, "isReordered": True} for name in names]
    # a deleted section stays deleted; a missing one would be added by the page
    removed = [{"uuid": name, "name": name, "display": False, "deleted": True} for name in UNIT_SECTIONS]
    return {
        "compareRunCharts": list(charts),
        "compareRunSections": [*displayed, *removed],
        "isAccordionReordered": True,
    }


def _bar(metric: str) -> dict[str, Any]:
    section, _, name = metric.partition("/")
    return {
        "type": "BAR",
        "uuid": metric,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": LOADED,
        "metricKey": metric,
        "displayName": name,
    }


def shared_views(tags: Iterable[str]) -> list[str]:
    """Return the names of the views in an experiment's tags.

    >>> shared_views(["mlflow.sharedViewState.factors", "mine", "mlflow.sharedViewState.variants"])
    ['variants', 'factors']
    """
    names = sorted((tag for tag in tags if tag.startswith(f"{VIEW_TAG}.")), reverse=True)
    return [name.rpartition(".")[2] for name in names]


def _order(records: Sequence[MemberRecord]) -> str:
    """Order by seed, so that the runs that the page loads first are some seeds of every variant.

    Order by name if there are too many variants for that. Ordered by time, the page would fold members into their parent.
    """
    variants = {record.variant for record in records}
    return "tags.`seed`" if len(variants) <= LOADED // 2 else "tags.`mlflow.runName`"


def _grouped(records: Sequence[MemberRecord], members: dict[str, Any]) -> str:
    """Fold every group, as far as the length of a tag allows."""
    grouping = {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": "variant"}]}
    folded: dict[str, bool] = {}
    state = json.dumps({**members, "groupBy": grouping, "groupsExpanded": folded})
    for variant in dict.fromkeys(record.variant for record in records):
        folded[f"tag.variant.{variant}"] = False
        longer = json.dumps({**members, "groupBy": grouping, "groupsExpanded": folded})
        if len(longer) > LONGEST_TAG:
            break
        state = longer
    return state


def _parallel(records: Sequence[MemberRecord]) -> dict[str, Any]:
    chart = {
        "type": "PARALLEL",
        "uuid": "factors",
        "metricSectionId": "factors",
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": LOADED,
        "showAllRuns": True,
        "selectedParams": _varied(records),
        "selectedMetrics": ["collapse/live_units", "health/r2"],
    }
    state = _sections(MEMBER_SECTIONS, [chart])
    section = {"uuid": "factors", "name": "Factors and outcomes", "display": True, "isReordered": True}
    return {**state, "compareRunSections": [section, *state["compareRunSections"]]}


def _varied(records: Sequence[MemberRecord]) -> list[str]:
    """Return the factors with several levels."""
    levels_by_factor: dict[str, set[object]] = {}
    for record in records:
        for name, level in record.levels.items():
            levels_by_factor.setdefault(name, set()).add(level)
    return [name for name, levels in levels_by_factor.items() if len(levels) > 1]


OUTCOMES = ("collapse/failed", "collapse/collapsed", "collapse/live_units", "health/r2")
MEMBER_SECTIONS = ("collapse", "health", "loss", "loss_held_out", "time")
UNIT_SECTIONS = ("activation_frequency", "mutual_information", "entropy_bits")
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the page shows runs first, not traces
MEMBERS: dict[str, Any] = {
    "searchFilter": f"tags.`{KIND_TAG}` = 'member'",
    "orderByAsc": True,
    "selectedColumns": [
        *("metrics.`collapse/failed`", "metrics.`collapse/live_units`", "metrics.`health/r2`", "tags.`verdict`"),
    ],
    "runsHiddenMode": "FIRST_20_RUNS",
}
