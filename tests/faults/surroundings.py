"""Surroundings of a run: variables, limits, streams and what stands in its folder. A run in each ends by itself."""

import os
import resource
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Surrounding:
    """How a run is started.

    Args:
        exit_codes: of `harness run` that are right.
        variables: of the environment; None removes one.
        prepare: what stands in the folder.
        limit: called in the new process.
        name: of the folder.
        streams: other streams than pipes.
    """

    exit_codes: tuple[int, ...] = (0,)
    variables: Mapping[str, str | None] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda folder: None
    limit: Callable[[], object] | None = None
    name: str = "here"
    streams: Mapping[str, object] = field(default_factory=dict)


def variables(*exit_codes: int, **names: str | None) -> Surrounding:
    return Surrounding(exit_codes or (0,), names)


def standing(*exit_codes: int) -> Callable[[Callable[[Path], object]], Surrounding]:
    return lambda prepare: Surrounding(exit_codes or (0,), prepare=prepare)


def limited(kind: int, most: int, *exit_codes: int) -> Surrounding:
    return Surrounding(exit_codes or (0,), limit=lambda: resource.setrlimit(kind, (most, most)))


def beneath(folder: Path, name: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    return folder / name


def module(folder: Path) -> None:
    for name in ("gzip", "json", "random", "copy", "socket", "torch", "harness", "numpy"):
        (folder / f"{name}.py").write_text("raise RuntimeError('this file is not to be imported')\n")


def store(address: str) -> Surrounding:
    return variables(0, MLFLOW_TRACKING_URI=address)


SURROUNDINGS = {
    "nothing": Surrounding(),
    "LANG=C": variables(LANG="C", LC_ALL="C"),
    "ASCII streams": variables(PYTHONIOENCODING="ascii"),
    "no home": variables(HOME=None),
    "a home that is not there": variables(HOME="/nowhere/at/all"),
    "a time zone": variables(TZ="Pacific/Chatham"),
    "a time zone that is none": variables(TZ="nowhere"),
    "no PATH": variables(PATH=""),
    "no temporary folder": variables(TMPDIR="/nowhere/at/all"),
    "a backend of matplotlib that is none": variables(MPLBACKEND="nonsense"),
    "a folder of matplotlib that is none": variables(MPLCONFIGDIR="/nowhere/at/all"),
    "assertions off": variables(PYTHONOPTIMIZE="2"),
    "no byte code": variables(PYTHONDONTWRITEBYTECODE="1"),
    "development mode": variables(PYTHONDEVMODE="1"),
    "one column": variables(COLUMNS="1", TERM="dumb"),
    "a proxy that is none": variables(HTTP_PROXY="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9"),
    "no threads": variables(OMP_NUM_THREADS="0"),
    "an experiment of MLflow": variables(MLFLOW_EXPERIMENT_NAME="other", MLFLOW_RUN_ID="0" * 32),
    "a store of an unknown kind": store("nonsense://x"),
    "a store that is not there": store("sqlite:////nowhere/at/all/mlflow.db"),
    "a database that does not answer": store("postgresql://ann:secret@127.0.0.1:9/db"),
    "a server that does not answer": store("http://127.0.0.1:9"),
    "a folder with a space and a percent sign": Surrounding(name="a b%20c?#"),
    "a folder that is not ASCII": Surrounding(name="Ergebnisse größer 测试"),
    "a folder that is not UTF-8": Surrounding(name=os.fsdecode(b"caf\xe9")),
    "a folder with a line break": Surrounding(name="a\nb"),
    "files named like modules": standing()(module),
    "mlruns is a file": standing(2)(lambda folder: (folder / "mlruns").write_text("")),
    "results is a file": standing(2)(lambda folder: beneath(folder, "mlruns/results").write_text("")),
    "reports is a file": standing(0, 2)(lambda folder: beneath(folder, "mlruns/reports").write_text("")),
    "the store is a folder": standing()(lambda folder: beneath(folder, "mlruns/mlflow.db/x").write_text("")),
    "the store is garbage": standing()(lambda folder: beneath(folder, "mlruns/mlflow.db").write_text("garbage" * 99)),
    "the store is empty": standing()(lambda folder: beneath(folder, "mlruns/mlflow.db").write_text("")),
    "the store is a link to itself": standing(0, 2)(
        lambda folder: beneath(folder, "mlruns/mlflow.db").symlink_to("mlflow.db")
    ),
    "the origin is garbage": standing()(lambda folder: beneath(folder, "mlruns/.origin.json").write_text("garbage")),
    "a lock is a folder": standing(2)(
        lambda folder: beneath(folder, "mlruns/results/disturbed/.lock/x").write_text("")
    ),
    "mlruns is a link to nothing": standing(0, 2)(lambda folder: (folder / "mlruns").symlink_to("nothing/at/all")),
    "64 open files": limited(resource.RLIMIT_NOFILE, 64, 0, 2),
    "files of 200 KB": limited(resource.RLIMIT_FSIZE, 200_000, 0, 2),
    "no core": limited(resource.RLIMIT_CORE, 0),
    "stdin is closed": Surrounding(limit=lambda: os.close(0)),
    "stderr is closed": Surrounding(limit=lambda: os.close(2)),
    "stderr is full": Surrounding(streams={"stderr": "/dev/full"}),
    "stdin is a terminal's end": Surrounding(streams={"stdin": subprocess.DEVNULL}),
}
