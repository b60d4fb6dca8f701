"""`harness diagnose FILE` or `CASE`: is this layer collapsed, which unit, and how."""

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.output import Json, stdout_to_stderr
from harness.errors import HarnessError, did_you_mean

if TYPE_CHECKING:
    from harness.diagnosis import Diagnosis

MATRICES = (".npy", ".npz", ".pt", ".pth", ".csv", ".parquet")


def diagnose(
    target: Annotated[
        str, typer.Argument(help="A case (name or .py), or activations (.npy .npz:name .pt .csv .parquet).")
    ],
    activation: Annotated[
        str | None, typer.Option(help="What the activations left: relu (default), sigmoid, ...")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="File of one class a row.")] = None,
    factors: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE, or a file of named columns; repeatable.")
    ] = None,
    inputs: Annotated[str | None, typer.Option(help="File of what the model was given.")] = None,
    reconstruction: Annotated[str | None, typer.Option(help="File of what it made of the inputs.")] = None,
    rho: Annotated[float | None, typer.Option("--target", help="The penalty's target activation.")] = None,
    dtype: Annotated[str | None, typer.Option(help="The model's precision, where a file holds another.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A case's state dict: judged as it is, not trained.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of a case's training.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="Write a PNG of the units.")] = None,
    json: Json = False,
) -> None:
    """Is this layer collapsed, which unit, and how. Exit code 0: healthy; 1: something was found; 2: bad request."""
    files: dict[str, Any] = {"activation": activation, "labels": labels, "factors": factors, "inputs": inputs}
    files |= {"reconstruction": reconstruction, "target": rho, "dtype": dtype}
    if is_matrix(target):
        _refuse(weights, "--weights", "a matrix of activations", "a case")
        found = _of_matrix(target, files)
        beside: dict[str, Any] = {}
    else:
        for name, value in files.items():
            _refuse(value, f"--{name}", "a case, which brings its own", "a matrix of activations")
        with stdout_to_stderr(json):
            found, beside = _of_case(target, weights, seed)
    if picture is not None:
        from harness.report.figure_bars import draw_units

        draw_units(found, picture)
    _show(found, beside, json)
    raise typer.Exit(0 if is_healthy(found) else 1)


def is_matrix(target: str) -> bool:
    """Whether the target names a file of activations (an archive may name its array after a colon).

    >>> is_matrix("codes.npz:layer3"), is_matrix("forum")
    (True, False)
    """
    return Path(target).suffix.lower().split(":")[0] in MATRICES


def is_healthy(found: "Diagnosis") -> bool:
    """Whether neither the layer nor its output gave anything to find."""
    return found.verdict == "healthy" and (found.output is None or found.output.verdict == "healthy")


def _refuse(value: object, option: str, given: str, wanted: str) -> None:
    if value is not None and value != []:
        raise HarnessError(f"{option}: goes with {wanted}; {given} was given")


def _of_matrix(target: str, options: dict[str, Any]) -> "Diagnosis":
    from harness.data import read_array
    from harness.diagnosis import diagnose as judge

    read: dict[str, Any] = {
        name: None if options[name] is None else read_array(options[name])
        for name in ("labels", "inputs", "reconstruction")
    }
    return judge(
        read_array(target),
        options["activation"] or "relu",
        factors=_factors(options["factors"]),
        target=options["target"],
        dtype=options["dtype"],
        **read,
    )


def _factors(given: list[str] | None) -> dict[str, Any] | None:
    """`NAME=FILE` or a file of named arrays or columns, each a factor."""
    from harness.data import read_array

    if not given:
        return None
    found: dict[str, Any] = {}
    for each in given:
        name, equals, file = each.partition("=")
        found |= {name: read_array(file)} if equals else _named(each)
    return found


def _named(file: str) -> dict[str, Any]:
    from harness.data.readers import array_names, read_array

    kind = Path(file).suffix.lower()
    if kind == ".npz":
        return {name: read_array(f"{file}:{name}") for name in array_names(file)}
    if kind not in (".csv", ".parquet"):
        raise HarnessError(f"--factors: {file} has no names; write NAME={file}, or give an .npz, .csv or .parquet")
    columns, names = read_array(file), _column_names(Path(file))
    if columns.ndim != 2 or len(names) < columns.shape[1]:
        raise HarnessError(f"--factors: {file}: a name for each column is wanted in its first line")
    # a column saved with its index has no name of its own: the reader leaves it out, as here
    return {name: _as_classes(columns[:, i]) for i, name in enumerate(names[-columns.shape[1] :])}


def _column_names(file: Path) -> list[str]:
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(file).names)
    with file.open(encoding="utf-8-sig") as lines:
        first = lines.readline().strip()
    separator = max(",;\t", key=first.count)
    return [cell.strip().strip('"') for cell in first.split(separator)]


