"""Heat maps of the unit histories: every unit at every snapshot, one picture per measure."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.report.format import shortened
from harness.report.groups import in_declared_order, variants
from harness.report.svg import POINT, TITLE_HEIGHT, any_script, new_figure, safe
from harness.results import StoredResults
from harness.results.records import MemberRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
MOST_ROWS = 800
MOST_LABELS = 40  # a text takes as long to draw as a hundred rows
WIDTH, LABELS, BAR = 860, 340, 60
DENSITY = 1.5 * POINT


def heat_maps(results: StoredResults, folder: Path) -> list[Path]:
    """Write `heat_<measure>.png` for each recorded measure: one row per unit, one column per snapshot.

    Row r of a variant is the mean over seeds of the unit with the r-th largest value at the end: a unit's number means
    nothing across seeds. At most 800 rows are drawn; units.parquet has all units.
    """
    records = in_declared_order(results.records, results.manifest)
    paths = []
    sheets: dict[object, HeatmapCanvas] = {}
    for measure, title in MEASURES.items():
        rows, labels, steps = unit_histories(records, measure)
        path = folder / f"heat_{measure}.png"
        path.unlink(missing_ok=True)  # of an earlier report, which may have had what this one lacks
        if np.isfinite(rows).any():  # an activation without an off state has no frequency
            alike = (rows.shape, tuple(labels), tuple(steps))
            sheet = sheets.setdefault(alike, HeatmapCanvas(labels, steps))
            paths.append(_write(sheet.pixels(rows, title), path))
    return paths


def unit_histories(records: Sequence[MemberRecord], measure: str) -> tuple[Array, list[str], list[float]]:
    """Values [row, snapshot] with one label per row ("variant #1"), and the steps of the snapshots."""
    rows: list[Array] = []
    labels: list[str] = []
    steps: list[float] = []
    for name, members in variants(records).items():
        usable = [
            record for record in members if measure in record.unit_history and len(record.unit_history.array(measure))
        ]
        if not usable or len(rows) >= MOST_ROWS:
            continue
        steps = max(steps, list(usable[0].history.get("step", [])), key=len)
        means = _over_seeds([_ranked(record.unit_history.array(measure).T) for record in usable])
        rows += list(means)
        labels += [f"{shortened(name, 52)} #{rank}" for rank in range(1, len(means) + 1)]
    return _padded(rows[:MOST_ROWS]), labels[:MOST_ROWS], steps


def draw_heat(axes: "Axes", rows: Array, labels: Sequence[str], steps: Sequence[float], title: str) -> "Axes":
    """Draw one row per unit and one column per snapshot; empty where nothing was computed."""
    import seaborn

    every = -(-len(labels) // MOST_LABELS)
    bar = {"label": title, "fraction": 0.04, "aspect": 40}
    seaborn.heatmap(rows, ax=axes, cmap="cividis", cbar_kws=bar, yticklabels=False, xticklabels=False)
    axes.set_yticks(np.arange(0, len(labels), every) + 0.5, [safe(label) for label in labels[::every]])
    columns = np.unique(np.linspace(0, rows.shape[1] - 1, 6).round().astype(int))
    axes.set_xticks(columns + 0.5, [f"{steps[column]:g}" if column < len(steps) else str(column) for column in columns])
    axes.set_xlabel("step")
    axes.set_title(heading(title), loc="left", y=TITLE_HEIGHT)
    return axes


class HeatmapCanvas:
    """A figure reused for pictures that differ only in values and title: its labels are the slowest part to draw.

    Args:
        labels: of the rows. steps: of the columns.
    """

    def __init__(self, labels: Sequence[str], steps: Sequence[float]) -> None:
        self.labels, self.steps = labels, steps
        self._canvas: Any = None
        self._edge: Pixels = np.empty(0, dtype=np.uint8)

    def pixels(self, rows: Array, title: str) -> Pixels:
        """The picture as `[row, column, color]`; the next call overwrites it."""
        if self._canvas is None:
            self._draw(rows, title)
        else:
            self._redraw(rows, title)
        with any_script():
            self._canvas.draw()
        pixels = np.asarray(self._canvas.buffer_rgba())
        edge = pixels[:, : int(LABELS * DENSITY / POINT)]
        if self._edge.size:
            edge[:] = self._edge
        self._edge = edge.copy()
        return pixels

    def _draw(self, rows: Array, title: str) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        inner = min(max(10 * len(rows), 120), 2400)
        height = inner + 80
        figure = new_figure(figsize=(WIDTH / POINT, height / POINT), dpi=DENSITY)
        axes = figure.add_axes((LABELS / WIDTH, 50 / height, 1 - (LABELS + BAR) / WIDTH, inner / height))
        draw_heat(axes, rows, self.labels, self.steps, title)
        self._canvas = FigureCanvasAgg(figure)  # not before: seaborn draws what can be drawn

    def _redraw(self, rows: Array, title: str) -> None:
        """Draw other values on the same axes, with the row labels as they are."""
        axes = self._canvas.figure.axes[0]
        (mesh,) = axes.collections
        mesh.set_array(np.ma.masked_invalid(rows))
        mesh.set_clim(np.nanmin(rows), np.nanmax(rows))
        mesh.colorbar.set_label(title)
        axes.set_title(heading(title), loc="left", y=TITLE_HEIGHT)
        axes.tick_params(axis="y", labelleft=False)


def heading(title: str) -> str:
    """Title above a picture."""
    return f"{title}, units by rank, mean over seeds"


def _write(pixels: Pixels, path: Path) -> Path:
    from matplotlib.image import imsave

    unsigned: Any = {"Software": None}
    imsave(path, pixels, format="png", dpi=DENSITY, metadata=unsigned, pil_kwargs={"compress_level": 3})
    return path


def _ranked(units: Array) -> Array:
    """Units `[unit, snapshot]` sorted by their last value, the largest first, unknown ones last."""
    last = units[:, -1] if units.shape[1] else np.empty(len(units))
    return units[np.argsort(np.where(np.isfinite(last), -last, np.inf), kind="stable")]


def _over_seeds(members: Sequence[Array]) -> Array:
    """Mean over members, which may have stopped early; NaN where none has a value."""
    units, length = max(len(history) for history in members), max(history.shape[1] for history in members)
    values = np.full((len(members), units, length), np.nan)
    for index, history in enumerate(members):
        values[index, : history.shape[0], : history.shape[1]] = history
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).sum(0)
    return np.divide(total, finite.sum(0), out=np.full(total.shape, np.nan), where=finite.any(0))


def _padded(rows: Sequence[Array]) -> Array:
    length = max((len(row) for row in rows), default=0)
    return np.array([np.pad(row, (0, length - len(row)), constant_values=np.nan) for row in rows])


MEASURES = {
    "activation_frequency": "share of rows on which the unit fires",
    "mutual_information": "mutual information (nats)",
    "entropy_bits": "entropy (bits)",
}
