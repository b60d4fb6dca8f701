"""Page of one diagnosis, with the findings of an audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.diagnosis.field_measures import field_line
from harness.diagnosis.render import MOST_UNITS
from harness.report.answer_lines import AnswerLine
from harness.report.figure_bars import draw_units
from harness.report.figure_layer import claim, layer_picture
from harness.report.figure_values import value_maps
from harness.report.format import bounds, humanize, number
from harness.report.layer_tables import measure_quantiles, named, verdict_counts
from harness.report.page_templates import page
from harness.report.svg import Table
from harness.results import write_atomic, write_json

if TYPE_CHECKING:
    from harness.auditing import Audit
    from harness.diagnosis import Diagnosis
    from harness.watching.value_history import ValueHistory


def write_diagnosis_report(
    diagnosis: "Diagnosis", audit: "Audit | None", folder: Path, values_over_time: "ValueHistory | None" = None
) -> Path:
    """Write report.html and report.json for one layer and return the path of report.html."""
    from harness.diagnosis.thresholds import threshold_table

    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        [
            humanize(threshold["name"]),
            number(float(threshold["value"])),
            str(threshold["meaning"]),
            str(threshold["source"]),
        ]
        for threshold in threshold_table(diagnosis.thresholds)
    ]
    values: dict[str, Any] = {
        "title": f"Diagnosis: {claim(diagnosis)}",
        "answer": layer_answer(diagnosis),
        "findings": [{**finding.to_dict(), "units": named(finding.units)} for finding in diagnosis.findings],
        "units": layer_picture(diagnosis),
        "over_time": None if values_over_time is None else value_maps(diagnosis, values_over_time),
        "counts": verdict_counts(diagnosis),
        "quantiles": measure_quantiles(diagnosis) if len(diagnosis.units) > MOST_UNITS else None,
        "audit": None if audit is None else [finding.to_dict() for finding in audit.findings],
        "rows": diagnosis.rows,
        "activation": diagnosis.activation,
        "thresholds": Table(["threshold", "value", "meaning", "source"], rows),
    }
    write_json(folder / "report.json", {"diagnosis": diagnosis.to_dict(), "audit": values["audit"]})
    path = folder / "report.html"
    write_atomic(path, page("diagnosis.html", values).encode())
    return path


def picture(diagnosis: "Diagnosis", path: Path) -> Path:
    """Write a picture of the units (.png, .svg or .pdf) and return its path.

    Raises:
        HarnessError: for an unsupported file type, or a folder that does not exist.
    """
    return draw_units(diagnosis, path)


def layer_answer(diagnosis: "Diagnosis") -> list[AnswerLine]:
    """Verdict, first thing to do, reconstruction, and the measures that papers report under their own names."""
    lines = [AnswerLine("Verdict", f"{claim(diagnosis)}.")]
    if diagnosis.flags:
        lines.append(AnswerLine("Also", f"{', '.join(map(humanize, diagnosis.flags))}."))
    if diagnosis.findings:
        first = diagnosis.findings[0]
        lines.append(AnswerLine("First thing to do", first.remedy or first.meaning))
    output = diagnosis.output
    if output is not None:
        text = f"{humanize(output.verdict)}, R2 {number(output.r2)} {bounds(*output.r2_interval)}"
        lines.append(AnswerLine("Reconstruction", text))
    if measures := field_line(diagnosis.measures, diagnosis.units):
        lines.append(AnswerLine("Published measures", f"{measures}."))
    return lines
