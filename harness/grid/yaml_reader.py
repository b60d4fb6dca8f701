"""Read YAML 1.2 files into plain values; every error names the line.

Only mappings, lists and scalars are accepted. Anchors, aliases, tags and further documents are refused: an experiment
needs none of them, and they can make a small file expand or run code.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from harness.errors import HarnessError, well_formed

LARGEST = 64 * 1024  # bytes; the largest experiment of this repository has 2 KB
DEEPEST = 8  # levels of nesting; an experiment has 4


def read_document(path: Path) -> Any:
    """Read the document in a file: dicts, lists, str, int, float, bool and None.

    Raises:
        HarnessError: with file and line, if the file is missing, too large, not UTF-8, not YAML, nested too deeply, or
            uses a feature of YAML that experiment files do not need.
    """
    return parse(_text(path), str(path))


def parse(text: str, name: str) -> Any:
    """Parse the document in a text; every error message begins with `name`.

    >>> parse("rate: 1e-3\\nbatchnorm: [off, on]", "e.yaml")
    {'rate': 0.001, 'batchnorm': ['off', 'on']}

    Raises:
        HarnessError: with file and line.
    """
    reading = _Reading(_events(text, name), name)
    reading.advance()  # the start of the stream
    if isinstance(reading.event, StreamEndEvent):
        raise HarnessError(f"{name}: the file is empty; an experiment has name, case, factors and seeds")
    reading.advance()  # the start of the document
    content = reading.node(0)
    reading.advance()  # its end
    if not isinstance(reading.event, StreamEndEvent):
        raise reading.complaint("a second document begins; an experiment file holds one")
    return content


class _Reading:
    """Parser state: the events of one file, read once."""

    def __init__(self, events: Iterator[Event], name: str) -> None:
        self.events, self.name = events, name
        self.event = next(events)

    def advance(self) -> Event:
        """Return the current event and go on to the next."""
        event, self.event = self.event, next(self.events)
        return event

    def complaint(self, sentence: str) -> HarnessError:
        return HarnessError(f"{self.name}, line {_line(self.event)}: {sentence}")

    def node(self, depth: int) -> Any:
        self._check(depth)
        event = self.advance()
        if isinstance(event, MappingStartEvent):
            return self._mapping(depth + 1)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(depth + 1)
        self._check_text(event)
        plain = event.style is None and not event.tag
        return _scalar(event.value) if plain else event.value

    def _check(self, depth: int) -> None:
        if isinstance(self.event, AliasEvent) or getattr(self.event, "anchor", None) is not None:
            raise self.complaint("anchors (&) and aliases (*) are not used in experiment files; write the value out")
        if getattr(self.event, "tag", None) is not None:
            raise self.complaint(f"tags (!) are not used in experiment files; got {self.event.tag}")
        if depth > DEEPEST:
            raise self.complaint(f"nested more than {DEEPEST} levels deep; an experiment has 4 at most")

    def _check_text(self, event: ScalarEvent) -> None:
        if well_formed(event.value) != event.value:
            text = ascii(event.value[:60])
            raise HarnessError(
                f"{self.name}, line {_line(event)}: expected text, got half of a surrogate pair in {text}"
            )

    def _sequence(self, depth: int) -> list[Any]:
        values: list[Any] = []
        while not isinstance(self.event, SequenceEndEvent):
            values.append(self.node(depth))
        self.advance()
        return values

    def _mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        while not isinstance(self.event, MappingEndEvent):
            self._check(depth - 1)
            if not isinstance(self.event, ScalarEvent):
                raise self.complaint("expected a string as a key, got a list or a mapping")
            self._check_text(self.event)
            key = str(self.event.value)
            if key in lines:
                raise self.complaint(f"the key {key[:60]!r} is written twice (first on line {lines[key]})")
            lines[key] = _line(self.event)
            self.advance()
            values[key] = self.node(depth)
        self.advance()
        return values


def _text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise HarnessError(f"{path}: cannot be read: {error.strerror}; expected an experiment file (.yaml)") from error
    if len(content) > LARGEST:
        raise HarnessError(f"{path}: expected at most {LARGEST // 1024} KB, got a larger file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise HarnessError(f"{path}, line {line}: not UTF-8 text (byte {content[error.start]:#04x})") from error


def _events(text: str, name: str) -> Iterator[Event]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position = getattr(error, "position", None)
        line = mark.line + 1 if mark else text[: position or 0].count("\n") + 1
        raise HarnessError(f"{name}, line {line}: {_problem(error, text, line)}") from error
    # for some broken texts the parser indexes past the end instead of raising a YAMLError
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError, AssertionError) as error:
        raise HarnessError(f"{name}, line 1: cannot be read as YAML ({type(error).__name__})") from error


def _problem(error: YAMLError, text: str, line: int) -> str:
    lines = text.splitlines()
    if line <= len(lines) and "\t" in lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]:
        return "expected spaces for indentation, got a tab"
    context = getattr(error, "context", None)
    problem = getattr(error, "problem", None) or "a character that YAML does not allow"
    return " ".join(f"{context + ': ' if context else ''}{problem}".split())[:200]


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _scalar(value: str) -> Any:
    """Resolve a plain scalar by YAML 1.2's core schema: `1e-3` is a number; `on`, `off`, `yes` and `no` are strings.

    ruamel's own resolver differs: it reads `-.5e3` as a string, `1_000` as a number and `2020-01-01` as a date.
    """
    if value in _WORDS:
        return _WORDS[value]
    if _INTEGER.fullmatch(value):
        return int(value)
    if _BASED.fullmatch(value):
        return int(value, 0)
    return float(value.replace(".inf", "inf").replace(".nan", "nan")) if _FLOAT.fullmatch(value.lower()) else value


_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | {
    word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}")
_BASED = re.compile(r"0x[0-9a-fA-F]{1,300}|0o[0-7]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)(e[-+]?[0-9]+)?|[-+]?\.inf|\.nan")