def _as_classes(column: Any) -> Any:
    """Whole numbers in a table of mixed columns are classes again, where few enough to be that."""
    whole = bool((column == column.round()).all())
    return column.long() if whole and 2 * len(column.unique()) <= len(column) else column


def _of_case(target: str, weights: Path | None, seed: int) -> "tuple[Diagnosis, dict[str, Any]]":
    from harness.case import load_case

    suffix = Path(target).suffix
    if suffix not in ("", ".py"):
        raise HarnessError(f"{target}: {did_you_mean('kind of file', suffix, (*MATRICES, '.py'))}")
    case = load_case(target)
    from harness.auditing import audit

    # before the file is run anew to be trained: what processes of its own are sent must be of the latest run
    beside = {"case": case.name, "seed": seed, "audit": audit(case)}
    found = _trained(target, seed) if weights is None else _loaded(case, weights, seed)
    return found, {**beside, "no_r2": _no_r2(load_case(target))} if found.output is None else beside


def _no_r2(case: Any) -> str:
    from harness.data import split_of
    from harness.loss_terms import bind_losses
    from harness.remedies.layout import inspect_model

    train = split_of(case).train
    return inspect_model(bind_losses(case, train.targets), train.inputs[:4]).no_r2


def _trained(target: str, seed: int) -> "Diagnosis":
    """The case, trained as it trains itself."""
    from harness.diagnosis import Diagnosis
    from harness.execution.run_stack import run_stack
    from harness.execution.spec import StackMember, StackSpec

    member = StackMember(key="diagnose", variant="as it is", levels={}, seed=seed)
    (record,) = run_stack(StackSpec(case=target, data=None, members=(member,), first_seed=seed))
    if record.status == "failed":
        raise HarnessError(f"{target}: it could not be trained: {record.error}")
    return Diagnosis.from_dict(record.diagnosis)


def _loaded(case: Any, weights: Path, seed: int) -> "Diagnosis":
    """The case with given weights, judged as it is."""
    from harness.data import split_of
    from harness.execution.member_record import judge_members
    from harness.training.sequential import SequentialEngine
    from harness.user_code import guarded

    split = split_of(case)
    with guarded():
        engine = SequentialEngine([case], [seed], split.train.inputs)
        _load(engine.members[0].model, weights)
        return judge_members(engine, [case], split).diagnoses[0]


def _load(model: Any, weights: Path) -> None:
    import torch

    if not weights.is_file():
        raise HarnessError(f"{weights}: no such file")
    try:
        if weights.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(weights)
        else:
            # pickles can run code when loaded: tensors only
            state = torch.load(weights, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except Exception as error:
        reason = " ".join(str(error).split()).partition(". ")[0][:300] or type(error).__name__
        raise HarnessError(f"{weights}: no state dict of this case's model: {reason}") from error


def _show(found: "Diagnosis", beside: dict[str, Any], as_json: bool) -> None:
    if as_json:
        extra = {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in beside.items()}
        print(json_format.dumps({**found.to_dict(), **extra}, allow_nan=False))
        return
    from rich.console import Console

    from harness.cli.unit_bars import unit_bars

    console = Console(highlight=False)
    console.print(unit_bars(found))
    console.print(str(found), markup=False, soft_wrap=True)
    if "no_r2" in beside:
        console.print(f"\nR2 is not available: {beside['no_r2']}", markup=False, soft_wrap=True)
    if "audit" in beside:
        console.print("\naudit of its penalties", style="bold")
        console.print(str(beside["audit"]), markup=False, soft_wrap=True)
