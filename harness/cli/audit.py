"""`harness audit CASE`: does this penalty do what its author thinks?"""

import json as json_format
from typing import Annotated

import typer

from harness.cli.output import Json, stdout_to_stderr


def audit(
    case: Annotated[str, typer.Argument(help="A shipped case, or a .py file with a module-level `case`.")],
    json: Json = False,
    during: Annotated[
        bool, typer.Option("--during/--no-during", help="Also weigh the terms after 50 and 300 training steps.")
    ] = True,
    seeds: Annotated[int, typer.Option(min=1, help="Initialisations to look at.")] = 3,
) -> None:
    """Probe a case's loss and model. Exit code 0: no fault; 1: any fault; 2: bad request."""
    from harness.auditing import audit as judge
    from harness.case import load_case

    with stdout_to_stderr(json):
        found = judge(load_case(case), during, seeds)
    typer.echo(json_format.dumps(found.to_dict(), indent=2) if json else str(found))
    raise typer.Exit(1 if found.faults else 0)
