"""From values to text: the one place where templates are read. Everything is escaped but what this package drew."""

import re
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.report.format import humanize
from harness.report.style import LOOKS, verdict_style
from harness.report.summary_tables import SeedMark

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def page(template: str, values: dict[str, Any]) -> str:
    """A page of HTML, escaped, with the style inside it."""
    return _environment(True).get_template(template).render(**visible(values), style=style())


def markdown(template: str, values: dict[str, Any]) -> str:
    """A Markdown document; what comes from names goes through the filter `md`."""
    return _environment(False).get_template(template).render(**visible(values)).rstrip() + "\n"


def visible(value: Any) -> Any:
    """Texts without marks that turn the direction of what follows, and without control characters.

    >>> visible({"name": "good\\u202edab"})
    {'name': 'good�dab'}
    """
    if isinstance(value, str):
        plain = value.isascii() and value.isprintable()
        return value if plain else CONTROL.sub("�", DIRECTIONS.sub("�", value))
    if isinstance(value, dict):
        return {visible(name): visible(each) for name, each in value.items()}
    return [visible(each) for each in value] if isinstance(value, list | tuple) else _fields(value)


def markdown_text(text: object) -> str:
    """A text that Markdown shows as it stands, within one line and one cell.

    >>> markdown_text("kl_of|<b>")
    'kl\\\\_of\\\\|&lt;b>'
    """
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line)


def style() -> str:
    """The style of every page, with the colours of the verdicts."""
    colours = "\n".join(f".v-{css_name(name)} {{ color: {each.colour}; }}" for name, each in LOOKS.items())
    return (TEMPLATES / "style.css").read_text(encoding="utf-8") + colours


def css_name(verdict: str) -> str:
    """A verdict as the end of a class name.

    >>> css_name("full_collapse"), css_name('"><b>')
    ('full-collapse', 'not-testable')
    """
    return verdict.replace("_", "-") if verdict in LOOKS else "not-testable"


def runs(marks: Sequence[SeedMark]) -> list[dict[str, str]]:
    """Neighbouring seeds of one verdict, together: a hundredth of the markup."""
    return [
        {"verdict": verdict, "glyphs": "".join(each.glyph for each in alike)}
        for verdict, alike in groupby(marks, key=lambda mark: mark.verdict)
    ]


def _fields(value: Any) -> Any:
    """A dataclass with its texts made visible; anything else, and what has nothing to hide, as it is."""
    from dataclasses import replace

    kind: type = type(value)
    before = {name: getattr(value, name) for name in _names(kind)}
    seen = {name: visible(each) for name, each in before.items()}
    return value if seen == before else replace(value, **seen)


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass; none of any other type."""
    from dataclasses import fields, is_dataclass

    return tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


@cache
def _environment(escaping: bool) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=escaping, undefined=StrictUndefined, keep_trailing_newline=True
    )
    made.filters.update(look=verdict_style, css=css_name, words=humanize, runs=runs, md=markdown_text)
    return made
