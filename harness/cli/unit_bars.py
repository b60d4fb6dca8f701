"""Table of units for the terminal, with bars of activation frequency and entropy."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from harness.diagnosis.render import equal_units, information, short_flags
from harness.diagnosis.verdicts import NOT_LIVE, UnitVerdict

if TYPE_CHECKING:
    from harness.diagnosis import Diagnosis, UnitDiagnosis

WIDTH = 8
MOST_BITS = 6.0


def unit_bars(diagnosis: "Diagnosis", bars: bool = True) -> Table:
    """One line per unit, equal units together; of a large layer the worst lines.

    The bar of the frequency runs from 0 to 1, that of the entropy from 0 to 6 bits.

    Args:
        diagnosis: of the layer.
        bars: False for a narrow terminal.
    """
    table = Table(header_style="bold", box=None)
    posterior = any(unit.informed_rows >= 0 for unit in diagnosis.units)
    informed = any(unit.references for unit in diagnosis.units)
    for column, present in (
        ("unit", True),
        ("", True),
        ("verdict", True),
        ("fires", True),
        ("", bars),
        ("mean", True),
        ("sd", True),
        ("bits", True),
        ("", bars),
        ("information", informed),
        ("KL (nats)", posterior),
    ):
        if present:
            table.add_column(
                column, no_wrap=column != "information", min_width=None if column == "information" else len(column)
            )
    table.add_column("flags", overflow="fold")
    for label, unit in equal_units(diagnosis):
        style = _style(unit)
        table.add_row(
            label,
            Text(MARKS[style], style),
            Text(str(unit.verdict), style),
            _short(unit.activation_frequency),
            *([bar(unit.activation_frequency)] if bars else []),
            _short(unit.mean),
            _short(unit.standard_deviation),
            "" if unit.entropy_bits != unit.entropy_bits else f"{unit.entropy_bits:.2f}",
            *([bar(unit.entropy_bits / MOST_BITS)] if bars else []),
            *([information(unit)] if informed else []),
            *([_short(unit.kl)] if posterior else []),
            Text(short_flags(unit.flags)),
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


def _short(value: float) -> str:
    return "" if value != value else f"{value:.3g}"


def _style(unit: "UnitDiagnosis") -> str:
    if unit.verdict in NOT_LIVE or unit.verdict == UnitVerdict.INVALID:
        return "red"
    return "green" if unit.verdict == UnitVerdict.ALIVE else "yellow"


EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
# marks beside the colors: a verdict is readable without color
MARKS = {"red": "×", "yellow": "~", "green": "+"}
