"""Page of the command line, from the commands themselves."""

from pathlib import Path
from typing import Any

import typer.main

from harness.cli import EXAMPLES, _register, app

MADE = "<!-- made by `python docs/generate` from the commands -->\n"


def write_commands(docs: Path) -> None:
    """Write the page with every command, its arguments and its options."""
    (docs / "reference" / "commands.md").write_text(commands_text())


def commands_text() -> str:
    """Return the page in Markdown."""
    if not app.registered_commands:
        _register()
    group: Any = typer.main.get_command(app)
    parts = [MADE, "# Command line", INTRODUCTION]
    for name, command in group.commands.items():
        parts += [f"## `harness {name}`", plain(command.help), table(command)]
        parts += ["```\n" + "\n".join(EXAMPLES[name]) + "\n```"] if name in EXAMPLES else []
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """`harness COMMAND --help` prints the same. Exit codes, and what is continued, are on the page
[running](running.md)."""


def plain(text: str | None) -> str:
    """Return a docstring on one line a paragraph, without what only `--help` needs."""
    paragraphs = (text or "").replace("\b", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if "Examples:" not in paragraph)


def table(command: Any) -> str:
    """Return the arguments and options of a command as a table."""
    rows = ["| argument or option | meaning | default |", "|---|---|---|"]
    for parameter in command.params:
        names = " ".join([*parameter.opts, *parameter.secondary_opts])
        if "--help" in names:
            continue
        is_argument = parameter.param_type_name == "argument"
        shown = f"{parameter.name.upper()}" if is_argument else names
        default = (
            "" if parameter.default in (None, "", False) or callable(parameter.default) else str(parameter.default)
        )
        meaning = cell(getattr(parameter, "help", None) or "")
        rows.append(f"| `{shown}` | {meaning} | {'required' if parameter.required else cell(default)} |")
    return "\n".join(rows)


def cell(text: str) -> str:
    """Return a text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
