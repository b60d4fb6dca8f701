"""What the tests of reports share."""

from pathlib import Path

import pytest
from fake_results import effects_of, study


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one report, written once."""
    from harness.report import write_report

    results = study()
    return write_report(results, effects_of(results), tmp_path_factory.mktemp("report")).parent
