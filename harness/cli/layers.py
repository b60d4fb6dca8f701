"""`harness layers CASE` or `FILE.py:MODEL`: the layers of a model that can be judged."""

from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.output import Json, console, print_json, stdout_to_stderr
from harness.errors import HarnessError


def layers(
    target: Annotated[str, typer.Argument(help="A case (name or .py), or FILE.py:NAME of a model's class or factory.")],
    shape: Annotated[
        str | None, typer.Option(help="Shape of a row for FILE.py:NAME, such as 48 or 3,32,32; rows are random.")
    ] = None,
    json: Json = False,
) -> None:
    """List the layers that can be judged, with the activation that follows each. The file runs as Python code."""
    from harness.watching import layers as list_layers

    with stdout_to_stderr(json):
        model, rows = _model_of_file(target, shape) if _names_model(target) else _model_of_case(target, shape)
        infos = list_layers(model, rows)
    if json:
        print_json({"layers": [info.to_dict() for info in infos]})
        return
    from rich.table import Table

    table = Table("layer", "type", "activation in use", "code of a row", "units", "calls", "parameters", box=None)
    for info in infos:
        size = " x ".join(map(str, info.shape))
        activation = info.activation or ("not called" if not info.calls else "no value per row")
        table.add_row(
            info.name, info.type, activation, size, str(info.units or ""), str(info.calls), f"{info.parameters:,}"
        )
    console().print(table)


def _names_model(target: str) -> bool:
    return ".py:" in target


def _model_of_case(target: str, shape: str | None) -> tuple[Any, Any]:
    from harness.case import load_case
    from harness.data import split_of
    from harness.models import build_model

    if shape is not None:
        raise HarnessError(
            "--shape: expected together with FILE.py:NAME, got it with a case, which has rows of its own"
        )
    if target.endswith(".py"):
        from harness.cli.skeleton import refuse_script

        refuse_script(Path(target))
    case = load_case(target)
    rows = split_of(case).evaluation.inputs[:8]
    return build_model(case, 0, rows), rows


def _model_of_file(target: str, shape: str | None) -> tuple[Any, Any]:
    import torch
    from torch import nn

    from harness.case import run_file, set_seed
    from harness.user_code import failure, guarded

    file, _, name = target.rpartition(":")
    if shape is None:
        raise HarnessError(f"{target}: expected --shape, the shape of a row, such as --shape 48 or --shape 3,32,32")
    try:
        sizes = [int(size) for size in shape.replace("x", ",").split(",")]
    except ValueError:
        raise HarnessError(f"--shape: expected whole numbers such as 3,32,32, got {shape!r}") from None
    factory = getattr(run_file(Path(file)), name, None)
    if not callable(factory):
        raise HarnessError(f"{file}: expected a class or function {name!r}, got {factory!r}")
    set_seed(0)
    try:
        with guarded():
            model = factory()
    except Exception as error:
        raise HarnessError(f"{target}: building the model {failure(error)}; a factory takes no arguments") from error
    if not isinstance(model, nn.Module):
        raise HarnessError(f"{target}: expected an nn.Module, got a {type(model).__name__}")
    return model, torch.randn(8, *sizes)
