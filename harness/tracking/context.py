"""Facts that hold for every run of an experiment: parameters, data set, user, source and commit, in MLflow's terms."""

import getpass
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATASET_CONTEXT = {"mlflow.data.context": "training"}
DIGEST_LENGTH = 16  # characters; MLflow allows 36


@dataclass(frozen=True)
class LoggedDataset:
    """A data set as MLflow stores it.

    Args:
        name: of the data set.
        digest: the first digits of the SHA-256 of its bytes.
        source_type, source: MLflow's name of the kind of source, and its JSON.
        schema, profile: JSON in the format of `mlflow.data.numpy_dataset`.
    """

    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str


@dataclass(frozen=True)
class RunContext:
    """Facts that hold for every run of an experiment.

    Args:
        parameters: of every member whose levels do not change them: numbers of the case, training numbers.
        dataset: of every run; None logs none.
        tags: of every run: user, source and commit.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    dataset: LoggedDataset | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def run_context(manifest: Mapping[str, Any], parameters: Mapping[str, Any]) -> RunContext:
    """Return the context of an experiment's runs.

    Args:
        manifest: of the experiment.
        parameters: what every member uses whose levels do not change it.
    """
    tags = _provenance(manifest)
    return RunContext(parameters, _dataset(manifest, tags) if manifest.get("inputs") else None, tags)


def _provenance(manifest: Mapping[str, Any]) -> dict[str, str]:
    commit, separator, _changes = str(manifest.get("commit") or "").partition("+")
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": str(manifest.get("command") or "harness"),
        "mlflow.source.type": "LOCAL",
    }
    if not commit:
        return tags
    return {**tags, "mlflow.source.git.commit": commit, "mlflow.source.git.dirty": str(bool(separator)).lower()}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _dataset(manifest: Mapping[str, Any], tags: Mapping[str, str]) -> LoggedDataset:
    inputs, experiment = manifest["inputs"], manifest.get("experiment") or {}
    data, case = experiment.get("data"), Path(str(experiment.get("case") or "case")).stem
    is_file = data is not None and bool(Path(str(data)).suffix)
    source = {"uri": str(data)} if is_file else {"tags": {**tags, "case": str(experiment.get("case"))}}
    features, rows = list(inputs.get("features") or []), [inputs.get("train_rows", 0), inputs.get("evaluation_rows", 0)]
    tensor = {"type": "tensor", "tensor-spec": {"dtype": inputs.get("dtype", "float32"), "shape": [-1, *features]}}
    profile = {"features_shape": [sum(rows), *features], "train_rows": rows[0], "evaluation_rows": rows[1]}
    return LoggedDataset(
        name=str(data) if data is not None else f"data of {case}",
        digest=str(inputs.get("data") or "")[:DIGEST_LENGTH],
        source_type="local" if is_file else "code",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps([tensor]), "targets": None}}),
        profile=json.dumps(profile),
    )
