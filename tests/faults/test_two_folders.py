"""Two folders run one experiment's name into one store: every finished run stays, and both are told the truth.

Injected: overlapping and different seeds, `--fresh` in one of them, a project that was copied, runs of others. Counted:
every run of the store with its key, origin, status and start.
"""

import shutil

import pytest
from fault_injection import EXPERIMENT, prepared, rows_of

from harness.experiment import run_experiment, sync
from harness.results.origin import origin_of

RUNS = """
SELECT run_uuid, keys.value, coalesce(origins.value, ''), status, start_time FROM runs
LEFT JOIN tags keys ON keys.run_uuid = runs.run_uuid AND keys.key = 'harness.key'
LEFT JOIN tags origins ON origins.run_uuid = runs.run_uuid AND origins.key = 'harness.origin'
WHERE lifecycle_stage = 'active'
""".replace("SELECT run_uuid", "SELECT runs.run_uuid")


class Folder:
    """A project folder that logs into a store which it shares.

    Args:
        root: of the project.
        store: the file.
        seeds: of its experiment.
    """

    def __init__(self, root, store, seeds):
        root.mkdir(exist_ok=True)
        self.root, self.store, self.uri = root, store, f"sqlite:///{store}"
        self.file = prepared(root, EXPERIMENT.replace("seeds: 2", f"seeds: {seeds}")) / "disturbed.yaml"

    @property
    def origin(self):
        return origin_of(self.root).name

    def run(self, **options):
        return run_experiment(self.file, workers=0, root=self.root, tracking_uri=self.uri, **options)

    def members(self):
        """key -> (run, start) of the members that it logged itself."""
        runs = [
            run
            for run in rows_of(self.store, RUNS)
            if run[2] == self.origin and run[1].partition(":")[0] not in ("parent", "summary")
        ]
        assert {status for _, _, _, status, _ in runs} <= {"FINISHED"}
        assert len({key for _, key, *_ in runs}) == len(runs)
        return {key: (run, start) for run, key, _, _, start in runs}

    def parents(self):
        return [run[3] for run in rows_of(self.store, RUNS) if run[1:3] == ("parent:disturbed", self.origin)]


@pytest.fixture
def store(tmp_path, empty_store):
    (tmp_path / "shared").mkdir()
    return shutil.copy(empty_store, tmp_path / "shared" / "mlflow.db")


@pytest.fixture
def pair(tmp_path, store):
    """Seeds 0 to 3, and seeds 2 to 5."""
    return Folder(tmp_path / "one", store, "[0, 1, 2, 3]"), Folder(tmp_path / "two", store, "[2, 3, 4, 5]")


def test_every_finished_run_stays_and_both_folders_are_told_the_truth(pair):
    one, two = pair
    first = one.run()
    before = one.members()
    second = two.run()
    for outcome in (first, second):
        assert (len(outcome.records), outcome.logged, outcome.notes) == (8, 8, ())
    assert (len(before), len(two.members())) == (8, 4)
    assert one.members() == before
    assert {record.key for record in first.records + second.records} == {*before, *two.members()}
    for folder in (one, two, one):
        assert sync(folder.file, folder.uri, root=folder.root) == []
    assert (one.members(), len(two.members())) == (before, 4)
    assert (one.parents(), two.parents()) == (["FINISHED"], ["FINISHED"])
    assert rows_of(one.store, "SELECT count(*) FROM runs") == [
        (8 + 4 + 2 * 2 + 2,)
    ]  # members, a summary of each variant, parents


@pytest.mark.long
def test_starting_over_replaces_the_own_runs_alone(pair):
    one, two = pair
    one.run()
    two.run()
    before, others = one.members(), two.members()
    outcome = one.run(fresh=True)
    after = one.members()
    assert (outcome.trained, outcome.logged, outcome.notes) == (8, 8, ())
    assert before.keys() == after.keys()
    assert all(after[key][1] > before[key][1] for key in before)
    assert two.members() == others
    assert two.run().logged == 8
    two.run(fresh=True)
    assert one.members() == after
    assert two.members().keys() == others.keys()


@pytest.mark.long
def test_runs_of_others_survive_a_run_that_is_made_anew(pair):
    from mlflow import MlflowClient

    one, _ = pair
    one.run()
    (experiment,), *_ = rows_of(one.store, "SELECT experiment_id FROM experiments WHERE name = 'disturbed'")
    key = min(one.members())
    client = MlflowClient(tracking_uri=one.uri)
    tagged = [{}, {"harness.key": key}, {"harness.key": key, "harness.origin": "another"}, {"mine": "yes"}]
    foreign = [client.create_run(str(experiment), start_time=1, tags=tags).info.run_id for tags in tagged * 2]
    for run in foreign[: len(tagged)]:
        client.set_terminated(run, "FINISHED")
    before = {run for run in rows_of(one.store, RUNS) if run[0] in foreign}
    assert len(before) == len(foreign)
    outcome = one.run(fresh=True)
    assert (outcome.logged, outcome.notes) == (8, ())
    assert sync(one.file, one.uri, root=one.root) == []
    assert {run for run in rows_of(one.store, RUNS) if run[0] in foreign} == before
    assert len(one.members()) == 8


def test_a_copied_project_says_so_and_leaves_the_runs_of_the_first_as_they_are(pair, store):
    one, _ = pair
    one.run()
    before = one.members()
    shutil.copytree(one.root, one.root.parent / "copy")
    copy = Folder(one.root.parent / "copy", store, "[0, 1, 2, 3, 6]")
    outcome = copy.run()
    (note,) = [note for note in outcome.notes if "is a copy of" in note]
    assert str(one.root) in note
    assert (outcome.trained, outcome.logged, len(copy.members())) == (2, 10, 2)
    assert [note for note in copy.run(fresh=True).notes if "copy" in note] == []
    assert one.members() == before
    assert copy.parents() == ["FINISHED"]
