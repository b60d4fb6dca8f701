"""Picture file of one layer: verdict, activation frequency and entropy of each unit."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.diagnosis.render import shown
from harness.errors import HarnessError
from harness.report.style import verdict_style
from harness.report.svg import new_figure, safe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from harness.diagnosis import Diagnosis, UnitDiagnosis

CONSTANT_LOOK, LIVE_LOOK = "full_collapse", "healthy"
KINDS = (".png", ".svg", ".pdf")


def draw_units(diagnosis: "Diagnosis", path: Path) -> Path:
    """Write the picture of a diagnosis: one bar per unit, or the worst units of a large layer.

    Raises:
        HarnessError: for an unsupported file type, or a folder that does not exist.
    """
    if path.suffix.lower() not in KINDS:
        raise HarnessError(f"{path}: expected a file name that ends in one of {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise HarnessError(f"{path}: the folder {path.parent} does not exist; create it first")
    units = shown(diagnosis)
    figure = new_figure(figsize=(8, 1.4 + 0.28 * len(units)), dpi=150, layout="constrained")
    frequencies, entropies = figure.subplots(1, 2, sharey=True)
    draw_frequencies(frequencies, units)
    draw_entropies(entropies, units)
    live = f"{diagnosis.live_units} of {len(diagnosis.units)} units live, {diagnosis.rows} rows"
    figure.suptitle(safe(f"{diagnosis.verdict}: {live}"))
    figure.savefig(path)
    return path


def draw_frequencies(axes: "Axes", units: Sequence["UnitDiagnosis"]) -> "Axes":
    """Share of rows on which each unit fires, with its interval; nothing where the activation has no off state."""
    for row, unit in enumerate(units):
        style = verdict_style(LIVE_LOOK if unit.live else CONSTANT_LOOK)
        axes.barh(row, unit.activation_frequency, color=style.colour, hatch=None if unit.live else "//")
        axes.plot(unit.activation_frequency_interval, (row, row), color="black", linewidth=1)
    axes.set_yticks(range(len(units)), [f"{unit.index} {unit.verdict}" for unit in units])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of rows on which the unit fires")
    return axes


def draw_entropies(axes: "Axes", units: Sequence["UnitDiagnosis"]) -> "Axes":
    """Entropy of each unit at its resolution, with its interval."""
    for row, unit in enumerate(units):
        style = verdict_style(LIVE_LOOK if unit.live else CONSTANT_LOOK)
        axes.barh(row, unit.entropy_bits, color=style.colour, hatch=None if unit.live else "//")
        axes.plot(unit.entropy_bits_interval, (row, row), color="black", linewidth=1)
    axes.set_xlabel("entropy (bits)")
    return axes
