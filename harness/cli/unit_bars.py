"""Bars of the units for the terminal: activation frequency, entropy and verdict."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from harness.diagnosis.render import shown
from harness.diagnosis.verdicts import CONSTANT, UNJUDGED, UnitVerdict

if TYPE_CHECKING:
    from harness.diagnosis import Diagnosis, UnitDiagnosis

WIDTH = 20
MOST_BITS = 6.0


def unit_bars(diagnosis: "Diagnosis") -> Table:
    """Tabulate units (the worst ones of a large layer), with bars of activation frequency and entropy."""
    table = Table(header_style="bold", box=None)
    for column in ("unit", "", "verdict", f"fires (0 to 1){' ' * (WIDTH - 14)}", f"entropy (0 to {MOST_BITS:g} bits)"):
        table.add_column(column)
    for unit in shown(diagnosis):
        style = _style(unit)
        table.add_row(
            str(unit.index),
            Text(MARKS[style], style),
            Text(str(unit.verdict), style),
            bar(unit.activation_frequency),
            bar(unit.entropy_bits / MOST_BITS),
        )
    return table


def bar(share: float, width: int = WIDTH) -> str:
    """Draw a share of the width as a bar, to an eighth of a character; empty for NaN.

    >>> bar(0.5, 4), bar(1.0, 4), bar(float("nan"), 4)
    ('██', '████', '')
    """
    if share != share:
        return ""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8]


def _style(unit: "UnitDiagnosis") -> str:
    if unit.verdict in CONSTANT or unit.verdict == UnitVerdict.INVALID:
        return "red"
    return "green" if unit.verdict == UnitVerdict.ALIVE and unit.verdict not in UNJUDGED else "yellow"


EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
# marks, since color alone is not readable by everybody
MARKS = {"red": "×", "yellow": "~", "green": "+"}
