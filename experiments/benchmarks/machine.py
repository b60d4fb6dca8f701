"""What was measured on: the processor, the libraries, the date."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from processes import cores
from rows import Row

LIBRARIES = ("torch", "jax", "mlflow")


def facts(rows: Sequence[Row]) -> dict[str, Any]:
    """The machine, with the most that it reached in matrix products and copies, by number of threads."""
    return {
        "processor": processor(),
        "cores": cores(),
        "python": platform.python_version(),
        **{library: installed(library) for library in LIBRARIES},
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "gemm_gflops_by_threads": most(rows, "matrix products"),
        "copy_gb_per_s_by_threads": most(rows, "copies"),
    }


def processor() -> str:
    """Its name, as the kernel tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def installed(library: str) -> str | None:
    """A library's version, None without it."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def most(rows: Sequence[Row], subject: str) -> dict[str, float]:
    """The highest value of each number of threads."""
    return {str(row.threads): round(max(row.values), 1) for row in rows if row.subject == subject}
