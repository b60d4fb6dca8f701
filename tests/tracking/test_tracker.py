"""MLflow is a projection of the results: logging the same again adds nothing, and what is lost comes back."""

import json
import math
import shutil

import pytest
from stored_members import record, rows

from harness.errors import HarnessError
from harness.tracking import (
    Tracker,
    experiment_id,
    member_metrics,
    member_tags,
    move_paths,
    store_uri,
    stored_views,
)
from harness.tracking.member_rows import starting
from harness.tracking.views import views


def project(root, records, name="trial", **more):
    return Tracker(store_uri(None, root), root).project(name, records, note="the answer", **more)


def test_members_become_runs_under_one_parent(root):
    project(root, [record(0), record(1)])
    assert rows(root, "SELECT count(*) FROM runs WHERE status = 'FINISHED'") == [
        (4,)
    ]  # with the parent and the summary
    parents = rows(root, "SELECT DISTINCT value FROM tags WHERE key = 'mlflow.parentRunId'")
    assert len(parents) == 1
    assert ("as_posted bn=on s1",) in rows(root, "SELECT name FROM runs")
    notes = {note for (note,) in rows(root, "SELECT value FROM tags WHERE key = 'mlflow.note.content'")}
    assert "the answer" in notes
    assert len(notes) == 2  # the summary has its own


def test_logging_again_adds_nothing(root):
    tables = ("runs", "metrics", "params", "tags", "latest_metrics")
    project(root, [record(0), record(1)])
    before = {table: rows(root, f"SELECT count(*) FROM {table}") for table in tables}
    project(root, [record(0), record(1)])
    assert {table: rows(root, f"SELECT count(*) FROM {table}") for table in tables} == before


def test_a_run_that_was_cut_off_is_completed_and_not_doubled(root):
    tracker = Tracker(store_uri(None, root), root)
    experiment = tracker.begin("trial")
    tags = {**member_tags(record(0)), "harness.origin": tracker.origin}
    tracker.client.create_run(experiment, start_time=starting(record(0)), tags=tags, run_name="half")
    project(root, [record(0)])
    assert rows(root, "SELECT count(*) FROM runs") == [(3,)]
    assert rows(root, "SELECT count(*) FROM runs WHERE status = 'RUNNING'") == [(0,)]


