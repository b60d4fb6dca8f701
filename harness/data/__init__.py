"""Data sets, readers of the user's own files, and the split that every member of an experiment shares.

Names load when first used: the names of the data sets are known without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.data.datasets import DATASETS, load
    from harness.data.readers import read_array
    from harness.data.rows import Rows, Split
    from harness.data.split import split_of

__all__ = ["DATASETS", "Rows", "Split", "load", "read_array", "split_of"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'harness.data' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


_HOMES = {
    "DATASETS": "harness.data.datasets",
    "Rows": "harness.data.rows",
    "Split": "harness.data.rows",
    "load": "harness.data.datasets",
    "read_array": "harness.data.readers",
    "split_of": "harness.data.split",
}
