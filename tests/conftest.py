"""What all tests share: small data, one thread, and no telemetry."""

import math
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.pop("MLFLOW_TRACKING_URI", None)  # a test writes into its own store

import pytest
import torch
from hypothesis import HealthCheck, settings

from harness.case import Case, load_case
from harness.data.rows import Rows, Split
from harness.tracking import create_store, store_uri

# the same examples everywhere, and no clock that decides: neither for an example nor for how fast they are made
settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any machine")


FOLLOWED = 1  # tests of a file marked `many` whose coverage is measured
KEPT = 2  # cases of a test marked `many` that are not long


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep two evenly spaced cases of each test marked `many`, and measure the coverage of a test's first case alone.

    Of a file marked `many`, the first test is measured. Under coverage an audit takes more than twice as long.
    """
    functions = [item.nodeid.partition("[")[0] for item in items]
    number, cases, measured = Counter(functions), Counter[str](), Counter[Path]()
    for item, function in zip(items, functions, strict=True):
        many, case = item.get_closest_marker("many"), cases[function]
        measured[item.path] += not case
        if case or (many and measured[item.path] > FOLLOWED):
            item.add_marker("no_cover")
        if many and case % math.ceil(number[function] / KEPT):
            item.add_marker("long")
        cases[function] += 1


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test's random numbers do not depend on which tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def split() -> Split:
    """100 features, as the source case wants them: a few hundred rows with four planted directions."""
    generator = torch.Generator().manual_seed(5)
    factors = torch.rand(260, 4, generator=generator)
    rows = factors @ torch.randn(4, 100, generator=generator) * 0.5
    rows = rows + 0.1 * torch.randn(260, 100, generator=generator)
    return Split(Rows(rows[:200], factors={"first": factors[:200, 0]}), Rows(rows[200:]), "planted")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated store without runs: creating one takes seconds, so once for all processes of a session."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    create_store(store_uri(None, root))  # one process at a time, whole or not at all
    return root / "mlruns" / "mlflow.db"


@pytest.fixture(scope="session")
def stored(empty_store: Path) -> Callable[[Path], Path]:
    """Gives a folder a copy of that store, and gives the folder back."""

    def copied(folder: Path) -> Path:
        (folder / "mlruns").mkdir(parents=True, exist_ok=True)
        shutil.copy(empty_store, folder / "mlruns" / "mlflow.db")
        return folder

    return copied


@pytest.fixture(scope="session")
def forum() -> Case:
    return load_case("forum")
