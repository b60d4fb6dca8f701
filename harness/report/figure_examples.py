"""Inputs and reconstructions as small gray pictures, each pair on one scale."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.report.format import DASH, number
from harness.report.groups import baseline_marked
from harness.report.style import shown_verdict
from harness.results.records import Level, MemberRecord
from harness.text import plural

Array = NDArray[np.float64]
MOST_STRIPS = 16
GAP = 1
RIBBON = 6


@dataclass(frozen=True)
class ExampleStrip:
    """Some rows of one member: inputs above, reconstructions below.

    Args:
        variant, seed, verdict, r2: of the member. uri: a PNG as a data URI. width, height: size in pixels.
        errors: mean squared error of each row, as text.
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


def example_strips(records: Sequence[MemberRecord], baseline: Mapping[str, Level] | None = None) -> list[ExampleStrip]:
    """One strip per variant with stored examples, at most 16, spread over the variants; the baseline is marked."""
    candidates = [record for record in records if _has_examples(record)]
    chosen = (
        candidates if len(candidates) <= MOST_STRIPS else [candidates[i] for i in _spread(len(candidates), MOST_STRIPS)]
    )
    strips = [_strip(record) for record in chosen]
    names = [baseline_marked(record.variant, [record], baseline or {}) for record in chosen]
    return [replace(strip, variant=name) for strip, name in zip(strips, names, strict=True)]


def picture_shape(shape: Sequence[int], features: int) -> tuple[int, int]:
    """Height and width of a row of features as a picture; a length that is not a square becomes a ribbon.

    >>> picture_shape([100], 100), picture_shape([1, 8, 8], 64), picture_shape([20], 20)
    ((10, 10), (8, 8), (1, 20))
    """
    sizes = [int(size) for size in shape if int(size) > 1]
    if len(sizes) == 2 and math.prod(sizes) == features:
        return sizes[0], sizes[1]
    side = math.isqrt(features)
    return (side, side) if side * side == features else (1, features)


def _has_examples(record: MemberRecord) -> bool:
    rows = record.examples.get("inputs")
    return rows is not None and len(rows) > 0 and record.examples.get("reconstruction") is not None


def _spread(count: int, most: int) -> list[int]:
    return sorted({round(position) for position in np.linspace(0, count - 1, most)})


def _strip(record: MemberRecord) -> ExampleStrip:
    inputs, outputs = (_rows(record.examples[name]) for name in ("inputs", "reconstruction"))
    shape = picture_shape(record.examples.get("shape") or [], inputs.shape[1])
    pixels = _grey(inputs, outputs, shape)
    errors = [number(float(error)) for error in ((inputs - outputs) ** 2).mean(1)]
    alt = (
        f"{plural(len(inputs), 'held-out row')} above, their reconstructions by {record.variant} (seed {record.seed}) "
        f"below; R2 {number(record.r2, 2)}; mean squared errors {', '.join(errors)}."
    )
    height, width = pixels.shape[:2]
    verdict = shown_verdict(record)
    r2 = DASH if record.r2 is None else number(record.r2, 2)
    return ExampleStrip(record.variant, record.seed, verdict, r2, _png(pixels), width, height, alt, errors)


def _rows(values: Any) -> Array:
    rows = np.array(values, dtype=np.float64)
    return rows.reshape(len(rows), -1)


def _grey(inputs: Array, outputs: Array, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Gray and opacity; black and white are the extremes of the input in each column, so that faint inputs are visible."""
    low, high = np.nanmin(inputs, axis=1, keepdims=True), np.nanmax(inputs, axis=1, keepdims=True)
    width_of_scale = np.where(high > low, high - low, 1.0)
    tall = RIBBON if shape[0] == 1 else 1
    scaled = [np.nan_to_num((rows - low) / width_of_scale).clip(0, 1) * 255 for rows in (inputs, outputs)]
    height, width = shape[0] * tall, shape[1]
    pixels = np.zeros((2 * height + GAP, len(inputs) * (width + GAP) - GAP, 2), dtype=np.uint8)
    for half, rows in enumerate(scaled):
        for index, values in enumerate(rows):
            row_start, column = half * (height + GAP), index * (width + GAP)
            pixels[row_start : row_start + height, column : column + width, 0] = values.reshape(shape).repeat(
                tall, axis=0
            )
            pixels[row_start : row_start + height, column : column + width, 1] = 255
    return pixels


def _png(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels, "LA").save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
