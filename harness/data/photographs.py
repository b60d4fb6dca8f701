"""Natural patches, 10 x 10 pixels and gray: one photograph to train on, another to evaluate.

scikit-learn's sample photographs: china.jpg (by danielbuechele, flickr.com/photos/danielbuechele/6061409035) and
flower.jpg (by vultilion, flickr.com/photos/vultilion/6056698931), both CC BY 2.0. Neighboring patches resemble each
other, so rows are not exchangeable: `blocks` is the tile of 6 x 8 patches that contains a row.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.data.digits import scikit_learn_folder

if TYPE_CHECKING:
    from harness.data.rows import Rows

TRAIN, EVALUATION = "china.jpg", "flower.jpg"
SIDE = 10  # pixels of a patch, and its stride: patches do not overlap
TILE = (6, 8)  # patches of a block: 42 x 64 patches make 7 x 8 equal blocks


def patches() -> "tuple[Rows, Rows]":
    """2688 patches of each photograph, luminance kept: 100 features from 0 (black) to 1 (white).

    One principal component already gives R2 0.91, so a code of a single unit looks excellent here.
    """
    return _rows(_patches(TRAIN), TRAIN), _rows(_patches(EVALUATION), EVALUATION)


def patches_contrast() -> "tuple[Rows, Rows]":
    """The same patches minus their own mean, in units of the training photograph's standard deviation.

    Principal components of the training photograph reach R2 0.26 (one), 0.49 (two) and 0.61 (four) on the other photograph.
    """
    train, evaluation = (rows - rows.mean(1, keepdims=True) for rows in (_patches(TRAIN), _patches(EVALUATION)))
    scale = train.std()  # one number for both, or the contrast of a patch would be lost
    return _rows(train / scale, TRAIN), _rows(evaluation / scale, EVALUATION)


def patch_factors(gray: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Factors of patches, computed from their gray values `[sample, 100]`.

    `mean_luminance`, from 0 to 1; `log_contrast`, the logarithm of the standard deviation plus 1/255, which is -5.5 for a
    flat patch; `orientation_cos` and `orientation_sin`, of twice the dominant orientation of the gradient, so that 0 and
    180 degrees are equal. The cosine is 1 where brightness changes from left to right only.

    >>> factors = patch_factors(np.tile(np.linspace(0, 1, 10), (1, 10)))
    >>> [float(factors[name][0].round(3)) for name in ("mean_luminance", "orientation_cos", "orientation_sin")]
    [0.5, 1.0, 0.0]
    """
    angle = _twice_the_orientation(gray.reshape(-1, SIDE, SIDE))
    return {
        "mean_luminance": gray.mean(1),
        "log_contrast": np.log(gray.std(1) + 1 / 255),
        "orientation_cos": np.cos(angle),
        "orientation_sin": np.sin(angle),
    }


def _twice_the_orientation(images: NDArray[np.float64]) -> NDArray[np.float64]:
    # the structure tensor's principal axis: averaging gradients themselves would cancel the two sides of a line
    down, right = np.gradient(images, axis=(1, 2))
    return np.arctan2(2 * (right * down).mean((1, 2)), (right**2 - down**2).mean((1, 2)))


def _rows(inputs: NDArray[np.float64], photograph: str) -> "Rows":
    from harness.data.rows import Rows
    from harness.data.tensors import tensor

    factors = {name: tensor(values) for name, values in patch_factors(_patches(photograph)).items()}
    return Rows(tensor(inputs), factors=factors, blocks=tensor(_tiles(*_grid(photograph))))


def _tiles(rows: int, columns: int) -> NDArray[np.int64]:
    down, right = np.divmod(np.arange(rows * columns), columns)
    return (down // TILE[0]) * (columns // TILE[1]) + right // TILE[1]


def _patches(photograph: str) -> NDArray[np.float64]:
    rows, columns = _grid(photograph)
    gray = _gray(photograph)[: rows * SIDE, : columns * SIDE]
    return gray.reshape(rows, SIDE, columns, SIDE).swapaxes(1, 2).reshape(-1, SIDE * SIDE)


def _grid(photograph: str) -> tuple[int, int]:
    height, width = _gray(photograph).shape
    return height // SIDE, width // SIDE


@cache
def _gray(photograph: str) -> NDArray[np.float64]:
    from PIL import Image

    with Image.open(scikit_learn_folder() / "images" / photograph) as image:
        return np.asarray(image, dtype=np.float64).mean(axis=2) / 255
