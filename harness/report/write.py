"""Files of a report, each written atomically."""

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.effects import Effects
from harness.report.figure_heatmap import heat_maps
from harness.report.groups import in_declared_order
from harness.report.page import content, counts
from harness.report.page_templates import markdown, page
from harness.report.threshold_table import swept_and_shown
from harness.results import StoredResults, write_atomic, write_json
from harness.results.frames import members_frame, unit_history_frame, units_frame
from harness.results.records import MemberRecord

if TYPE_CHECKING:
    from pandas import DataFrame


def write_report(results: StoredResults, effects: Effects, folder: Path) -> Path:
    """Write report.html, report.md, report.json, members.csv, units.parquet, and heat maps of the unit histories.

    Args:
        results: members and manifest. effects: their effects. folder: created if it does not exist.

    Returns:
        Path of report.html: one file, at most 2 MB for 1000 members, without scripts or external resources.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ordered = in_declared_order(results.records, results.manifest)
    swept, reduced = swept_and_shown(ordered)
    results = StoredResults(results.manifest, reduced, results.damaged)
    values = content(results, effects, swept)
    write_atomic(folder / "members.csv", spreadsheet(members_frame(results.records)).encode())
    write_atomic(folder / "units.parquet", _parquet(units_frame(results.records)))
    write_atomic(folder / "unit_history.parquet", _history_parquet(results.records))
    heat_maps(results, folder)
    write_json(folder / "report.json", document(results, effects, values))
    write_atomic(folder / "report.md", markdown("report.md", values).encode())
    path = folder / "report.html"
    write_atomic(path, page("report.html", values).encode())
    return path


def document(results: StoredResults, effects: Effects, values: Mapping[str, Any]) -> dict[str, Any]:
    """The report as plain JSON: answer, effects, interactions, contrasts, cells, and their basis."""
    from harness.diagnosis.thresholds import threshold_table

    manifest = results.manifest
    return plain_json(
        {
            **effects.to_dict(),
            "answer": values["answer_document"],
            "averaged": [f"{line.about}: {line.text}" for line in values["averaged"]],
            "explanation": values["explanation"],
            "counts": dict(counts(results.records)),
            "thresholds": threshold_table(),
            "audit": manifest.get("audit") or {},
            "experiment": manifest.get("experiment") or {},
            "versions": manifest.get("versions") or {},
            "commit": manifest.get("commit"),
            "command": manifest.get("command"),
            "inputs": manifest.get("inputs") or {},
            "name": manifest.get("name"),
        }
    )


def spreadsheet(frame: "DataFrame") -> str:
    """A frame as CSV; a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    guarded = frame.map(guard)
    guarded.columns = [guard(name) for name in frame.columns]
    return guarded.to_csv(index=False, lineterminator="\n")


def guard(value: Any) -> Any:
    """Escape a cell that a spreadsheet would run as a formula; numbers stay numbers.

    >>> guard("=1+1"), guard("-0.5"), guard(-0.5), guard("relu")
    ("'=1+1", '-0.5', -0.5, 'relu')
    """
    if not isinstance(value, str) or _is_number(value):
        return value
    text = re.sub(r"[\x00-\x1f\x7f]", " ", value)
    return f"'{text}" if text.lstrip(" \t\r\n\ufeff\u200e\u200f")[:1] in FORMULA else text


def plain_json(value: Any) -> Any:
    """A value as plain JSON; non-finite numbers become None.

    >>> plain_json({"p": float("nan"), "n": (1, 2)})
    {'p': None, 'n': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(name): plain_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else json.loads(json.dumps(value, default=str))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text) is not None


def _history_parquet(records: Sequence[MemberRecord]) -> bytes:
    """The table of all units at all snapshots, made in parts: of 20,000 members it has millions of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    measures = [*dict.fromkeys(name for record in records for name in record.unit_history)]
    recorded = [record for record in records if record.unit_history]
    if len(recorded) <= MEMBERS_AT_ONCE:
        return _parquet(unit_history_frame(records))
    buffer, writer = io.BytesIO(), None
    for start in range(0, len(recorded), MEMBERS_AT_ONCE):
        frame = unit_history_frame(recorded[start : start + MEMBERS_AT_ONCE])
        frame = frame.assign(**{measure: math.nan for measure in measures if measure not in frame})
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or pq.ParquetWriter(buffer, table.schema)
        writer.write_table(table.select(writer.schema.names).cast(writer.schema))
    assert writer is not None
    writer.close()
    return buffer.getvalue()


def _parquet(frame: "DataFrame") -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


MEMBERS_AT_ONCE = 1000  # in one part of a large table
FORMULA = ("=", "+", "-", "@", "|", "%", "＝", "＋", "－", "＠")
