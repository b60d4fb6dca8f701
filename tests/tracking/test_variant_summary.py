"""One summary run per variant: its numbers are those of scipy and statsmodels, and it keeps its id when they change."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint
from stored_members import record, rows

from harness.tracking import RunContext, Tracker, store_uri
from harness.tracking.variant_summary import variant_summaries

LATER = 1_700_000_009_000
BASELINE = {"penalty": "none", "beta": 0.001}
VERDICTS = ["healthy", "full_collapse", "healthy", "single_live_unit", "healthy"]
R2 = [0.5, 0.0, 0.7, 0.1, -0.2]
MEMBERS = [
    record(seed, verdict=verdict, live_units=seed, r2=r2, flags=["mean_output"] if r2 < 0 else [])
    for seed, (verdict, r2) in enumerate(zip(VERDICTS, R2, strict=True))
]


def project(tracker, records):
    return tracker.project("trial", records, note="", baseline=BASELINE)


def summary_runs(tracker, experiment):
    return tracker.client.search_runs([experiment], "tags.`harness.kind` = 'summary'")


@pytest.fixture(params=["bulk", "client"])
def tracker(request, root):
    tracker = Tracker(store_uri(None, root), root)
    if request.param == "client":
        tracker._file = None
    return tracker


def test_a_summary_has_the_shares_and_means_of_its_variant_with_intervals(tracker):
    (run,) = summary_runs(tracker, project(tracker, MEMBERS))
    metrics = run.data.metrics
    for name, count in (("collapse/collapsed", 2), ("collapse/failed", 3)):
        assert metrics[name] == pytest.approx(count / 5)
        assert (metrics[f"{name}_low"], metrics[f"{name}_high"]) == pytest.approx(
            proportion_confint(count, 5, method="wilson")
        )
    for name, values in (("collapse/live_units", [0, 1, 2, 3, 4]), ("health/r2", R2)):
        interval = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
        assert metrics[name] == pytest.approx(np.mean(values))
        assert (metrics[f"{name}_low"], metrics[f"{name}_high"]) == pytest.approx(interval)
    assert (run.info.run_name, run.info.status) == ("as_posted bn=on", "FINISHED")
    tags = {name: run.data.tags[name] for name in ("variant", "remedy", "seeds", "members", "penalty")}
    expected = {"variant": "as_posted bn=on", "remedy": "penalty: as_posted", "seeds": "0-4", "members": "5"}
    assert tags == {**expected, "penalty": "as_posted"}


def test_a_summary_that_is_up_to_date_stays_and_one_that_is_not_is_updated_in_place(tracker, root):
    experiment = project(tracker, MEMBERS)
    (first,) = summary_runs(tracker, experiment)
    count = "SELECT count(*) FROM metrics"
    before = rows(root, count)
    project(tracker, MEMBERS)
    assert rows(root, count) == before
    healed = [record(seed, verdict="healthy", logged_at=LATER) for seed in range(5)]
    project(tracker, healed)
    (run,) = summary_runs(tracker, experiment)
    assert run.info.run_id == first.info.run_id
    assert run.data.metrics["collapse/collapsed"] == run.data.metrics["collapse/failed"] == 0.0
    fewer = healed[:2]
    project(tracker, fewer)
    (run,) = summary_runs(tracker, experiment)
    assert (run.info.run_id, run.data.tags["seeds"]) == (first.info.run_id, "0-1")


def test_every_variant_has_a_summary_below_the_parent(tracker):
    other = [record(seed + 5, seed=seed, variant="none", levels=BASELINE) for seed in range(2)]
    experiment = project(tracker, [*MEMBERS, *other])
    runs = summary_runs(tracker, experiment)
    assert {run.data.tags["remedy"] for run in runs} == {"penalty: as_posted", "none: the baseline"}
    (parent,) = {run.data.tags["mlflow.parentRunId"] for run in runs}
    assert tracker.client.get_run(parent).data.tags["harness.kind"] == "experiment"


def test_a_summary_that_was_cut_off_is_completed(tracker):
    experiment = tracker.begin("trial")
    tags = {"harness.key": "summary:trial:as_posted bn=on", "harness.origin": tracker.origin, "harness.kind": "summary"}
    half = tracker.client.create_run(experiment, start_time=1, tags=tags)
    project(tracker, MEMBERS)
    (run,) = summary_runs(tracker, experiment)
    assert (run.info.run_id, run.info.status) == (half.info.run_id, "FINISHED")
    assert run.data.metrics["collapse/collapsed"] == pytest.approx(2 / 5)


def test_a_summary_with_other_parameters_replaces_the_run_whose_parameters_mlflow_keeps(root):
    uri = store_uri(None, root)
    for epochs in (20, 30):
        tracker = Tracker(uri, root, RunContext({"epochs": epochs}))
        (run,) = summary_runs(tracker, project(tracker, MEMBERS))
        assert run.data.params == {"epochs": str(epochs), "penalty": "as_posted", "beta": "0.001", "log10_beta": "-3.0"}


def test_the_baseline_comes_first_then_the_least_failed_share():
    healthy = [record(seed + 5, seed=seed, variant="cured", levels={"penalty": "l1"}) for seed in range(2)]
    posted = [record(seed + 9, seed=seed, variant="none", levels=BASELINE, verdict="full_collapse") for seed in (0, 1)]
    summaries = variant_summaries("trial", [*MEMBERS, *posted, *healthy], BASELINE)
    assert [summary.variant for summary in summaries] == ["none", "cured", "as_posted bn=on"]
    starts = [summary.start for summary in summaries]
    assert starts == sorted(starts, reverse=True)
    assert min(starts) > max(member.logged_at for member in MEMBERS)


def test_members_without_a_verdict_count_in_no_share():
    failed = record(5, status="failed", error="no place", verdict="", live_units=0, r2=None)
    diverged = record(6, status="diverged", verdict="invalid", live_units=0, r2=None)
    (summary,) = variant_summaries("trial", [*MEMBERS, failed, diverged])
    assert summary.metrics["collapse/collapsed"] == pytest.approx(2 / 5)
    assert summary.metrics["collapse/failed"] == pytest.approx(4 / 6)
    assert summary.metrics["collapse/live_units"] == 2.0
    assert summary.tags["seeds"] == "0-6"
    (empty,) = variant_summaries("trial", [failed])
    assert empty.metrics == {}


def test_a_single_seed_has_no_interval_of_a_mean():
    (summary,) = variant_summaries("trial", MEMBERS[:1])
    assert "health/r2_low" not in summary.metrics
    assert summary.metrics["health/r2"] == 0.5


def test_members_have_their_outcome_as_metrics_and_everything_used_as_parameters(root):
    defaults = {"case": "forum", "epochs": 30, "beta": 7.0}
    tracker = Tracker(store_uri(None, root), root, RunContext(defaults))
    experiment = project(tracker, MEMBERS)
    runs = tracker.client.search_runs([experiment], "tags.`harness.kind` = 'member'")
    outcomes = {
        run.data.params["seed"]: (run.data.metrics["collapse/collapsed"], run.data.metrics["collapse/failed"])
        for run in runs
    }
    assert outcomes == {"0": (0, 0), "1": (1, 1), "2": (0, 0), "3": (1, 1), "4": (0, 1)}
    for run in runs:
        used = {name: run.data.params[name] for name in ("case", "epochs", "beta", "penalty")}
        assert used == {"case": "forum", "epochs": "30", "beta": "0.001", "penalty": "as_posted"}  # the level wins


def test_what_could_not_be_run_has_neither_metric(root):
    tracker = Tracker(store_uri(None, root), root)
    project(tracker, [record(0, status="failed", error="no place", verdict="", history={}, unit_history={}, losses={})])
    names = {name for (name,) in rows(root, "SELECT key FROM metrics")}
    assert names == {"time/seconds"}
    assert not math.isnan(rows(root, "SELECT value FROM metrics")[0][0])
