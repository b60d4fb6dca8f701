"""`harness init MODEL.py`: write a case file and an experiment file for a model file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.output import Json, print_json, stdout_to_stderr

if TYPE_CHECKING:
    from harness.scaffolding import Scaffold


def init(
    file: Annotated[Path, typer.Argument(help="A Python file with a torch model.")],
    model: Annotated[
        str | None, typer.Option(help="Class or function that builds the model, if there are several.")
    ] = None,
    bottleneck: Annotated[str | None, typer.Option(help="Name of the layer; the narrowest by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files of these names.")] = False,
    json: Json = False,
) -> None:
    """Write a case file and an experiment file beside a model file, which is imported and called once."""
    from harness.scaffolding import scaffold

    with stdout_to_stderr(json):
        written = scaffold(file, model, bottleneck, force)
    if json:
        print_json(
            {
                "case": str(written.case),
                "experiment": str(written.experiment),
                "bottleneck": written.facts.bottleneck,
                "placeholder": written.placeholder,
            }
        )
    else:
        typer.echo("\n".join(_lines(written)))


def _lines(written: "Scaffold") -> list[str]:
    facts = written.facts
    width = max(len(layer.name) for layer in facts.layers)
    lines = [f"{facts.factory} in {facts.path}: rows of shape {list(facts.rows.shape[1:])}; the bottleneck is marked"]
    for layer in facts.layers:
        mark = "*" if layer.name == facts.bottleneck else " "
        lines.append(
            f"{mark} {layer.name:<{width}}  {layer.kind}, {layer.values} values per row, activation {layer.activation}"
        )
    lines += [f"Wrote {written.case} and {written.experiment}."]
    if written.placeholder:
        lines += [f"The rows are random numbers: replace data() in {written.case} by your own."]
    return [
        *lines,
        f"Write the epochs, batch size and learning rate of your own loop into {written.case}. Next:",
        f"  harness audit {written.case}",
        f"  harness prescribe {written.case}",
        f"  harness run {written.experiment}",
    ]
