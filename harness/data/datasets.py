"""Data sets of the package: none is downloaded, none is cached on disk.

Importing this module does not load torch, so that a plan can check a name quickly.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.data.digits import digits
from harness.data.photographs import patches, patches_contrast
from harness.data.synthetic import synthetic_20, synthetic_100, synthetic_100_clusters, synthetic_100_offset
from harness.errors import HarnessError, did_you_mean

if TYPE_CHECKING:
    from harness.data.rows import Rows


def load(name: str) -> "tuple[Rows, Rows | None]":
    """Return training rows and held-out rows; None for the latter means that a fixed fifth is held out.

    >>> train, evaluation = load("patches_contrast")
    >>> tuple(train.inputs.shape), tuple(evaluation.inputs.shape)
    ((2688, 100), (2688, 100))

    Raises:
        HarnessError: for a name that is not in the table.
    """
    if name not in DATASETS:
        raise HarnessError(f"{did_you_mean('data set', name, DATASETS)}; or give a file: .npy .npz .pt .csv .parquet")
    return DATASETS[name]()


DATASETS: "dict[str, Callable[[], tuple[Rows, Rows | None]]]" = {
    "patches_contrast": patches_contrast,
    "patches": patches,
    "digits": digits,
    "synthetic_20": synthetic_20,
    "synthetic_100": synthetic_100,
    "synthetic_100_clusters": synthetic_100_clusters,
    "synthetic_100_offset": synthetic_100_offset,
}
