"""Heat maps of the values of single units over a training: one map per unit, the share of values per step."""

from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.report.figure_layer import unit_kind
from harness.report.format import humanize, number
from harness.report.svg import POINT, Margins, RenderedFigure, Table, inline_svg, name_axes, safe, sheet
from harness.text import plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from harness.diagnosis import Diagnosis, UnitDiagnosis
    from harness.watching.value_history import ValueHistory

Array = NDArray[np.float64]
MOST_DRAWN = 6
MOST_FLAGGED = 4  # of them with a finding: the others show what a unit without one looks like
BINS, MOST_COLUMNS = 32, 64
MOST_TABLE_COLUMNS = 8
PANEL, MARGINS = (196.0, 110.0), Margins(left=68, right=104, between=60, above=48)
GAMMA = 0.4  # the color is this power of the share, so that a share of 3 % is seen beside one of 100 %
BAR_TICKS = (0.0, 0.01, 0.1, 0.3, 1.0)
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


def value_maps(diagnosis: "Diagnosis", history: "ValueHistory") -> RenderedFigure | None:
    """Heat maps of the units that matter, for a page; None where no values are known."""
    units = units_shown(diagnosis, set(history.units.tolist()))
    if not units or not history.steps:
        return None
    positions = {unit: position for position, unit in enumerate(history.units.tolist())}
    columns = {unit.index: columns_of(history, positions[unit.index], MOST_COLUMNS) for unit in units}
    figure, panels = sheet(PANEL, len(units), min(2, len(units)), MARGINS)
    for axes, unit in zip(panels, units, strict=True):
        draw_values(axes, *map(list, zip(*columns[unit.index], strict=True)))
        axes.set_title(safe(f"unit {unit.index}: {humanize(unit.verdict)}"), loc="left", y=1.02)
    _draw_scale(panels)
    name_axes(figure, "training step", "value of the unit")
    claim = _claim(units)
    alt = f"{plural(len(units), 'heat map')} of values over the training. {' '.join(_change(unit, columns[unit.index]) for unit in units)}"
    return RenderedFigure(
        "values",
        claim,
        alt,
        inline_svg(figure, "values", alt),
        _table(units, history, positions),
        _note(len(units), history),
        wide=True,
    )


def units_shown(diagnosis: "Diagnosis", kept: Collection[int]) -> "list[UnitDiagnosis]":
    """Up to six of the kept units: at most four with findings, one per finding in turn, then those that vary most."""
    units = {unit.index: unit for unit in diagnosis.units if unit.index in kept}
    by_finding = [[unit for unit in finding.units if unit in units] for finding in diagnosis.findings]
    flagged = dict.fromkeys(unit for turn in zip_longest(*by_finding) for unit in turn if unit is not None)
    lively = sorted(units, key=lambda unit: -np.nan_to_num(units[unit].standard_deviation))
    return [units[unit] for unit in list(dict.fromkeys([*list(flagged)[:MOST_FLAGGED], *lively]))[:MOST_DRAWN]]


def columns_of(history: "ValueHistory", position: int, most: int) -> list[tuple[int, Array]]:
    """The kept values of a unit, as at most so many columns: the first step of each, and its finite values."""
    groups = np.array_split(np.arange(len(history.steps)), min(most, len(history.steps)))
    columns = []
    for group in groups:
        values = np.concatenate([history.steps[index][1][:, position].numpy() for index in group]).astype(float)
        columns.append((history.steps[group[0]][0], values[np.isfinite(values)]))
    return columns


def shares(values: Sequence[Array], bins: int = BINS) -> tuple[Array, Array]:
    """Shares `[bin, column]` of the values of each column, and the edges of the bins; NaN for a column without values.

    >>> shares([np.array([0.0, 0.0, 1.0, 2.0]), np.array([2.0])], 2)[0].tolist()
    [[0.5, 0.0], [0.5, 1.0]]
    """
    edges = np.histogram_bin_edges(np.concatenate(values), bins)
    counts = np.stack([np.histogram(column, edges)[0] for column in values], 1).astype(float)
    rows = np.array([len(column) for column in values], float)
    return np.divide(counts, rows, out=np.full(counts.shape, np.nan), where=rows > 0), edges


