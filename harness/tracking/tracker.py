"""Log results to MLflow; the only file that imports it.

Runs are found by tag and logged with stored timestamps, so logging the same results again adds nothing.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results import MemberRecord, remove_abandoned, slug
from harness.results.origin import origin_of
from harness.results.records import Level
from harness.results.temporary import temporary_path
from harness.tracking.address import check_store, is_database, mlflow_address, plain_path
from harness.tracking.artifacts import log_artifacts
from harness.tracking.concurrency import SIDE_BY_SIDE, for_all
from harness.tracking.connection import quiet, reaching, store_lock
from harness.tracking.context import DATASET_CONTEXT, RunContext
from harness.tracking.inventory import EARLIER, Inventory, StoredRun
from harness.tracking.member_rows import (
    DIGEST_TAG,
    KEY_TAG,
    LONGEST,
    ORIGIN_TAG,
    ending,
    run_name,
    starting,
    stored_metrics,
    stored_parameters,
    stored_tags,
)
from harness.tracking.sqlite_store import local_experiments, local_store
from harness.tracking.sqlite_writer import stored_runs, takes_bulk, write_members, write_summaries
from harness.tracking.variant_summary import (
    VariantSummary,
    stored_summary_tags,
    summary_metrics,
    summary_parameters,
    variant_summaries,
)
from harness.tracking.views import EXPERIMENT_TAGS, KIND_TAG, VIEW_TAG, shared_views, views

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_AT_ONCE = 1000  # in a request, MLflow's limit
MIGRATION = threading.Lock()  # the migrations have one context a process
MEMBERS_AT_ONCE = 64  # in one transaction, some tens of milliseconds
REQUESTED_AT_ONCE = 2 * SIDE_BY_SIDE  # members of a server: two rounds, so that an interrupt waits for no more


def create_store(uri: str) -> None:
    """Create a local store that does not exist, atomically and by one process.

    Its creation takes seconds of migrations, and a store that is interrupted during them cannot be opened again.
    """
    path = local_store(uri)
    if path is None or path.exists():
        return
    quiet()
    path.parent.mkdir(parents=True, exist_ok=True)
    with store_lock(uri):
        if path.exists():
            return
        remove_abandoned(path.parent, path.name)
        beside = temporary_path(path)
        try:
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            with MIGRATION:
                store = SqlAlchemyStore(f"sqlite:///{plain_path(beside)}", (path.parent / "artifacts").as_uri())
            store.engine.dispose()
            os.replace(beside, path)
        finally:
            for remains in path.parent.iterdir():
                if remains.name.startswith(beside.name):
                    remains.unlink(missing_ok=True)


def stored_experiments(uri: str) -> list[tuple[str, str, list[str]]]:
    """Return (name, id, views) of the active experiments of a store, newest first.

    Raises:
        HarnessError: if the store cannot be reached.
    """
    if local_store(uri) is not None:
        return local_experiments(uri)
    quiet()
    with reaching(uri):
        check_store(uri)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=mlflow_address(uri))
        page = client.search_experiments(max_results=1000, order_by=["creation_time DESC"])
        experiments = list(page)
        while page.token:
            page = client.search_experiments(max_results=1000, order_by=["creation_time DESC"], page_token=page.token)
            experiments += page
        return [
            (experiment.name, str(experiment.experiment_id), shared_views(experiment.tags))
            for experiment in experiments
            if experiment.name != "Default"
        ]


def has_experiment(uri: str, name: str) -> bool:
    """Ask a server or database, with one request, whether it has an active experiment of this name.

    Raises:
        HarnessError: if it does not answer.
    """
    quiet()
    with reaching(uri):
        check_store(uri)
        from mlflow import MlflowClient

        experiment = MlflowClient(tracking_uri=mlflow_address(uri)).get_experiment_by_name(name)
        return experiment is not None and experiment.lifecycle_stage == "active"


def watched_run(uri: str, experiment: str) -> tuple["MlflowClient", str, bool]:
    """Return a client, the id of the active run, and False; without an active run, the id of a new one, and True.

    Args:
        uri: of the store of a new run, unless the user's code has set another.
        experiment: name of the experiment of a new run.
    """
    quiet()
    import mlflow

    active = mlflow.active_run()
    if active is not None:
        return mlflow.MlflowClient(), active.info.run_id, False
    own = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else uri
    with reaching(own):
        check_store(own)
        create_store(own)
        client = mlflow.MlflowClient(tracking_uri=mlflow_address(own))
        stored = client.get_experiment_by_name(experiment)
        identity = stored.experiment_id if stored is not None else client.create_experiment(experiment)
        return client, client.create_run(identity).info.run_id, True


def log_metrics(client: "MlflowClient", run: str, metrics: Sequence[tuple[str, float, int]]) -> None:
    """Log (key, value, step) to a run."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        rows = metrics[start : start + METRICS_AT_ONCE]
        client.log_batch(run, metrics=[Metric(name, value, now, step) for name, value, step in rows])


