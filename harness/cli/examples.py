"""`harness examples`: list the shipped experiments, and copy them."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.output import Json, print_json
from harness.errors import HarnessError


def examples(
    name: Annotated[
        str | None, typer.Argument(help="Name of an experiment to copy; without it, all are listed.")
    ] = None,
    to: Annotated[Path, typer.Option(help="Folder that gets the copy.")] = Path(),
    json: Json = False,
) -> None:
    """List the shipped experiments, or copy one, with the files beside it, to change it."""
    from harness.grid.shipped import companions, shipped_file, summaries

    if name is None:
        found_summaries = summaries()
        if json:
            print_json({"examples": found_summaries})
        else:
            width = max(map(len, found_summaries))
            typer.echo("\n".join(f"{example:<{width}}  {text}" for example, text in found_summaries.items()))
        return
    files = companions(shipped_file(name))
    for file in files:
        if (to / file.name).exists():
            raise HarnessError(f"{to / file.name}: exists already; give another folder with --to")
    to.mkdir(parents=True, exist_ok=True)
    copies = [Path(shutil.copyfile(file, to / file.name)) for file in files]
    if json:
        print_json({"copied": [str(copy) for copy in copies]})
    else:
        typer.echo(f"Copied {', '.join(map(str, copies))}. Run it: harness run {copies[0]}")