def draw_values(axes: "Axes", steps: Sequence[int], values: Sequence[Array]) -> "Axes":
    """Draw the share of values per bin and column."""
    import seaborn
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import MaxNLocator

    parts, edges = shares(values)
    seaborn.heatmap(
        parts,
        ax=axes,
        cmap="cividis",
        vmin=0,
        vmax=1,
        norm=PowerNorm(GAMMA, 0, 1),
        cbar=False,
        xticklabels=False,
        yticklabels=False,
        rasterized=True,
    )
    axes.invert_yaxis()
    low, high = edges[0], edges[-1]
    ticks = [tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high]
    axes.set_yticks([(tick - low) / (high - low) * len(parts) for tick in ticks], [f"{tick:.4g}" for tick in ticks])
    columns = np.unique(np.linspace(0, len(steps) - 1, 4).round().astype(int))
    axes.set_xticks(columns + 0.5, [str(steps[column]) for column in columns], rotation=0)
    axes.tick_params(length=0, pad=5, labelleft=True, labelbottom=True)
    return axes


def _draw_scale(panels: "Sequence[Axes]") -> None:
    """Draw the scale of the colors beside the first row of panels."""
    figure, corner = panels[0].get_figure(root=True), panels[min(len(panels), 2) - 1].get_position()
    assert figure is not None
    pixel = 1 / (figure.get_size_inches()[0] * POINT)
    scale = figure.add_axes((corner.x1 + 18 * pixel, corner.y0, 10 * pixel, corner.height))
    bar = figure.colorbar(panels[0].collections[0], cax=scale, ticks=BAR_TICKS)
    scale.set_yticklabels([f"{share:.0%}" for share in BAR_TICKS])
    scale.set_ylabel("share of values")
    scale.tick_params(length=0)
    bar.outline.set_visible(False)


def _claim(units: "Sequence[UnitDiagnosis]") -> str:
    varying = sum(unit_kind(unit.verdict) != "constant" for unit in units)
    return f"Values over the training: {varying} of {plural(len(units), 'unit')} shown vary at the end"


def _change(unit: "UnitDiagnosis", columns: Sequence[tuple[int, Array]]) -> str:
    finite = [(step, values) for step, values in columns if len(values)]
    if not finite:
        return f"Unit {unit.index}, {humanize(unit.verdict)}: no finite value."
    (first, before), (last, after) = finite[0], finite[-1]
    spans = [
        f"{number(float(values.min()))} to {number(float(values.max()))} at step {step}"
        for step, values in ((first, before), (last, after))
    ]
    return f"Unit {unit.index}, {humanize(unit.verdict)}: {', '.join(spans)}."


def _note(drawn: int, history: "ValueHistory") -> str:
    total, sample, steps = history.total, len(history.units), len(history.steps)
    chosen = f"{drawn} of {plural(total, 'unit')} are drawn: those with findings first, then those that vary most."
    sampled = f"Values are kept of {sample} units, evenly spaced."
    thinned = f"One in {history.distance} observed steps is kept."
    pooled, rows = -(-steps // MOST_COLUMNS), max(len(values) for _, values in history.steps)
    column = f"A column has the values of {'one step' if pooled == 1 else f'up to {pooled} steps'}, at most {plural(rows, 'row')} of each;"
    sentences = (
        *([chosen] if drawn < total else []),
        *([sampled] if sample < total else []),
        *([thinned] if history.distance > 1 else []),
        f"{column} its color is the share of them in a bin. Each unit has its own scale of values.",
    )
    return " ".join(sentences)


def _table(units: "Sequence[UnitDiagnosis]", history: "ValueHistory", positions: dict[int, int]) -> Table:
    rows = []
    for unit in units:
        for step, values in columns_of(history, positions[unit.index], MOST_TABLE_COLUMNS):
            cuts = np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)
            rows.append([f"{unit.index}", str(step), str(len(values)), *(number(float(cut)) for cut in cuts)])
    return Table(["unit", "from step", "values", "least", "5 %", "median", "95 %", "most"], rows)
