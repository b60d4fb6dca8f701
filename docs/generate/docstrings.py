"""Extension of griffe: docstrings as the site shows them.

Examples become blocks of code, also without a heading above them. Arguments that share a line get a line each.
"""

import re
from typing import Any

from griffe import Extension

SHARED_LINE = re.compile(r"^( +)(\w+(?:, \w+)+):(?= )", re.MULTILINE)


class ReadableDocstrings(Extension):
    """Put a fence around each example, and list every argument."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of an object that has one."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(one_per_line(obj.docstring.value))


def one_per_line(text: str) -> str:
    """Return a docstring with a line of its own for each argument that shares one.

    >>> one_per_line("Args:\\n    low, high: bounds.")
    'Args:\\n    low: see `high`.\\n    high: bounds.'
    """

    def split(match: re.Match[str]) -> str:
        indent, names = match[1], match[2].split(", ")
        return "".join(f"{indent}{name}: see `{names[-1]}`.\n" for name in names[:-1]) + f"{indent}{names[-1]}:"

    return SHARED_LINE.sub(split, text) if "Args:" in text else text


def fenced(text: str) -> str:
    """Return a docstring with fences around its examples.

    >>> fenced("Sum.\\n\\n>>> 1 + 1\\n2\\n\\nSource: none.").splitlines()
    ['Sum.', '', '```pycon', '>>> 1 + 1', '2', '```', '', 'Source: none.']
    """
    lines: list[str] = []
    inside = False
    for line in [*text.splitlines(), ""]:
        if not inside and line.lstrip().startswith(">>>"):
            lines.append("```pycon")
            inside = True
        elif inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join(lines[:-1] if lines[-1] == "" else lines)
