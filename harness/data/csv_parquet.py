"""Matrices from tables: `.csv` and `.parquet`, a unit a column and a sample a row."""

from pathlib import Path
from typing import Any

from harness.errors import HarnessError


def read_csv(file: Path, name: str | None) -> Any:
    """The numbers of a `.csv`, `[row, column]`, whatever separates them, with or without a header or an index.

    Raises:
        HarnessError: when there are none, or a column holds something else.
    """
    import pandas

    with file.open(encoding="utf-8-sig") as lines:
        first, second = lines.readline(), lines.readline()
    separator = max(",;\t", key=first.count) if any(mark in first for mark in ",;\t") else ","
    cells = [cell.strip().strip('"') for cell in first.split(separator)]
    numbered = _numbered(cells, [cell.strip() for cell in second.split(separator)])
    header = None if not numbered and all(_is_number(cell) for cell in cells) else 0
    try:
        frame = pandas.read_csv(file, sep=separator, header=header, encoding="utf-8-sig")
    except pandas.errors.EmptyDataError as error:
        raise HarnessError(NOTHING) from error
    # a frame saved with its index has a first column without a name: it numbers the rows and is no unit
    unnamed = header == 0 and not first.split(separator)[0].strip().strip('"')
    return _columns(frame.iloc[:, 1:] if unnamed else frame)


def _numbered(first: list[str], second: list[str]) -> bool:
    """Whether a first line of numbers is a header: 0, 1, 2, ... as a frame without names writes it, above fractions.

    >>> _numbered(["", "0", "1"], ["0", "0.5", "0.1"]), _numbered(["0", "1"], ["1", "0"])
    (True, False)
    """
    names = first[1:] if first[0] == "" else first
    above = first[0] == "" or any(not cell.lstrip("-").isdigit() for cell in second)
    return len(names) > 0 and names == [str(place) for place in range(len(names))] and above


def read_parquet(file: Path, name: str | None) -> Any:
    """The numbers of a `.parquet`, `[row, column]`.

    Raises:
        HarnessError: when there are none, or a column holds something else.
    """
    import pyarrow.parquet

    return _columns(pyarrow.parquet.read_table(file).to_pandas())


def _columns(frame: Any) -> Any:
    if frame.empty:
        raise HarnessError(NOTHING)
    words = [str(column) for column, kind in frame.dtypes.items() if getattr(kind, "kind", "O") not in "fiub"]
    if words:
        shown = ", ".join(" ".join(word.split())[:60] for word in words[:5])  # a stray quote makes a name of many lines
        raise HarnessError(f"numbers are wanted, and these columns hold something else: {shown}; leave them out")
    return frame.to_numpy()


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().strip('"') or "nan")
    except ValueError:
        return False
    return True


NOTHING = "holds no rows of numbers"
