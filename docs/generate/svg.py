"""Small pictures as SVG: a heat map of activations, and a curve."""

from collections.abc import Sequence

import torch
from torch import Tensor

SHOWN_ROWS = 48
MOST_UNITS = 24
CELL = 10


def heat_map(values: Tensor, label: str, columns: str = "unit") -> str:
    """Rows of the picture are rows of the data, columns are units; dark is large, red is negative, crossed is NaN."""
    values = values[:, :MOST_UNITS].double()
    chosen = values[torch.linspace(0, len(values) - 1, min(SHOWN_ROWS, len(values))).long()]
    fired = (values[:, 0] > 0) & (values[:, 0].numel() > SHOWN_ROWS)
    if 0 < int(fired.sum()) < 20:  # rows on which a rare unit fires are shown, though an even choice would miss them
        chosen = torch.cat([values[fired], chosen])[:SHOWN_ROWS]
    largest = float(chosen.nan_to_num(0).abs().max()) or 1.0
    width, height = CELL * chosen.shape[1], CELL * len(chosen) // 2
    cells = [
        _cell(unit * CELL, row * CELL / 2, float(value), largest)
        for row, line in enumerate(chosen)
        for unit, value in enumerate(line)
    ]
    frame = f'<rect x="0" y="0" width="{width}" height="{height}" fill="none" stroke="#888"/>'
    names = "".join(
        f'<text x="{unit * CELL + CELL / 2}" y="-3" text-anchor="middle">{unit}</text>'
        for unit in range(chosen.shape[1])
        if unit < 10
    )
    title = f'<text x="{width + 8}" y="10">columns: {columns}s</text><text x="{width + 8}" y="24">rows: samples</text>'
    title += f'<text x="{width + 8}" y="38">darkest: {largest:.3g}</text>'
    return document(-4, -14, width + 130, height + 20, "".join(cells) + frame + names + title, label)


def _cell(x: float, y: float, value: float, largest: float) -> str:
    if value != value:
        return f'<path d="M{x:g} {y:g}l{CELL} {CELL / 2:g}m0 -{CELL / 2:g}l-{CELL} {CELL / 2:g}" stroke="#b00020"/>'
    share = abs(value) / largest
    color = "#1f4e9c" if value >= 0 else "#b00020"
    box = f'<rect x="{x:g}" y="{y:g}" width="{CELL}" height="{CELL / 2:g}"'
    return f'{box} fill="{color}" fill-opacity="{share:.2f}"/>' if share >= 0.01 else ""


def curve(xs: Sequence[float], ys: Sequence[float], x_name: str, label: str) -> str:
    """A curve with its axes; values that are not finite are left out."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if y == y and abs(y) != float("inf")]
    low, high = min(y for _, y in points), max(y for _, y in points)
    span = (high - low) or 1.0
    left, right = xs[0], xs[-1]

    def place(x: float, y: float) -> str:
        return f"{240 * (x - left) / (right - left):.1f},{120 - 120 * (y - low) / span:.1f}"

    line = " ".join(place(x, y) for x, y in points)
    body = f'<path d="M0 0V120H240" fill="none" stroke="#888"/><polyline points="{line}" fill="none" stroke="#1f4e9c" stroke-width="2"/>'
    body += (
        f'<text x="-4" y="8" text-anchor="end">{high:.3g}</text><text x="-4" y="120" text-anchor="end">{low:.3g}</text>'
    )
    body += f'<text x="0" y="134">{left:g}</text><text x="240" y="134" text-anchor="end">{right:g}</text>'
    body += f'<text x="120" y="134" text-anchor="middle">{x_name}</text>'
    return document(-60, -8, 320, 150, body, label)


def document(x: float, y: float, width: float, height: float, body: str, label: str) -> str:
    """Return an SVG file with a title; its text has the color of the page's frame, readable on light and dark."""
    view = f'viewBox="{x:g} {y:g} {width:g} {height:g}" width="{width * 1.4:g}" height="{height * 1.4:g}"'
    style = 'font-family="sans-serif" font-size="9" fill="#777"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {view} {style} role="img"><title>{label}</title>'
    return f"{head}{body}</svg>\n"
