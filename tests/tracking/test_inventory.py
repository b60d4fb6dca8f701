"""Two folders, one store, one experiment's name: each touches its own runs alone, and equal keys are equal results."""

import pytest
from mlflow import MlflowClient
from stored_members import record

from harness.errors import HarnessError
from harness.tracking import Tracker, member_tags, store_uri

pytestmark = pytest.mark.many

LATER = 1_700_000_009_000


@pytest.fixture(params=["bulk", "client"])
def trackers(request, root, tmp_path):
    """Of two folders that share the first one's store; in one transaction a stack, or by MLflow's client."""
    uri, both = store_uri(None, root), []
    for folder in (root, tmp_path / "other"):
        tracker = Tracker(uri, folder)
        if request.param == "client":
            tracker._file = None
        both.append(tracker)
    assert both[0].origin != both[1].origin
    return both


def projected(tracker, records):
    """The experiment's id, as a run logs it: beside the training, then at the end."""
    tracker.begin("trial")
    tracker.log("trial", records)
    return tracker.project("trial", records, note="the answer")


def runs_of(tracker, experiment):
    """(key, origin, status, start) of every run that is not deleted."""
    found = tracker.client.search_runs([experiment], max_results=1000)
    tags = ("harness.key", "harness.origin")
    return sorted(
        (*(run.data.tags.get(tag, "") for tag in tags), run.info.status, run.info.start_time) for run in found
    )


def members(tracker, experiment):
    return [run for run in runs_of(tracker, experiment) if not run[0].startswith(("parent:", "summary:"))]


def test_a_member_that_another_folder_has_finished_is_not_logged_again_and_counts(trackers):
    one, two = trackers
    experiment = projected(one, [record(0), record(1)])
    before = members(one, experiment)
    shared = [record(index, logged_at=LATER) for index in (1, 2)]
    projected(two, shared)
    assert members(one, experiment) == sorted([*before, ("k2", two.origin, "FINISHED", LATER)])
    assert two.confirmed("trial", shared) == 2
    projected(one, [record(0), record(1)])
    assert one.confirmed("trial", [record(0), record(1)]) == 2
    assert len(members(one, experiment)) == 3


def test_each_folder_has_one_parent_run_and_leaves_the_others_as_it_is(trackers):
    one, two = trackers
    experiment = projected(one, [record(0)])
    two.begin("trial")
    two.stopped("trial")
    parents = [run[:3] for run in runs_of(one, experiment) if run[0] == "parent:trial"]
    assert sorted(parents) == sorted([("parent:trial", one.origin, "FINISHED"), ("parent:trial", two.origin, "KILLED")])
    projected(two, [record(1)])
    projected(one, [record(0)])
    parents = [run[:3] for run in runs_of(one, experiment) if run[0] == "parent:trial"]
    assert sorted(parents) == sorted(("parent:trial", each.origin, "FINISHED") for each in trackers)


def test_what_is_logged_anew_replaces_the_own_run_alone(trackers):
    one, two = trackers
    experiment = projected(one, [record(0), record(1)])
    projected(two, [record(2)])
    projected(two, [record(index, logged_at=LATER) for index in (1, 2)])
    first = ("k1", one.origin, "FINISHED", record(0).logged_at)
    assert first in members(one, experiment)
    assert [run for run in members(one, experiment) if run[1] == two.origin] == [("k2", two.origin, "FINISHED", LATER)]
    projected(one, [record(index, logged_at=LATER) for index in (0, 1)])
    assert members(one, experiment) == sorted(
        [(f"k{i}", each.origin, "FINISHED", LATER) for i, each in ((0, one), (1, one), (2, two))]
    )


def test_an_own_run_is_replaced_where_another_folder_has_the_member_too(trackers):
    one, two = trackers
    experiment = projected(one, [record(0)])
    tags = {**member_tags(record(0)), "harness.origin": two.origin}
    run = two.client.create_run(experiment, start_time=1, tags=tags)
    two.client.set_terminated(run.info.run_id, "FINISHED")
    projected(one, [record(0, logged_at=LATER)])
    assert members(one, experiment) == sorted(
        [("k0", one.origin, "FINISHED", LATER), ("k0", two.origin, "FINISHED", 1)]
    )


