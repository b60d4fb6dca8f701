"""Members of an earlier version of a file: they stay in the store, and the views leave them out."""

import json

import pytest
from mlflow import MlflowClient
from stored_members import record

from harness.tracking import Tracker, store_uri

NOTE = "the answer"


@pytest.fixture(params=["bulk", "client"])
def tracker(request, root):
    tracker = Tracker(store_uri(None, root), root)
    if request.param == "client":
        tracker._file = None
    return tracker


def shown(tracker, experiment):
    """Keys of the runs that the views of members ask for, and of all runs of the store."""
    client = MlflowClient(tracking_uri=tracker.uri)
    tags = client.get_experiment(experiment).tags
    filters = {
        json.loads(value)["searchFilter"] for tag, value in tags.items() if tag.startswith("mlflow.sharedViewState")
    }
    assert filters == {"tags.`harness.kind` = 'summary'", "tags.`harness.kind` = 'member'"}
    searches = [client.search_runs([experiment], text) for text in ("tags.`harness.kind` = 'member'", "")]
    return [sorted(run.data.tags["harness.key"] for run in runs) for runs in searches]


def test_members_of_an_earlier_file_are_left_out_of_the_views_and_kept_in_the_store(tracker):
    experiment = tracker.project("trial", [record(0), record(1)], note=NOTE)
    assert shown(tracker, experiment)[:-1] == [["k0", "k1"]]
    tracker.project("trial", [record(1), record(2, variant="relu")], note=NOTE)
    view, everything = shown(tracker, experiment)
    assert view == ["k1", "k2"]
    assert {"k0", "k1", "k2"} < set(everything)


def test_members_that_the_file_declares_again_are_back_in_the_views(tracker):
    experiment = tracker.project("trial", [record(0), record(1)], note=NOTE)
    for records in ([record(1)], [record(0), record(1)]):
        tracker.project("trial", records, note=NOTE)
    assert shown(tracker, experiment)[0] == ["k0", "k1"]


def test_the_summary_of_a_variant_that_is_no_longer_declared_is_an_earlier_one(tracker):
    experiment = tracker.project("trial", [record(0), record(1, variant="relu")], note=NOTE)
    tracker.project("trial", [record(0)], note=NOTE)
    runs = tracker.client.search_runs([experiment])
    kinds = {run.data.tags["harness.key"]: run.data.tags["harness.kind"] for run in runs}
    assert kinds["summary:trial:as_posted bn=on"] == "summary"
    assert kinds["summary:trial:relu"] == "summary (earlier)"
    assert (kinds["k0"], kinds["k1"]) == ("member", "member (earlier)")


def test_members_of_another_folder_are_left_alone(tracker, tmp_path):
    other = Tracker(tracker.uri, tmp_path / "other")
    experiment = other.project("trial", [record(5)], note=NOTE)
    tracker.project("trial", [record(0)], note=NOTE)
    assert shown(tracker, experiment)[0] == ["k0", "k5"]
