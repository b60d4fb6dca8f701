"""The page of one diagnosis, with what an audit found beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.diagnosis.render import MOST_UNITS
from harness.report.answer_lines import AnswerLine
from harness.report.figure_bars import draw_units
from harness.report.figure_layer import claim, layer_picture
from harness.report.format import bounds, humanize, number
from harness.report.layer_tables import measure_quantiles, named, verdict_counts
from harness.report.page_templates import page
from harness.report.svg import Table
from harness.results import write_atomic, write_json

if TYPE_CHECKING:
    from harness.auditing import Audit
    from harness.diagnosis import Diagnosis


def write_diagnosis_report(diagnosis: "Diagnosis", audit: "Audit | None", folder: Path) -> Path:
    """Write report.html and report.json for one layer; the path of report.html."""
    from harness.diagnosis.thresholds import threshold_table

    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        [humanize(each["name"]), number(float(each["value"])), str(each["meaning"]), str(each["source"])]
        for each in threshold_table(diagnosis.thresholds)
    ]
    values: dict[str, Any] = {
        "title": f"Diagnosis: {claim(diagnosis)}",
        "answer": layer_answer(diagnosis),
        "findings": [{**each.to_dict(), "units": named(each.units)} for each in diagnosis.findings],
        "units": layer_picture(diagnosis),
        "counts": verdict_counts(diagnosis),
        "quantiles": measure_quantiles(diagnosis) if len(diagnosis.units) > MOST_UNITS else None,
        "audit": None if audit is None else [each.to_dict() for each in audit.findings],
        "rows": diagnosis.rows,
        "activation": diagnosis.activation,
        "thresholds": Table(["threshold", "value", "meaning", "source"], rows),
    }
    write_json(folder / "report.json", {"diagnosis": diagnosis.to_dict(), "audit": values["audit"]})
    path = folder / "report.html"
    write_atomic(path, page("diagnosis.html", values).encode())
    return path


def picture(diagnosis: "Diagnosis", path: Path) -> Path:
    """Write a picture of the units (.png, .svg or .pdf); its path.

    Raises:
        HarnessError: for another kind of file, or a folder that is not there.
    """
    return draw_units(diagnosis, path)


def layer_answer(diagnosis: "Diagnosis") -> list[AnswerLine]:
    """Verdict, first thing to do, reconstruction."""
    found = [AnswerLine("Verdict", f"{claim(diagnosis)}.")]
    if diagnosis.flags:
        found.append(AnswerLine("Also", f"{', '.join(map(humanize, diagnosis.flags))}."))
    if diagnosis.findings:
        first = diagnosis.findings[0]
        found.append(AnswerLine("First thing to do", first.remedy or first.meaning))
    output = diagnosis.output
    if output is not None:
        text = f"{humanize(output.verdict)}, R2 {number(output.r2)} {bounds(*output.r2_interval)}"
        found.append(AnswerLine("Reconstruction", text))
    return found