@pytest.mark.parametrize("status", ["FAILED", "KILLED", "RUNNING", "SCHEDULED"])
@pytest.mark.parametrize("origin", ["another", ""])
def test_what_others_did_not_finish_is_left_as_it_is_and_logged_beside(trackers, status, origin):
    one, _ = trackers
    experiment = one.begin("trial")
    tags = {**member_tags(record(0)), **({"harness.origin": origin} if origin else {})}
    run = one.client.create_run(experiment, start_time=1, tags=tags)
    if status != "RUNNING":
        one.client.update_run(run.info.run_id, status=status)
    projected(one, [record(0)])
    projected(one, [record(0, logged_at=LATER)])
    expected = [("k0", origin, status, 1), ("k0", one.origin, "FINISHED", LATER)]
    assert members(one, experiment) == sorted(expected)


@pytest.mark.parametrize("tags", [{}, {"harness.key": "k0"}, {"harness.key": "parent:trial"}, {"variant": "as_posted"}])
@pytest.mark.parametrize("status", ["FINISHED", "RUNNING"])
def test_runs_that_somebody_made_by_hand_survive_everything(trackers, tags, status):
    one, _ = trackers
    experiment = one.begin("trial")
    client = MlflowClient(tracking_uri=one.uri)
    runs = [client.create_run(experiment, start_time=1, tags=tags).info.run_id for _ in range(2)]
    for run in runs:
        client.log_metric(run, "mine", 1.0)
        client.set_terminated(run, status)
    for logged_at in (LATER, LATER + 1):
        projected(one, [record(index, logged_at=logged_at) for index in (0, 1)])
        assert one.confirmed("trial", [record(0), record(1)]) == 2
    for run in map(client.get_run, runs):
        assert (run.info.status, run.info.lifecycle_stage) == (status, "active")
        assert run.data.metrics == {"mine": 1.0}
        assert {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")} == tags
    taken = status == "FINISHED" and tags == {"harness.key": "k0"}
    assert len([run for run in members(one, experiment) if run[1]]) == (1 if taken else 2)


def test_no_run_of_another_origin_can_be_removed(trackers):
    from harness.tracking.inventory import StoredRun

    one, two = trackers
    with pytest.raises(AssertionError):
        one._remove(StoredRun("1", "k0", two.origin, "FINISHED", 0, True))


def test_an_own_run_without_its_numbers_is_filled(trackers):
    """As of a server that said that it had logged them."""
    one, _ = trackers
    experiment = one.begin("trial")
    tags = {**member_tags(record(0)), "harness.origin": one.origin}
    run = one.client.create_run(experiment, start_time=record(0).logged_at, tags=tags).info.run_id
    one.client.set_terminated(run, "FINISHED")
    assert one.confirmed("trial", [record(0)]) == 0
    projected(one, [record(0)])
    assert one.confirmed("trial", [record(0)]) == 1
    assert one.client.get_run(run).data.metrics["loss/total"] == 1.0
    assert len(members(one, experiment)) == 1


def test_an_experiment_that_another_folder_makes_at_the_same_time_is_found(trackers, monkeypatch):
    """On a server, which no lock protects: between the question and the making."""
    one, two = trackers
    asked, answers = one.client.get_experiment_by_name, [None]

    def late(name):
        if answers:
            two.client.create_experiment(name)
            return answers.pop()
        return asked(name)

    monkeypatch.setattr(one.client, "get_experiment_by_name", late)
    assert projected(one, [record(0)]) == projected(two, [record(0)])
    assert answers == []


def test_an_experiment_that_cannot_be_made_is_said(trackers, monkeypatch):
    one, _ = trackers
    monkeypatch.setattr(one.client, "create_experiment", lambda *arguments, **more: 1 // 0)
    with pytest.raises(HarnessError, match="by zero; the results are safe"):
        one.begin("trial")
