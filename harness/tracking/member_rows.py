"""Tags, parameters and metric rows of a member's MLflow run."""

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from harness.planning.cost import SHOWN_SNAPSHOTS, SHOWN_UNITS
from harness.results import MemberRecord
from harness.results.snapshot_schedule import log_spaced
from harness.tracking.views import KIND_TAG

ROWS_PER_MEMBER = 200
KEY_TAG = "harness.key"
ORIGIN_TAG = "harness.origin"
DIGEST_TAG = "harness.summary"
LOG_SCALED = ("rho", "beta", "learning_rate")
MOST_METRICS, MOST_PARAMETERS, LONGEST = 1000, 100, 5000  # MLflow's limits: per request, and in characters
Metric = tuple[str, float, int, int]


def member_tags(record: MemberRecord) -> dict[str, str]:
    """Return the tags by which runs are grouped and filtered."""
    factors = {name: str(level) for name, level in record.levels.items()}
    infinite = [name for name, value in record.losses.items() if not math.isfinite(value)]
    return {
        **factors,
        KEY_TAG: record.key,
        KIND_TAG: "member",
        "variant": record.variant,
        "seed": str(record.seed),
        **({"split": str(record.split)} if record.split else {}),
        "verdict": record.reported_verdict or record.status,
        "status": record.status,
        "flags": " ".join(record.flags),
        **({"not_finite": " ".join(infinite)} if infinite else {}),
        **({"error": record.error} if record.error else {}),
        **({"alone": record.alone} if record.alone else {}),
        **({"gpu": record.gpu} if record.gpu else {}),
        **({"diverged_step": str(record.diverged_step)} if record.diverged_step is not None else {}),
    }


def member_parameters(record: MemberRecord, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all parameters of a member: its levels and seed, logarithms of log-spaced numbers, then the defaults.

    Args:
        record: of the member.
        defaults: numbers of the case and training numbers, which hold for every member whose levels do not change them.
    """
    logs = {
        f"log10_{name}": round(math.log10(value), 6)
        for name, value in record.levels.items()
        if name in LOG_SCALED and isinstance(value, int | float) and value > 0
    }
    own = {**record.levels, **logs, "seed": record.seed}
    return {**own, **{name: value for name, value in (defaults or {}).items() if name not in own}}


def member_metrics(record: MemberRecord) -> list[Metric]:
    """Return (key, value, timestamp, step): curves at log-spaced snapshots; values per reference only at the last one."""
    series = dict(_series(record))
    steps = [int(step) for step in record.history.get("step", ())]
    final = [("time/seconds", record.seconds, record.logged_at, steps[-1] if steps else 0)]
    final += [
        (f"loss_held_out/{name}", value, record.logged_at, steps[-1]) for name, value in record.losses.items() if steps
    ]
    outcomes = {"collapse/failed": record.failed, "collapse/collapsed": record.collapsed}
    final += [
        (name, float(outcome), record.logged_at, steps[-1] if steps else 0)
        for name, outcome in outcomes.items()
        if outcome is not None
    ]
    room = max(
        2, min(SHOWN_SNAPSHOTS, (ROWS_PER_MEMBER - len(final)) // max(1, sum(name.count("/") == 1 for name in series)))
    )
    snapshots = sorted(log_spaced(range(len(steps)), room))
    rows = [
        (name, float(values[index]), record.logged_at + index, steps[index])
        for name, values in series.items()
        for index in (snapshots if name.count("/") == 1 else snapshots[-1:])
        if name.startswith("loss/") or not math.isnan(values[index])
    ]
    return rows + final


def stored_metrics(record: MemberRecord) -> list[Metric]:
    """Return `member_metrics` with keys and values that MLflow stores unchanged."""
    return [
        # MLflow stores an infinity as 1.8e308, which ruins the axes of its charts
        (metric_key(name), value if math.isfinite(value) else math.nan, timestamp, step)
        for name, value, timestamp, step in member_metrics(record)
    ][:MOST_METRICS]


def stored_parameters(record: MemberRecord, defaults: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """Return `member_parameters` as MLflow stores them."""
    return as_stored(member_parameters(record, defaults))


def as_stored(parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return parameters with names and values that MLflow stores unchanged."""
    return [(metric_key(name), str(value)[:LONGEST]) for name, value in parameters.items()][:MOST_PARAMETERS]


def stored_tags(record: MemberRecord, parent: str, origin: str) -> dict[str, str]:
    """Return `member_tags` as MLflow stores them, with the run's origin and the id of its parent."""
    tags = {**member_tags(record), ORIGIN_TAG: origin, "mlflow.parentRunId": parent}
    return {name: value[:LONGEST] for name, value in tags.items()}


def run_name(record: MemberRecord) -> str:
    """Name a run by variant, then seed: MLflow's lists cut names at the end."""
    return record.name


def starting(record: MemberRecord) -> int:
    """Return the start time of a member's run: its end, less the member's share of its stack's training time."""
    return record.logged_at - round(1000 * record.seconds)


def ending(record: MemberRecord) -> tuple[str, int]:
    """Return the status of a member's finished run, and its end time."""
    return "FAILED" if record.status == "failed" else "FINISHED", record.logged_at


def _series(record: MemberRecord) -> Iterator[tuple[str, list[float]]]:
    for name in record.history:
        if name.startswith("loss/"):
            yield name, record.history[name]
    for name, key in HISTORY_KEYS.items():
        if name in record.history:
            yield key, record.history[name]
    units = min(SHOWN_UNITS, record.units)
    for measure in record.unit_history:
        if measure.partition("/")[0] in UNIT_MEASURES:
            snapshots = record.unit_history[measure]
            for unit in range(units):
                yield f"{measure}/u{unit}", [row[unit] for row in snapshots]


@lru_cache(maxsize=4096)  # all members have the same names
def metric_key(name: str) -> str:
    """Replace characters that MLflow does not allow in a key.

    >>> metric_key("loss/kl+l1")
    'loss/kl-l1'
    """
    return "".join(character if character.isalnum() or character in "_-. /:" else "-" for character in name)[:250]


HISTORY_KEYS = {"live_units": "collapse/live_units", "effective_rank": "collapse/effective_rank", "r2": "health/r2"}
UNIT_MEASURES = ("activation_frequency", "mutual_information", "entropy_bits")