def test_a_member_that_was_tried_again_replaces_its_failed_run(root):
    project(root, [record(0, status="failed", error="no memory", verdict="", losses={}, logged_at=1_699_999_999_000)])
    project(root, [record(0)])
    alive = rows(root, "SELECT status FROM runs WHERE name LIKE '%s0' AND lifecycle_stage = 'active'")
    assert alive == [("FINISHED",)]
    assert rows(root, "SELECT count(*) FROM runs WHERE status = 'RUNNING'") == [(0,)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_run_that_was_doubled_by_its_server_is_single_again_and_the_finished_one_stays(root, order):
    tracker = Tracker(store_uri(None, root), root)
    experiment = tracker.begin("trial")
    for finished in order:
        tags = {**member_tags(record(0)), "harness.origin": tracker.origin}
        run = tracker.client.create_run(experiment, start_time=starting(record(0)), tags=tags)
        if finished:
            tracker.client.log_param(run.info.run_id, "seed", 0)
            tracker.client.log_metric(run.info.run_id, "whole", 1.0)
            tracker.client.set_terminated(run.info.run_id, "FINISHED")
    project(root, [record(0)])
    assert rows(root, "SELECT status FROM runs WHERE lifecycle_stage = 'active'") == [("FINISHED",)] * 3
    whole = "SELECT lifecycle_stage FROM runs JOIN metrics USING (run_uuid) WHERE key = 'whole'"
    assert rows(root, whole) == [("active",)]


def test_a_gpu_is_a_tag_where_one_trained(root):
    project(root, [record(0), record(1, gpu="NVIDIA H100")])
    found = rows(root, "SELECT runs.name, tags.value FROM tags JOIN runs USING (run_uuid) WHERE tags.key = 'gpu'")
    assert [value for _, value in found] == ["NVIDIA H100"]
    assert found[0][0].endswith("s1")


def test_what_is_no_number_is_a_nan_and_a_tag_never_a_huge_number(root):
    project(
        root,
        [
            record(
                0,
                status="diverged",
                losses={"total": math.inf},
                history={"step": [0.0], "loss/total": [math.inf]},
                unit_history={},
            )
        ],
    )
    assert rows(root, "SELECT count(*) FROM metrics WHERE abs(value) > 1e300") == [(0,)]
    assert rows(root, "SELECT is_nan FROM metrics WHERE key = 'loss/total'") == [(1,)]
    assert rows(root, "SELECT value FROM tags WHERE key = 'not_finite'") == [("total",)]
    assert rows(root, "SELECT value FROM tags WHERE key = 'status'") == [("diverged",)]


def test_a_member_that_could_not_be_run_is_failed(root):
    project(root, [record(0, status="failed", error="no place", verdict="", history={}, unit_history={}, losses={})])
    assert rows(root, "SELECT count(*) FROM runs WHERE status = 'FAILED'") == [(1,)]


def test_a_member_takes_at_most_200_rows_whatever_its_length():
    steps = [float(i) for i in range(500)]
    unit_history = {name: [[0.5] * 64] * 500 for name in ("activation_frequency", "entropy_bits", "mutual_information")}
    long = record(0, units=64, history={"step": steps, "loss/total": steps}, unit_history=unit_history)
    metrics = member_metrics(long)
    assert len(metrics) <= 200
    assert {step for _, _, _, step in metrics} >= {0, 499}
    assert "activation_frequency/u7" in {name for name, *_ in metrics}


def test_the_contract_of_metric_names():
    names = {name for name, *_ in member_metrics(record(0))}
    assert {
        "loss/total",
        "collapse/live_units",
        "activation_frequency/u0",
        "mutual_information/u1",
        "health/r2",
    } <= names


def test_artifacts_land_under_mlruns(root, tmp_path):
    file = tmp_path / "report.html"
    file.write_text("x")
    project(root, [record(0)], artifacts=[file])
    assert [path.name for path in (root / "mlruns" / "artifacts").rglob("*.html")] == ["report.html"]


def test_a_moved_store_is_repaired(root, tmp_path_factory):
    project(root, [record(0)])
    moved = tmp_path_factory.mktemp("moved")
    shutil.move(root / "mlruns", moved / "mlruns")
    assert move_paths(store_uri(None, moved)) > 0
    assert move_paths(store_uri(None, moved)) == 0
    uris = rows(moved, "SELECT artifact_uri FROM runs")
    assert all(str(moved) in uri for (uri,) in uris)


def test_the_page_of_an_experiment_is_found_without_mlflow(root):
    number = project(root, [record(0)])
    assert experiment_id(store_uri(None, root), "trial") == number
    assert experiment_id(store_uri(None, root), "other") is None


def test_only_a_local_store_can_be_repaired():
    with pytest.raises(HarnessError, match="expected an existing local store"):
        move_paths("http://127.0.0.1:9")


def test_a_server_that_is_not_there_is_one_clear_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    with pytest.raises(HarnessError, match="the results are safe"):
        Tracker("http://127.0.0.1:9", tmp_path).project("trial", [record(0)], note="")


def test_names_of_mlflow_are_kept_in_its_alphabet(root):
    odd = record(0, history={"step": [0.0], "loss/naïve <b>": [1.0]}, unit_history={})
    project(root, [odd])
    assert rows(root, "SELECT count(*) FROM metrics WHERE key LIKE 'loss/na%'") == [(1,)]


@pytest.mark.parametrize(
    ("variants", "order"), [(11, "tags.`seed`"), (50, "tags.`seed`"), (51, "tags.`mlflow.runName`")]
)
def test_the_first_runs_of_a_view_are_some_seeds_of_every_variant(variants, order):
    states = views([record(index, variant=f"variant {index}") for index in range(variants)])
    orders = {view: json.loads(state)["orderByKey"] for view, state in states.items()}
    assert orders == {"variants": "tags.`harness.rank`", "members": order, "factors": order}


def test_the_store_keeps_the_views_that_a_link_opens(root):
    """The page's own state: summaries; members grouped by the tag `variant`, each group folded; factors side by side."""
    experiment = project(root, [record(0), record(1, levels={"penalty": "none", "beta": 0.001})])
    uri = store_uri(None, root)
    assert stored_views(uri, experiment) == ["variants", "members", "factors"]
    assert stored_views(uri, "0") == []
    kept = dict(rows(root, "SELECT key, value FROM experiment_tags WHERE key LIKE 'mlflow.sharedViewState.%'"))
    states = [json.loads(kept[f"mlflow.sharedViewState.{view}"]) for view in ("variants", "members", "factors")]
    summaries, grouped, factors = states
    assert summaries["searchFilter"] == "tags.`harness.kind` = 'summary'"
    assert grouped["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "variant"}]
    assert grouped["groupsExpanded"] == {"tag.variant.as_posted bn=on": False}
    assert factors["compareRunCharts"][0]["selectedParams"] == ["penalty"]  # beta does not vary
    for state in states:  # outcomes first, and no chart that averages a unit's number over seeds
        sections = state["compareRunSections"]
        shown = [section["name"] for section in sections if not section.get("deleted")]
        assert [name for name in shown if name != "Factors and outcomes"][:2] == ["collapse", "health"]
        removed = {section["name"] for section in sections if section.get("deleted")}
        assert removed == {"activation_frequency", "mutual_information", "entropy_bits"}
        assert state["isAccordionReordered"]  # the page keeps this order instead of its own


def test_the_view_of_many_variants_fits_a_tag():
    view = views([record(index, variant=f"variant {index} " + "x" * 100) for index in range(500)])["members"]
    assert len(view) <= 5000
    assert json.loads(view)["groupsExpanded"]
