"""Hook of mkdocs: the navigation is the index of docs/, and no public name is without its text."""

import re
from pathlib import Path
from typing import Any

import harness

DOCS = Path(__file__).parents[1]
RULES = "Verdicts and rules"
LINK = re.compile(r"^- \[(.+?)\]\(([\w/-]+\.md)\)", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Set the navigation, and stop the build for a public name without a docstring."""
    config.nav = navigation()
    if undocumented := missing_docstrings():
        raise SystemExit(f"public names without a docstring: {', '.join(undocumented)}")
    return config


def navigation() -> list[Any]:
    """Return one tab for each section of the index, in its order; the tab of the rules has all their pages."""
    index = (DOCS / "README.md").read_text()
    sections = re.split(r"^## (.+)$", index.split("\n[Changelog]")[0], flags=re.MULTILINE)[1:]
    entries: list[Any] = [{"Start": "README.md"}]
    for heading, text in zip(sections[::2], sections[1::2], strict=True):
        pages: list[Any] = [{title[0].upper() + title[1:]: page} for title, page in LINK.findall(text)]
        if heading == RULES:
            pages = ["rules/README.md", *rule_sections()]
        entries.append({heading: pages})
    return [*entries, {"Changelog": "changelog.md"}]


def rule_sections() -> list[Any]:
    """Return the pages on rules, by the sections of their index; a page that has two places is listed once."""
    parts = re.split(r"^## (.+)$", (DOCS / "rules" / "README.md").read_text(), flags=re.MULTILINE)[1:]
    listed: set[str] = set()
    sections = []
    for heading, text in zip(parts[::2], parts[1::2], strict=True):
        names = [name for name in re.findall(r"\(([\w]+)\.md\)", text) if name not in listed]
        listed |= set(names)
        sections.append({heading: [{name: f"rules/{name}.md"} for name in names]})
    return sections


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
