"""Hook of mkdocs: one entry of the navigation for every page on a rule, and no page of the API without its text."""

from pathlib import Path
from typing import Any

import harness

DOCS = Path(__file__).parents[1]


def on_config(config: Any) -> Any:
    """Add the pages on rules, in alphabetical order, below their index."""
    for entry in config.nav or []:
        if RULES in entry:
            entry[RULES] += [f"rules/{page.name}" for page in sorted((DOCS / "rules").glob("[a-z]*.md"))]
    if undocumented := missing_docstrings():
        raise SystemExit(f"public names without a docstring: {', '.join(undocumented)}")
    return config


def missing_docstrings() -> list[str]:
    """Return the public names of the package, and their public methods, that have no docstring."""
    missing = []
    for name in harness.__all__:
        value = getattr(harness, name)
        members = vars(value) if isinstance(value, type) else {}
        methods = {f"{name}.{key}": member for key, member in members.items() if key[0] != "_" and is_code(member)}
        missing += [key for key, member in {name: value, **methods}.items() if not has_text(member)]
    return missing


def is_code(member: Any) -> bool:
    """True for a function, a class method or a property."""
    return callable(member) or isinstance(member, property | classmethod | staticmethod)


def has_text(member: Any) -> bool:
    """True for a member with a docstring of its own; a plain value such as a version needs none."""
    return isinstance(member, str) or bool((getattr(member, "__doc__", None) or "").strip())


RULES = "Verdicts and rules"
