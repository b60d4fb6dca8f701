"""`harness audit CASE`: check the penalty's gradient, range, weight and location."""

from typing import Annotated

import typer

from harness.cli.output import Json, print_json, stdout_to_stderr
from harness.errors import HarnessError


def audit(
    case: Annotated[str, typer.Argument(help="A shipped case, or a .py file with a module-level `case`.")],
    json: Json = False,
    during: Annotated[
        bool,
        typer.Option(
            "--during/--no-during", help="Also train 300 steps and compare gradient norms at steps 50 and 300."
        ),
    ] = True,
    seeds: Annotated[int, typer.Option(min=1, help="Number of initializations.")] = 3,
) -> None:
    """Say what each loss term of a case can and cannot do. Exit code 0: no fault; 1: at least one fault; 2: bad request."""
    from harness.auditing import audit as judge
    from harness.case import load_case

    if case.endswith((".yaml", ".yml")):
        raise HarnessError(
            f"{case}: expected a case (a shipped name or a .py file), got an experiment; `harness plan` and "
            "`harness run` take it"
        )
    with stdout_to_stderr(json):
        result = judge(load_case(case), during, seeds)
    if json:
        print_json(result.to_dict())
    else:
        typer.echo(str(result))
    raise typer.Exit(1 if result.faults else 0)
