"""The data sets that come with the harness: none of them is downloaded, none is cached on disk.

Importing this module loads no torch, so that a plan may check a name at once.
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
    """The rows to train on and the rows held out (None: the harness holds out a fixed fifth).

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
