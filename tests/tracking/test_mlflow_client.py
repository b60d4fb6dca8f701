"""The store as MLflow's users read it, by MLflow's own client: summaries first, parameters, data set, source, times."""

import json

import mlflow
import pytest
from stored_members import record

from harness.tracking import Tracker, run_context, store_uri

MANIFEST = {
    "inputs": {"data": "0f" * 32, "train_rows": 80, "evaluation_rows": 20, "features": [6], "dtype": "float64"},
    "experiment": {"case": "forum", "data": "patches"},
    "commit": "abc123+changes",
    "command": "harness run trial.yaml",
}
USED = {"case": "forum", "data": "patches", "epochs": 30, "batch_size": 64, "learning_rate": 0.01, "optimizer": "Adam"}
BASELINE = {"penalty": "as_posted", "beta": 0.001, "batchnorm": "off"}
FAILS = {"variant": "as_posted", "levels": BASELINE, "verdict": "full_collapse", "seconds": 1.0}
MEMBERS = [record(seed, seed=seed, **FAILS) for seed in range(3)]
CURED = [record(9 + seed, seed=seed, variant="bn=on", levels={**BASELINE, "batchnorm": "on"}) for seed in range(3)]


@pytest.fixture(params=["bulk", "client"])
def logged(request, root):
    """The client, and the experiment's id."""
    tracker = Tracker(store_uri(None, root), root, run_context(MANIFEST, USED))
    if request.param == "client":
        tracker._file = None
    return tracker.client, tracker.project("trial", [*MEMBERS, *CURED], note="As posted, all fail.", baseline=BASELINE)


def test_the_newest_runs_are_the_summaries_with_the_baseline_first(logged):
    client, experiment = logged
    runs = client.search_runs([experiment], "tags.`harness.kind` != 'experiment'", order_by=["start_time DESC"])
    assert [run.info.run_name for run in runs[:2]] == ["as_posted", "bn=on"]
    assert {run.data.tags["harness.kind"] for run in runs[2:]} == {"member"}


def test_every_run_says_what_it_used(logged):
    client, experiment = logged
    used = {name: str(value) for name, value in USED.items()}
    for run in client.search_runs([experiment], "tags.`harness.kind` != 'experiment'"):
        assert used.items() <= run.data.params.items()
        assert run.data.params["penalty"] == "as_posted"
        assert ("seed" in run.data.params) == (run.data.tags["harness.kind"] == "member")


def test_every_run_has_the_data_set_as_its_input(logged):
    client, experiment = logged
    runs = client.search_runs([experiment])
    assert len(runs) == 9
    for run in runs:
        (used,) = client.get_run(run.info.run_id).inputs.dataset_inputs
        assert (used.dataset.name, used.dataset.digest) == ("patches", "0f" * 8)
        assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training"}
    assert json.loads(used.dataset.profile)["features_shape"] == [100, 6]
    features = json.loads(json.loads(used.dataset.schema)["mlflow_tensorspec"]["features"])
    assert features[0]["tensor-spec"] == {"dtype": "float64", "shape": [-1, 6]}
    source = mlflow.data.get_source(used)
    assert source.to_dict()["tags"]["mlflow.source.git.commit"] == "abc123"
    assert len(client.search_runs([experiment], "dataset.name = 'patches'")) == 9


def test_every_run_has_user_source_and_commit(logged):
    client, experiment = logged
    for run in client.search_runs([experiment]):
        tags = run.data.tags
        assert tags["mlflow.user"] == run.info.user_id != "unknown"
        assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("harness run trial.yaml", "LOCAL")
        assert (tags["mlflow.source.git.commit"], tags["mlflow.source.git.dirty"]) == ("abc123", "true")


def test_a_member_takes_its_own_time(logged):
    client, experiment = logged
    (run,) = client.search_runs([experiment], "tags.`harness.key` = 'k0'")
    assert (run.info.start_time, run.info.end_time) == (1_700_000_000_000 - 1000, 1_700_000_000_000)


def test_the_experiment_opens_in_training_mode_with_the_answer_as_its_description(logged):
    client, experiment = logged
    tags = client.get_experiment(experiment).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.note.content"] == "As posted, all fail."


def test_a_summary_says_its_outcome_in_words(logged):
    client, experiment = logged
    (run,) = client.search_runs([experiment], "tags.`harness.kind` = 'summary' and tags.remedy LIKE 'batchnorm%'")
    assert run.data.tags["mlflow.note.content"].startswith("Remedy: batchnorm: on. 0 of 3 seeds failed")
    assert "failed share: 0.00 (95 % interval 0.00 to 0.56)" in run.data.tags["mlflow.note.content"]


def test_a_folder_without_facts_logs_no_data_set_and_no_commit(root):
    tracker = Tracker(store_uri(None, root), root, run_context({}, {}))
    (run,) = tracker.client.search_runs([tracker.project("trial", MEMBERS[:1], note="")], "tags.seed = '0'")
    assert not run.inputs.dataset_inputs
    assert "mlflow.source.git.commit" not in run.data.tags