class Tracker:
    """Writes experiments into a store. Only the driver process has one.

    Runs with the origin of its folder are its own: they may be completed and replaced. All other runs stay unchanged,
    and a member that another origin has finished is not logged again, since equal keys are equal results.

    Args:
        uri: of the store.
        root: the folder that contains `mlruns/`.
        context: facts that hold for every run: parameters, data set, user, source and commit.

    Raises:
        HarnessError: if the store cannot be reached.
    """

    def __init__(self, uri: str, root: Path, context: RunContext | None = None) -> None:
        quiet()
        self.context = context or RunContext()
        self.origin = origin_of(root).name
        with reaching(uri):
            check_store(uri)
            create_store(uri)
            from mlflow import MlflowClient

            self.client: MlflowClient = MlflowClient(tracking_uri=mlflow_address(uri))
            path = local_store(uri)
            self._file = path if path is not None and takes_bulk(path) else None
        self.uri, self.root = uri, root
        self._requests = SIDE_BY_SIDE if local_store(uri) is None else 1  # a file has one writer
        self._experiments: dict[str, str] = {}  # name -> id
        self._inventories: dict[str, Inventory] = {}  # experiment id -> runs at the last query

    @property
    def at_once(self) -> int:
        """Number of members logged at once: many if they share a transaction, some if a server logs them side by side."""
        if self._file is not None:
            return MEMBERS_AT_ONCE
        return 1 if self._requests == 1 else REQUESTED_AT_ONCE

    def project(
        self,
        name: str,
        records: Sequence[MemberRecord],
        note: str,
        artifacts: Sequence[Path] = (),
        parameters: Mapping[str, Any] | None = None,
        seconds: float = 0.0,
        baseline: Mapping[str, Level] | None = None,
    ) -> str:
        """Update the store's experiment with the results, and return its id.

        Args:
            name: of the experiment.
            records: its members; each is a run, found by its key.
            note: Markdown, the description of the parent run.
            artifacts: files of the parent run; weights (`*.safetensors`) go to its folder `weights`.
            parameters: of the parent run.
            seconds: wall time, a metric under `time/`.
            baseline: levels that the remedies of variants are compared with, in their summary runs.

        Raises:
            HarnessError: if the store cannot be reached or written, or does not show the logged runs.
        """
        with reaching(self.uri), store_lock(self.uri):
            experiment = self._experiment(name)
            self._inventories.pop(experiment, None)  # a server may have done more than it reported
            parent = self._parent(experiment, name, records)
            self._log_dataset(parent)  # before the members, which are logged side by side
            for start in range(0, len(records), self.at_once):
                self._log_members(experiment, parent, records[start : start + self.at_once])
            summaries = variant_summaries(name, records, baseline, self.context.parameters)
            self._log_summaries(experiment, parent, summaries)
            self._mark_earlier(experiment, {record.key for record in records} | {summary.key for summary in summaries})
            self._log_parent(parent, note, artifacts, parameters or {}, seconds, records)
            states = {f"{VIEW_TAG}.{view}": state for view, state in views(records).items()}
            tags = {**EXPERIMENT_TAGS, "mlflow.note.content": note[:LONGEST], **states}
            for_all(lambda tag: self.client.set_experiment_tag(experiment, *tag), tags.items(), self._requests)
            self.client.set_terminated(parent, "FINISHED")
            self._verify(experiment, name, records)
        return experiment

    def begin(self, name: str) -> str:
        """Set the parent run to RUNNING, and return the experiment's id."""
        with reaching(self.uri), store_lock(self.uri):
            experiment = self._experiment(name)
            self._log_dataset(self._parent(experiment, name, ()))
        return experiment

    def log(self, name: str, records: Sequence[MemberRecord]) -> None:
        """Log members of an experiment after `begin`; existing runs stay unchanged."""
        with reaching(self.uri), store_lock(self.uri):
            experiment = self._experiment(name)
            parent = self._inventory(experiment, [_parent_key(name)]).own[_parent_key(name)].run
            self._log_members(experiment, parent, records)

    def confirmed(self, name: str, records: Sequence[MemberRecord]) -> int:
        """Count the members that the store shows as logged completely, by this folder or by another.

        Raises:
            HarnessError: if it cannot be queried.
        """
        with reaching(self.uri), store_lock(self.uri):
            experiment = self._experiment(name)
            self._inventories.pop(experiment, None)
            return self._shown(experiment, records)

    def stopped(self, name: str) -> None:
        """Set the parent run to KILLED: the experiment was interrupted, and can be resumed."""
        with reaching(self.uri), store_lock(self.uri):
            parent = self._inventory(self._experiment(name), [_parent_key(name)]).own.get(_parent_key(name))
            if parent is not None:
                self.client.set_terminated(parent.run, "KILLED")

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            experiment = self.client.get_experiment_by_name(name)
            if experiment is not None and experiment.lifecycle_stage == "deleted":
                self.client.restore_experiment(experiment.experiment_id)
            number = experiment.experiment_id if experiment is not None else self._new_experiment(name)
            self._experiments[name] = _identified(number)
        return self._experiments[name]

    def _new_experiment(self, name: str) -> str:
        local = local_store(self.uri)
        folder = self.root.absolute() / "mlruns" if local is None else local.parent
        location = (folder / "artifacts" / slug(name)).as_uri() if is_database(self.uri) else None
        try:
            return str(self.client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
        except Exception:
            experiment = self.client.get_experiment_by_name(name)
            if experiment is None:
                raise
            return str(experiment.experiment_id)  # another process created it first

    def _inventory(self, experiment: str, keys: Sequence[str] | None = None) -> Inventory:
        """Return the runs in the store, at least those of `keys`; a server, which is slow to answer, is queried once."""
        if self._file is not None:
            return self._single(Inventory(self.origin, stored_runs(self._file, experiment, keys)))
        if (
            experiment not in self._inventories or local_store(self.uri) is not None
        ):  # other processes write a local store too
            self._inventories[experiment] = self._single(Inventory(self.origin, self._search(experiment)))
        return self._inventories[experiment]

    def _search(self, experiment: str) -> Iterator[StoredRun]:
        token: str | None = None
        while True:
            page = self.client.search_runs([experiment], max_results=1000, page_token=token)
            for run in page:
                info, tags = run.info, run.data.tags
                if KEY_TAG in tags:
                    origin, filled = tags.get(ORIGIN_TAG, ""), bool(run.data.params and run.data.metrics)
                    digest, run_kind = tags.get(DIGEST_TAG, ""), tags.get(KIND_TAG, "")
                    start = info.start_time
                    yield StoredRun(info.run_id, tags[KEY_TAG], origin, info.status, start, filled, digest, run_kind)
            token = page.token
            if not token:
                return

    def _single(self, inventory: Inventory) -> Inventory:
        """Remove duplicates of own runs: a server can carry out a request and answer with an error."""
        while inventory.doubled:
            self._remove(inventory.doubled.pop())
        return inventory

    def _remove(self, run: StoredRun) -> None:
        """Delete an own run, never another."""
        assert run.origin == self.origin
        self.client.set_terminated(run.run, "KILLED")
        self.client.delete_run(run.run)

    def _parent(self, experiment: str, name: str, records: Sequence[MemberRecord]) -> str:
        inventory, key = self._inventory(experiment, [_parent_key(name)]), _parent_key(name)
        if key in inventory.own:
            self.client.update_run(inventory.own[key].run, status="RUNNING")
            return inventory.own[key].run
        own = {KEY_TAG: key, ORIGIN_TAG: self.origin, KIND_TAG: "experiment", "variant": "(experiment)"}
        tags = {**self.context.tags, **own}
        start = min((starting(record) for record in records), default=int(time.time() * 1000))
        run = _identified(self.client.create_run(experiment, start_time=start, tags=tags, run_name=name).info.run_id)
        inventory.add(StoredRun(run, key, self.origin, "RUNNING", start, filled=False))
        return run

    def _log_parent(
        self,
        run: str,
        note: str,
        artifacts: Sequence[Path],
        parameters: Mapping[str, Any],
        seconds: float,
        records: Sequence[MemberRecord],
    ) -> None:
        from mlflow.entities import Metric, RunTag

        tags = {"mlflow.note.content": note, **parameters}
        stamp = max((record.logged_at for record in records), default=0)
        metrics = [Metric("time/seconds", seconds, stamp, 0)] if seconds else []
        self.client.log_batch(run, metrics, tags=[RunTag(name, str(value)[:LONGEST]) for name, value in tags.items()])
        log_artifacts(self.client, run, artifacts, self._requests)

    def _log_members(self, experiment: str, parent: str, records: Sequence[MemberRecord]) -> None:
        members = {record.key: record for record in records}
        inventory = self._inventory(experiment, list(members))
        # of an earlier attempt: a failed member that was tried again, or a run before `--fresh`
        earlier = [key for key in members if key in inventory.own]
        earlier = [key for key in earlier if inventory.own[key].start != starting(members[key])]
        for_all(lambda key: self._remove(inventory.own[key]), earlier, self._requests)
        for key in earlier:
            del inventory.own[key]
            inventory.elsewhere.discard(key)  # its replacement is logged even if another folder has it
        missing = [record for key, record in members.items() if not inventory.has(key)]
        new = [record for record in missing if record.key not in inventory.own]
        if self._file is not None and new:
            write_members(self._file, experiment, parent, self.origin, new, self.context)
            missing = [record for record in missing if record.key in inventory.own]
        for_all(lambda record: self._log_member(experiment, parent, record, inventory), missing, self._requests)

    def _log_member(self, experiment: str, parent: str, record: MemberRecord, inventory: Inventory) -> None:
        """Log a member by the client, step by step: into a server, or to complete a run of a killed process."""
        from mlflow.entities import Metric, Param

        if record.key in inventory.own:
            run = inventory.own[record.key].run
        else:
            tags = {**self.context.tags, **stored_tags(record, parent, self.origin)}
            name, start = run_name(record), starting(record)
            created = self.client.create_run(experiment, start_time=start, tags=tags, run_name=name)
            run = _identified(created.info.run_id)
            inventory.add(StoredRun(run, record.key, self.origin, "RUNNING", start, filled=False))
        parameters = [Param(*row) for row in stored_parameters(record, self.context.parameters)]
        metrics = [Metric(*row) for row in stored_metrics(record)]
        if self._requests == 1:  # a server would need one more request per member; its parent and summaries have it
            self._log_dataset(run)
        self.client.log_batch(run, metrics=metrics, params=parameters)
        self.client.set_terminated(run, *ending(record))
        logged = StoredRun(run, record.key, self.origin, ending(record)[0], starting(record), filled=True)
        inventory.own[record.key] = logged

    def _log_dataset(self, run: str) -> None:
        """Enter the data set as an input of a run, unless it is one."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = self.context.dataset
        if dataset is not None:
            described = (dataset.source_type, dataset.source, dataset.schema, dataset.profile)
            tags = [InputTag(*tag) for tag in DATASET_CONTEXT.items()]
            used = DatasetInput(Dataset(dataset.name, dataset.digest, *described), tags)
            self.client.log_inputs(run, datasets=[used])

    def _log_summaries(self, experiment: str, parent: str, summaries: Sequence[VariantSummary]) -> None:
        """Create the summary run of each variant, or update it in place; a run that is up to date stays unchanged."""
        inventory = self._inventory(experiment, [summary.key for summary in summaries])
        for summary in summaries:
            run = inventory.own.get(summary.key)
            if run is not None and run.digest and summary.replaces(run.digest):
                self._remove(inventory.own.pop(summary.key))
        new = [summary for summary in summaries if summary.key not in inventory.own]
        if self._file is not None and new:
            write_summaries(self._file, experiment, parent, self.origin, new, self.context)

        def log(summary: VariantSummary) -> None:
            run = inventory.own.get(summary.key)
            if run is None and self._file is None:
                self._log_summary(experiment, parent, summary)
            elif run is not None and (run.digest != summary.digest or run.status != "FINISHED"):
                self._log_summary(experiment, parent, summary, run)

        for_all(log, summaries, self._requests)

    def _mark_earlier(self, experiment: str, current: Set[str]) -> None:
        """Take own runs that the experiment no longer declares out of the views, and runs that it declares again back in.

        The views show runs by their kind.
        """
        for run in self._inventory(experiment).own.values():
            run_kind = run.current_kind if run.key in current else f"{run.current_kind}{EARLIER}"
            if run.current_kind in ("member", "summary") and run.kind != run_kind:
                self.client.set_tag(run.run, KIND_TAG, run_kind)

    def _log_summary(
        self, experiment: str, parent: str, summary: VariantSummary, stored: StoredRun | None = None
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tags = {**self.context.tags, **stored_summary_tags(summary, parent, self.origin)}
        if stored is None:
            created = self.client.create_run(experiment, summary.start, tags=tags, run_name=summary.variant)
            run = _identified(created.info.run_id)
        else:
            run = stored.run
        # of values with the same step, MLflow shows the one with the latest time
        timestamp = int(time.time() * 1000) if stored is not None and stored.digest else summary.end
        metrics = [Metric(*row) for row in summary_metrics(summary, timestamp)]
        parameters = [Param(*row) for row in summary_parameters(summary)]
        stored_tags_again = [RunTag(*tag) for tag in tags.items()] if stored else []
        self._log_dataset(run)
        self.client.log_batch(run, metrics=metrics, params=parameters, tags=stored_tags_again)
        self.client.set_tag(run, DIGEST_TAG, summary.digest)
        self.client.set_terminated(run, "FINISHED", summary.end)

    def _verify(self, experiment: str, name: str, records: Sequence[MemberRecord]) -> None:
        """Query what was logged: an answer that looks like success may come from something else, such as a login page."""
        self._inventories.pop(experiment, None)
        count = self._shown(experiment, records)
        if count < len(records):
            raise RuntimeError(f"it shows {count} of {len(records)} members after all of them were logged")
        parent = self._inventory(experiment, [_parent_key(name)]).own.get(_parent_key(name))
        if parent is None or parent.status != "FINISHED":
            raise RuntimeError("it does not show the experiment's parent run as finished after it was logged")

    def _shown(self, experiment: str, records: Sequence[MemberRecord]) -> int:
        inventory = self._inventory(experiment)
        return sum(inventory.has(record.key) for record in records)


def _parent_key(name: str) -> str:
    return f"parent:{name}"


def _identified(answer: str) -> str:
    """Return the id in a store's answer; MLflow's client takes an empty answer for success."""
    if not answer:
        raise RuntimeError("expected an id, got an empty answer; is it an MLflow server?")
    return str(answer)
