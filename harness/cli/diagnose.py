"""`harness diagnose FILE` or `CASE`: diagnose a layer from a file of activations, or train and diagnose a case."""

import json as json_format
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.checkpoints import load_weights
from harness.cli.output import Json, stdout_to_stderr
from harness.cli.output import console as console_of_output
from harness.cli.skeleton import refuse_script
from harness.errors import HarnessError, did_you_mean

if TYPE_CHECKING:
    from harness.diagnosis import Diagnosis
    from harness.remedies.layout import ModelLayout

MATRICES = (".npy", ".npz", ".pt", ".pth", ".safetensors", ".csv", ".parquet")
MOST_UNITS = 100_000  # in a JSON document: 1.2 kB each


def diagnose(
    target: Annotated[
        str,
        typer.Argument(help="A case (name or .py), or activations (.npy .npz:name .pt .safetensors .csv .parquet)."),
    ],
    activation: Annotated[
        str | None, typer.Option(help="Activation function of the layer: auto (default), relu, sigmoid, ...")
    ] = None,
    labels: Annotated[str | None, typer.Option(help="File with one class label per row.")] = None,
    factors: Annotated[
        list[str] | None, typer.Option(help="NAME=FILE with one value per row, or a file of named columns; repeatable.")
    ] = None,
    inputs: Annotated[str | None, typer.Option(help="File with the model's inputs, one row each.")] = None,
    reconstruction: Annotated[str | None, typer.Option(help="File with the reconstructions of --inputs.")] = None,
    output: Annotated[str | None, typer.Option(help="File with the model's outputs, of any shape.")] = None,
    posterior: Annotated[
        str | None, typer.Option(help="File with the log-variances of the posterior, shaped like the activations.")
    ] = None,
    rho: Annotated[float | None, typer.Option("--target", help="Target activation (rho) of the penalty.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Precision of the model (float32, ...), if the file has another.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights for the case, which is then not trained: a state dict or a checkpoint.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights and batches of a case.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="Write a figure of the units (.png, .svg, .pdf).")] = None,
    json: Json = False,
) -> None:
    """Say whether a layer has collapsed, which units, and how; a case is trained first. Exit code 0: healthy; 1: not; 2: bad request."""
    files: dict[str, Any] = {"activation": activation, "labels": labels, "factors": factors, "inputs": inputs}
    files |= {"reconstruction": reconstruction, "output": output, "posterior": posterior, "target": rho, "dtype": dtype}
    if is_matrix(target):
        _refuse(weights, "--weights", "a case", "a matrix of activations")
        diagnosis = _of_matrix(target, files)
        extra: dict[str, Any] = {}
    else:
        for name, value in files.items():
            _refuse(value, f"--{name}", "a matrix of activations", "a case, which has its own")
        with stdout_to_stderr(json):
            diagnosis, extra = _of_case(target, weights, seed)
    if picture is not None:
        from harness.report.figure_bars import draw_units

        draw_units(diagnosis, picture)
    _show(diagnosis, target, extra, json)
    raise typer.Exit(0 if is_healthy(diagnosis) else 1)


def is_matrix(target: str) -> bool:
    """True for a file of activations; the array of an archive is named after a colon.

    >>> is_matrix("codes.npz:layer3"), is_matrix("forum")
    (True, False)
    """
    return Path(target).suffix.lower().split(":")[0] in MATRICES


def is_healthy(diagnosis: "Diagnosis") -> bool:
    """True where layer and output are both healthy."""
    output = diagnosis.output
    return diagnosis.verdict == "healthy" and (output is None or output.verdict == "healthy")


def _refuse(value: object, option: str, expected: str, target: str) -> None:
    if value is not None and value != []:
        raise HarnessError(f"{option}: expected together with {expected}, got it with {target}; leave it out")


def _of_matrix(target: str, options: dict[str, Any]) -> "Diagnosis":
    from harness.data import read_array
    from harness.diagnosis import diagnose as judge

    read: dict[str, Any] = {
        name: None if options[name] is None else read_array(options[name])
        for name in ("labels", "inputs", "reconstruction", "output", "posterior")
    }
    return judge(
        read_array(target, keep_sparse=True),
        activation=options["activation"] or "auto",
        factors=_factors(options["factors"]),
        target=options["target"],
        dtype=options["dtype"],
        **read,
    )


def _factors(options: list[str] | None) -> dict[str, Any] | None:
    """Factors by name, from `NAME=FILE` or a file of named arrays or columns."""
    from harness.data import read_array

    if not options:
        return None
    factors: dict[str, Any] = {}
    for option in options:
        name, equals, file = option.partition("=")
        factors |= {name: read_array(file)} if equals else _named_columns(option)
    return factors


def _named_columns(file: str) -> dict[str, Any]:
    from harness.data.readers import array_names, read_array

    suffix = Path(file).suffix.lower()
    if suffix == ".npz":
        return {name: read_array(f"{file}:{name}") for name in array_names(file)}
    if suffix not in (".csv", ".parquet"):
        raise HarnessError(
            f"--factors: expected a file with names (.npz, .csv, .parquet), got {file}; write NAME={file}"
        )
    columns, names = read_array(file), _column_names(Path(file))
    if columns.ndim != 2 or len(names) < columns.shape[1]:
        raise HarnessError(f"--factors: {file}: expected a name for each column in the first line")
    # the reader leaves out the index column of a saved frame, which has no name
    return {name: _as_classes(columns[:, column]) for column, name in enumerate(names[-columns.shape[1] :])}


def _column_names(file: Path) -> list[str]:
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(file).names)
    with file.open(encoding="utf-8-sig") as lines:
        first = lines.readline().strip()
    separator = max(",;\t", key=first.count)
    return [cell.strip().strip('"') for cell in first.split(separator)]


def _as_classes(column: Any) -> Any:
    """Whole numbers of a mixed table as integers, if few enough to be classes."""
    integral = bool((column == column.round()).all())
    return column.long() if integral and 2 * len(column.unique()) <= len(column) else column


def _of_case(target: str, weights: Path | None, seed: int) -> "tuple[Diagnosis, dict[str, Any]]":
    from harness.case import NOT_AUDITED, load_case

    suffix = Path(target).suffix
    if suffix not in ("", ".py"):
        raise HarnessError(f"{target}: {did_you_mean('kind of file', suffix, (*MATRICES, '.py'))}")
    if suffix == ".py":
        refuse_script(Path(target))
    case = load_case(target)
    from harness.auditing import audit

    # audited before the file is executed again for training: worker processes need objects of the latest execution
    extra = {"case": case.name, "seed": seed} | _rows_judged(case, weights)
    extra |= {"audit": audit(case)} if case.has_losses else {"not_audited": NOT_AUDITED}
    diagnosis = _trained(target, seed) if weights is None else _loaded(case, weights, seed)
    layout = _layout(case)
    if layout.no_r2 and (diagnosis.output is None or diagnosis.output.r2 != diagnosis.output.r2):
        extra["no_r2"] = layout.no_r2
    if layout.form.positions > 1:
        extra["unit_axis"] = (
            f"a unit is one of the code's {layout.form.units} {'channels' if layout.form.units_first else 'features'}; each of"
            f" its {layout.form.positions} positions in a sample is a row"
        )
    elif 1 < layout.channels < layout.units:
        extra["unit_axis"] = f"a unit is one of the {layout.units} numbers of a row's code"
    return diagnosis, extra


def _layout(case: Any) -> "ModelLayout":
    from harness.data import split_of
    from harness.loss_terms import bind_losses
    from harness.remedies.layout import inspect_model

    train = split_of(case).train
    return inspect_model(bind_losses(case, train.targets), train.inputs)


def _trained(target: str, seed: int) -> "Diagnosis":
    """Diagnosis of the case after training with its own settings."""
    from harness.diagnosis import Diagnosis
    from harness.execution.run_stack import run_stack
    from harness.execution.spec import StackMember, StackSpec

    member = StackMember(key="diagnose", variant="as it is", levels={}, seed=seed)
    (record,) = run_stack(StackSpec(case=target, data=None, members=(member,), first_seed=seed))
    if record.status == "failed":
        raise HarnessError(f"{target}: training failed: {record.error}")
    return Diagnosis.from_dict(record.diagnosis)


def _loaded(case: Any, weights: Path, seed: int) -> "Diagnosis":
    """Diagnosis of the case with stored weights."""
    from harness.data import split_of
    from harness.execution.member_record import judge_members
    from harness.training.sequential import SequentialEngine
    from harness.user_code import guarded

    split = split_of(case)
    with guarded():
        engine = SequentialEngine([case], [seed], split.train.inputs)
        load_weights(engine.members[0].model, weights)
        return judge_members(engine, [case], split).diagnoses[0]


def _rows_judged(case: Any, weights: Path | None) -> dict[str, Any]:
    """Return the rows that the verdict rests on, and True where the weights may have been trained on them."""
    if case.evaluation is not None:
        return {"rows_judged": "the rows of Case.evaluation", "may_be_training_rows": False}
    rows = "a fixed fifth of the rows of Case.data"
    if weights is None:
        return {"rows_judged": f"{rows}, which training left out", "may_be_training_rows": False}
    return {"rows_judged": rows, "may_be_training_rows": True}


def _document(diagnosis: "Diagnosis", target: str) -> dict[str, Any]:
    """Return the diagnosis as plain values; the units of a very wide layer are a parquet file in the working directory."""
    if len(diagnosis.units) <= MOST_UNITS:
        return diagnosis.to_dict()
    file = Path(f"{Path(target).stem}.units.parquet").absolute()
    diagnosis.to_frame().to_parquet(file)
    print(f"{len(diagnosis.units)} units are in {file}, not in the JSON document", file=sys.stderr)
    return {**replace(diagnosis, units=()).to_dict(), "units_file": str(file)}


def _show(diagnosis: "Diagnosis", target: str, extra: dict[str, Any], as_json: bool) -> None:
    if as_json:
        values = {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in extra.items()}
        print(json_format.dumps({**_document(diagnosis, target), **values}, allow_nan=False))
        return
    from harness.cli.unit_bars import unit_bars
    from harness.diagnosis.render import counts, details, headline

    console = console_of_output(width=None)
    console.print("\n".join([headline(diagnosis), *counts(diagnosis), ""]), markup=False, soft_wrap=True)
    table = unit_bars(diagnosis)
    wide = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.print(table if wide <= console.width else unit_bars(diagnosis, bars=False))
    console.print("\n".join(details(diagnosis)), markup=False, soft_wrap=True)
    if "rows_judged" in extra:
        console.print(f"\njudged on {extra['rows_judged']}", markup=False, soft_wrap=True)
        if extra["may_be_training_rows"]:
            text = "warning: the weights may have been trained on these rows; declare held-out rows in Case.evaluation"
            console.print(text, markup=False, soft_wrap=True)
    if "unit_axis" in extra:
        console.print(f"\n{extra['unit_axis']}", markup=False, soft_wrap=True)
    if "no_r2" in extra:
        console.print(f"\nR2 is not available: {extra['no_r2']}", markup=False, soft_wrap=True)
    if "not_audited" in extra:
        console.print(f"\n{extra['not_audited']}", markup=False, soft_wrap=True)
    if "audit" in extra:
        console.print("\naudit of the penalties", style="bold")
        console.print(str(extra["audit"]), markup=False, soft_wrap=True)
