"""Figures as inline SVG that takes its colors from the page, so that it is legible on a light and a dark page."""

import importlib
import io
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.report.style import INK, LINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINT = 72.0


@dataclass(frozen=True)
class Margins:
    """Space around and between the panels of a figure, in CSS pixels."""

    left: float = 58
    right: float = 12
    top: float = 24
    bottom: float = 42
    between: float = 16
    above: float = 30


def load_libraries() -> None:
    """Import the drawing libraries, which takes seconds, for example during training instead of after it."""
    import jinja2  # noqa: F401
    import seaborn  # noqa: F401
    from matplotlib.backends import backend_agg, backend_svg  # noqa: F401

    import harness.report.write  # noqa: F401


TITLE_HEIGHT = 1.0  # of the axes; without it matplotlib computes it from the extent of every text
RASTER_FROM = 1500
"""Number of marks or line points from which a panel is rasterized, to keep the page below 2 MB."""


@dataclass(frozen=True)
class Table:
    """Data of a figure as cells of formatted text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left_out: int = 0


@dataclass(frozen=True)
class RenderedFigure:
    """Figure of a page.

    Args:
        name: identifier. title: the claim. alt: text for readers who cannot see the figure.
        svg: inline markup; every text in it went through an XML writer.
        table: the data of the figure. note: a caption. wide: True where the figure needs the page's width.
    """

    name: str
    title: str
    alt: str
    svg: str
    table: Table
    note: str = ""
    keys: Sequence[str] = field(default=())
    wide: bool = False


def new_figure(**options: Any) -> "Figure":
    """Return a matplotlib figure.

    It looks at IPython, if that is loaded; so the import of another thread, such as that of MLflow, is awaited.
    """
    from matplotlib.figure import Figure

    if "IPython" in sys.modules:
        importlib.import_module("IPython")
    return Figure(**options)


def sheet(
    panel: tuple[float, float], count: int = 1, columns: int = 1, margins: "Margins | None" = None
) -> "tuple[Figure, list[Axes]]":
    """Make a figure with `count` panels of a size in CSS pixels, row by row, with tick labels only left and below.

    The margins are fixed: computing a layout from the texts takes longer than drawing.
    """
    from matplotlib import rc_context

    margins, rows = margins or Margins(), -(-count // columns)
    width = margins.left + columns * panel[0] + (columns - 1) * margins.between + margins.right
    height = margins.top + rows * panel[1] + (rows - 1) * margins.above + margins.bottom
    with rc_context(STYLE):
        figure = new_figure(figsize=(width / POINT, height / POINT), dpi=POINT)
        panels = [
            figure.add_axes(
                (
                    (margins.left + (index % columns) * (panel[0] + margins.between)) / width,
                    1 - (margins.top + (index // columns) * (panel[1] + margins.above) + panel[1]) / height,
                    panel[0] / width,
                    panel[1] / height,
                )
            )
            for index in range(count)
        ]
    for index, axes in enumerate(panels):
        plain(axes)
        axes.tick_params(labelleft=index % columns == 0, labelbottom=index + columns >= count)
    return figure, panels


def name_axes(figure: "Figure", below: str, beside: str) -> None:
    """Name the axes of all panels: one label below, one at the left."""
    width, height = figure.get_size_inches() * POINT
    figure.text(0.5, 5 / height, safe(below), ha="center", va="bottom")
    figure.text(3 / width, 0.5, safe(beside), ha="left", va="center", rotation=90)


def inline_svg(figure: "Figure", name: str, alt: str) -> str:
    """Markup of the figure: no fixed colors except those of the verdicts, no fonts, unique identifiers."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    settings: Any = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": name, "path.simplify": True}
    with rc_context(settings), any_script():
        figure.savefig(buffer, format="svg", dpi=2 * POINT, metadata=NO_METADATA)
    return _for_the_page(buffer.getvalue(), name, alt)


@contextmanager
def any_script() -> Iterator[None]:
    """Silence warnings about glyphs missing from a font, for names in any script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def plain(axes: "Axes") -> None:
    """Remove the spines, ticks and labels that are not needed."""
    axes.set_title("", y=TITLE_HEIGHT)
    axes.yaxis.set_label_coords(0, 0.5)  # no label, and matplotlib would compute its position from the texts
    axes.locator_params(nbins=4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def safe(text: object) -> str:
    """Escape a text for matplotlib: no mathematics between dollar signs, no control characters."""
    printable = "".join(character if character.isprintable() else " " for character in str(text))
    return printable.replace("$", r"\$")


def _for_the_page(svg: str, name: str, alt: str) -> str:
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(id="|href="#|url\(#)([A-Za-z])', rf"\g<1>{name}-\g<2>", svg)
    svg = re.sub(r"font: (?:\w+ )*([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = svg.replace(INK, "currentColor").replace(LINE, "var(--rule)")
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    size_attributes = f'viewBox="{size[0][9:-1]}" style="max-width:{float(size[1]) * 1.5:.0f}px"'
    head = f'<svg role="img" aria-label="{escape(alt)}" {size_attributes}>'
    body = re.sub(r"\n\s*", "\n", svg[svg.index(">") + 1 :])
    return head + body


NO_METADATA: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}

STYLE: Any = {
    "font.size": 11,
    "font.family": "sans-serif",
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.usetex": False,
}
