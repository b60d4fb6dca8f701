"""Table of units for the terminal, with bars of activation frequency and entropy."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.diagnosis.render import equal_units, information, short_flags
from harness.diagnosis.verdicts import NOT_LIVE, UnitVerdict

if TYPE_CHECKING:
    from harness.diagnosis import Diagnosis, UnitDiagnosis

WIDTH = 8
MOST_BITS = 6.0
LONGEST = 20  # characters of a word that stays whole: the names of flags, not those of all factors
UNLIMITED = 1000  # columns of a terminal that any table fits in


class Layout(NamedTuple):
    """Content of a table of units: `ranges` of unit numbers a line, and its columns less those left out."""

    ranges: int = 6
    without: tuple[str, ...] = ()


class UnitBars:
    """One line per unit, equal units together; of a large layer the worst lines.

    The bar of the frequency runs from 0 to 1, that of the entropy from 0 to 6 bits. A narrow terminal gets no bars, then
    fewer numbers of units, then fewer measures, so that no word is broken. Information and flags may fill several lines.

    Args:
        diagnosis: of the layer.
        bars: False to leave the bars out.
    """

    def __init__(self, diagnosis: "Diagnosis", bars: bool = True) -> None:
        self.diagnosis, self.layouts = diagnosis, LAYOUTS[0 if bars else 1 :]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Measure the table at its full width."""
        return Measurement.get(console, options, _table(self.diagnosis, self.layouts[0]))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the first table that fits."""
        for layout in self.layouts:
            table = _table(self.diagnosis, layout)
            wrapped = [(column, [str(cell) for cell in column.cells]) for column in table.columns if not column.no_wrap]
            for column, cells in wrapped:
                words = [word for text in (str(column.header), *cells) for word in text.split()]
                column.max_width = min(max(map(len, words)), LONGEST)
            spare = options.max_width - console.measure(table, options=options.update(max_width=UNLIMITED)).maximum
            if spare >= 0:
                break
        for column, cells in wrapped:
            narrow = column.max_width or 0
            column.max_width = max(narrow, min(max(map(len, cells)), narrow + spare))
            spare -= column.max_width - narrow
        yield table


def unit_bars(diagnosis: "Diagnosis", bars: bool = True) -> UnitBars:
    """Return the table of a layer's units; without bars for a narrow terminal."""
    return UnitBars(diagnosis, bars)


def _table(diagnosis: "Diagnosis", layout: Layout) -> Table:
    absent = set(layout.without)
    absent |= set() if any(unit.informed_rows >= 0 for unit in diagnosis.units) else {"KL (nats)"}
    absent |= set() if any(unit.references for unit in diagnosis.units) else {"information"}
    columns = {name: cell for name, cell in COLUMNS.items() if name not in absent}
    table = Table(header_style="bold", box=None)
    table.add_column("unit", no_wrap=True)
    for name in columns:
        header = "" if name in UNTITLED else name
        table.add_column(header, overflow="fold", no_wrap=name not in WRAPPED, min_width=len(header))
    for label, unit in equal_units(diagnosis, layout.ranges):
        table.add_row(label, *(cell(unit) for cell in columns.values()))
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


def _styled(text: Callable[["UnitDiagnosis"], str]) -> Callable[["UnitDiagnosis"], Text]:
    return lambda unit: Text(text(unit), _style(unit))


def _bits(unit: "UnitDiagnosis") -> str:
    return "" if unit.entropy_bits != unit.entropy_bits else f"{unit.entropy_bits:.2f}"


EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
# marks beside the colors: a verdict is readable without color
MARKS = {"red": "×", "yellow": "~", "green": "+"}
COLUMNS: dict[str, Callable[["UnitDiagnosis"], str | Text]] = {
    "mark": _styled(lambda unit: MARKS[_style(unit)]),
    "verdict": _styled(lambda unit: str(unit.verdict)),
    "fires": lambda unit: _short(unit.activation_frequency),
    "bar of fires": lambda unit: bar(unit.activation_frequency),
    "mean": lambda unit: _short(unit.mean),
    "sd": lambda unit: _short(unit.standard_deviation),
    "bits": _bits,
    "bar of bits": lambda unit: bar(unit.entropy_bits / MOST_BITS),
    "information": information,
    "KL (nats)": lambda unit: _short(unit.kl),
    "flags": lambda unit: Text(short_flags(unit.flags)),
}
BARS = ("bar of fires", "bar of bits")
WRAPPED = ("information", "flags")
UNTITLED = ("mark", *BARS)
LAYOUTS = (
    Layout(),
    Layout(without=BARS),
    Layout(2, BARS),
    Layout(1, BARS),
    Layout(1, (*BARS, "sd")),
    Layout(1, (*BARS, "sd", "bits")),
    Layout(1, (*BARS, "sd", "bits", "mean")),
    Layout(1, (*BARS, "sd", "bits", "mean", "information")),
    Layout(1, (*BARS, "sd", "bits", "mean", "information", "fires")),
)
