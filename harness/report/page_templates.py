"""Rendering of the templates. Everything is escaped except figures drawn by this package."""

import re
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.report.format import humanize
from harness.report.style import EVERY_LOOK, verdict_style
from harness.report.summary_tables import SeedMark

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def page(template: str, values: dict[str, Any]) -> str:
    """Render a page of HTML, escaped, with its style."""
    return _environment(True).get_template(template).render(**visible(values), style=style())


def markdown(template: str, values: dict[str, Any]) -> str:
    """Render a Markdown document; names go through the filter `md`."""
    return _environment(False).get_template(template).render(**visible(values)).rstrip() + "\n"


def visible(value: Any) -> Any:
    """Replace control characters and marks that change the direction of text.

    >>> visible({"name": "good\\u202edab"})
    {'name': 'good�dab'}
    """
    if isinstance(value, str):
        plain = value.isascii() and value.isprintable()
        return value if plain else CONTROL.sub("�", DIRECTIONS.sub("�", value))
    if isinstance(value, dict):
        return {visible(name): visible(item) for name, item in value.items()}
    return [visible(item) for item in value] if isinstance(value, list | tuple) else _fields(value)


def markdown_text(text: object) -> str:
    """Escape a text for one line or one table cell of Markdown.

    >>> markdown_text("kl_of|<b>")
    'kl\\\\_of\\\\|&lt;b>'
    """
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", line)


def style() -> str:
    """Style sheet of every page, with the colors of the verdicts."""
    colours = "\n".join(f".v-{css_name(name)} {{ color: {look.colour}; }}" for name, look in EVERY_LOOK.items())
    return (TEMPLATES / "style.css").read_text(encoding="utf-8") + colours


def css_name(verdict: str) -> str:
    """Suffix of the CSS class of a verdict.

    >>> css_name("full_collapse"), css_name('"><b>')
    ('full-collapse', 'not-testable')
    """
    return verdict.replace("_", "-") if verdict in EVERY_LOOK else "not-testable"


def runs(marks: Sequence[SeedMark]) -> list[dict[str, str]]:
    """Join neighboring seeds of the same verdict, which makes the markup a hundred times shorter."""
    return [
        {"verdict": verdict, "glyphs": "".join(mark.glyph for mark in alike)}
        for verdict, alike in groupby(marks, key=lambda mark: mark.verdict)
    ]


def _fields(value: Any) -> Any:
    """A dataclass with visible texts; any other value unchanged."""
    from dataclasses import replace

    cls: type = type(value)
    before = {name: getattr(value, name) for name in _names(cls)}
    after = {name: visible(text) for name, text in before.items()}
    return value if after == before else replace(value, **after)


@cache
def _names(cls: type) -> tuple[str, ...]:
    """Names of the fields of a dataclass; empty for any other type."""
    from dataclasses import fields, is_dataclass

    return tuple(attribute.name for attribute in fields(cls)) if is_dataclass(cls) else ()


@cache
def _environment(escaping: bool) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=escaping, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters.update(look=verdict_style, css=css_name, words=humanize, runs=runs, md=markdown_text)
    return environment
