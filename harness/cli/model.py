"""`harness model EXPERIMENT --member KEY`: write the weights of a trained member."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.output import Json, print_json, stdout_to_stderr
from harness.errors import HarnessError


def model(
    experiment: Annotated[str, typer.Argument(help="An experiment that was run: its YAML file or its name.")],
    member: Annotated[
        str, typer.Option(help="Key of the member in members.csv, the beginning of it, or 'VARIANT sSEED'.")
    ],
    output: Annotated[Path | None, typer.Option(help="File to write; by default KEY.safetensors.")] = None,
    json: Json = False,
) -> None:
    """Write the state dict of a trained member as safetensors; a member whose weights were not kept is trained again."""
    from harness.experiment.member_model import member_model

    with stdout_to_stderr(json):
        loaded = member_model(experiment, member)
        record = loaded.record
        target = output or Path(f"{record.key}.safetensors")
        try:
            shutil.copyfile(loaded.weights, target)
        except OSError as error:
            raise HarnessError(f"{target}: cannot be written: {error.strerror}; give another --output") from error
    shapes = {name: list(value.shape) for name, value in loaded.model.state_dict().items()}
    description = {
        "key": record.key,
        "variant": record.variant,
        "seed": record.seed,
        "verdict": record.verdict,
        "r2": record.r2,
        "trained": loaded.trained,
        "parameters": shapes,
        "file": str(target),
    }
    if json:
        print_json(description)
        return
    r2 = "" if record.r2 is None else f", R2 {record.r2:.2f}"
    typer.echo(f"{record.name}: {record.verdict or record.status}{r2}{'; trained again' if loaded.trained else ''}")
    for name, shape in shapes.items():
        typer.echo(f"  {name}  {shape}")
    typer.echo(f"Written to {target}: harness.run(...).model({record.key!r}) builds the model with these weights.")
    if any(name.startswith("model.") for name in shapes):
        typer.echo("Names behind `model.` are those of your own model; `inserted.` is what the remedy adds.")
