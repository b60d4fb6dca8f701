"""Reconstructions beside their inputs, as small grey pictures, each pair on one scale."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.report.format import DASH, number, plural
from harness.results.records import MemberRecord

Array = NDArray[np.float64]
MOST_STRIPS = 16
GAP = 1
RIBBON = 6


@dataclass(frozen=True)
class ExampleStrip:
    """Some rows of one member: the inputs above, their reconstructions below.

    Args:
        variant, seed, verdict, r2: of the member. uri: a PNG as a data URI. width, height: in its own pixels.
        errors: per row the mean squared error, as text.
    """

    variant: str
    seed: int
    verdict: str
    r2: str
    uri: str
    width: int
    height: int
    alt: str
    errors: Sequence[str]


def example_strips(records: Sequence[MemberRecord]) -> list[ExampleStrip]:
    """One strip a variant that stored examples, at most 16, spread over the variants."""
    found = [record for record in records if _has_examples(record)]
    chosen = found if len(found) <= MOST_STRIPS else [found[i] for i in _spread(len(found), MOST_STRIPS)]
    return [_strip(record) for record in chosen]


def picture_shape(shape: Sequence[int], features: int) -> tuple[int, int]:
    """Height and width of a row of features as a picture; what is no square becomes a ribbon.

    >>> picture_shape([100], 100), picture_shape([1, 8, 8], 64), picture_shape([20], 20)
    ((10, 10), (8, 8), (1, 20))
    """
    long = [int(each) for each in shape if int(each) > 1]
    if len(long) == 2 and math.prod(long) == features:
        return long[0], long[1]
    side = math.isqrt(features)
    return (side, side) if side * side == features else (1, features)


def _has_examples(record: MemberRecord) -> bool:
    rows = record.examples.get("inputs")
    return rows is not None and len(rows) > 0 and record.examples.get("reconstruction") is not None


def _spread(count: int, wanted: int) -> list[int]:
    return sorted({round(each) for each in np.linspace(0, count - 1, wanted)})


def _strip(record: MemberRecord) -> ExampleStrip:
    inputs, outputs = (_rows(record.examples[name]) for name in ("inputs", "reconstruction"))
    shape = picture_shape(record.examples.get("shape") or [], inputs.shape[1])
    pixels = _grey(inputs, outputs, shape)
    errors = [number(float(each)) for each in ((inputs - outputs) ** 2).mean(1)]
    alt = (
        f"{plural(len(inputs), 'held-out row')} above, their reconstructions by {record.variant} (seed {record.seed}) "
        f"below; R2 {number(record.r2, 2)}; mean squared errors {', '.join(errors)}."
    )
    height, width = pixels.shape[:2]
    verdict = record.verdict or record.status
    r2 = DASH if record.r2 is None else number(record.r2, 2)
    return ExampleStrip(record.variant, record.seed, verdict, r2, _png(pixels), width, height, alt, errors)


def _rows(values: Any) -> Array:
    found = np.array(values, dtype=np.float64)
    return found.reshape(len(found), -1)


def _grey(inputs: Array, outputs: Array, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Grey and opacity; black and white are the ends of the input of a column, so that faint inputs are seen too."""
    low, high = np.nanmin(inputs, axis=1, keepdims=True), np.nanmax(inputs, axis=1, keepdims=True)
    width_of_scale = np.where(high > low, high - low, 1.0)
    tall = RIBBON if shape[0] == 1 else 1
    scaled = [np.nan_to_num((each - low) / width_of_scale).clip(0, 1) * 255 for each in (inputs, outputs)]
    height, width = shape[0] * tall, shape[1]
    pixels = np.zeros((2 * height + GAP, len(inputs) * (width + GAP) - GAP, 2), dtype=np.uint8)
    for line, rows in enumerate(scaled):
        for index, row in enumerate(rows):
            top, left = line * (height + GAP), index * (width + GAP)
            pixels[top : top + height, left : left + width, 0] = row.reshape(shape).repeat(tall, axis=0)
            pixels[top : top + height, left : left + width, 1] = 255
    return pixels


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels, "LA").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
