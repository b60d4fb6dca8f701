"""scikit-learn's handwritten digits, read from its package folder."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.data.rows import Rows


def digits() -> "tuple[Rows, None]":
    """1797 images of 8 x 8 pixels as 64 features from 0 (paper) to 1 (ink), with their ten classes as labels.

    The rows are exchangeable; a fixed fifth is held out.

    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, as shipped by scikit-learn.
    """
    from harness.data.rows import Rows
    from harness.data.tensors import tensor

    table = np.loadtxt(scikit_learn_folder() / "data" / "digits.csv.gz", delimiter=",")
    return Rows(tensor(table[:, :-1] / 16), labels=tensor(table[:, -1].astype(np.int64))), None


def scikit_learn_folder() -> Path:
    """Return scikit-learn's folder of data sets without importing scikit-learn, which takes two seconds.

    Raises:
        HarnessError: when scikit-learn is not installed.
    """
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise HarnessError("scikit-learn is not installed; these data are part of it: pip install scikit-learn")
    return Path(spec.origin).parent / "datasets"
