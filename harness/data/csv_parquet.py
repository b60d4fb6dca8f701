"""Matrices from tables: `.csv` and `.parquet`, one column per unit and one row per sample."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy

from harness.data.memory import check_fits
from harness.errors import HarnessError


def read_csv(file: Path, name: str | None) -> Any:
    """Return the numbers of a `.csv`, `[row, column]`, with or without a header or an index.

    The separator is a comma, a semicolon or a tab.

    Raises:
        HarnessError: for a file without numbers, or a column that is not numeric.
    """
    import pandas

    with file.open(encoding="utf-8-sig") as lines:
        first, second = lines.readline(), lines.readline()
    separator = max(",;\t", key=first.count) if any(mark in first for mark in ",;\t") else ","
    cells = [cell.strip().strip('"') for cell in first.split(separator)]
    numbered = _numbered(cells, [cell.strip() for cell in second.split(separator)])
    header = None if not numbered and all(_is_number(cell) for cell in cells) else 0
    if len(cells) > WIDE and cells[0]:
        with suppress(ValueError):  # empty cells and texts are left to pandas
            return numpy.loadtxt(
                file, delimiter=separator, skiprows=int(header is not None), ndmin=2, encoding="utf-8-sig"
            )
    try:
        frame = pandas.read_csv(file, sep=separator, header=header, encoding="utf-8-sig")
    except pandas.errors.EmptyDataError as error:
        raise HarnessError(NOTHING) from error
    # a frame saved with its index has a first column without a name, which numbers the rows
    unnamed = header == 0 and not first.split(separator)[0].strip().strip('"')
    return _columns(frame.iloc[:, 1:] if unnamed else frame)


def _numbered(first: list[str], second: list[str]) -> bool:
    """Return True for a first line of numbers that is a header: 0, 1, 2, ... above fractions, as pandas writes it.

    >>> _numbered(["", "0", "1"], ["0", "0.5", "0.1"]), _numbered(["0", "1"], ["1", "0"])
    (True, False)
    """
    names = first[1:] if first[0] == "" else first
    above = first[0] == "" or any(not cell.lstrip("-").isdigit() for cell in second)
    return len(names) > 0 and names == [str(column) for column in range(len(names))] and above


def read_parquet(file: Path, name: str | None) -> Any:
    """Return the numbers of a `.parquet`, `[row, column]`.

    Raises:
        HarnessError: for a file without numbers, or a column that is not numeric.
    """
    import pyarrow.parquet

    declared = pyarrow.parquet.read_metadata(file)
    check_fits(NUMBER * declared.num_rows * declared.num_columns)
    return _columns(pyarrow.parquet.read_table(file).to_pandas())


def _columns(frame: Any) -> Any:
    if frame.empty:
        raise HarnessError(NOTHING)
    columns = [str(column) for column, dtype in frame.dtypes.items() if getattr(dtype, "kind", "O") not in "fiub"]
    if columns:
        names = ", ".join(
            " ".join(name.split())[:60] for name in columns[:5]
        )  # a stray quote makes a name of many lines
        raise HarnessError(f"expected numbers, these columns hold something else: {names}; leave them out")
    return frame.to_numpy()


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().strip('"') or "nan")
    except ValueError:
        return False
    return True


NUMBER = 8  # bytes
WIDE = 2_000  # columns, from which on pandas takes longer for each column than for its numbers
NOTHING = "holds no rows of numbers"
