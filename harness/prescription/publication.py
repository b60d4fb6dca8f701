"""A prescription in the folder of reports and in the MLflow store: one parent run, and a summary run per remedy."""

from pathlib import Path

from harness.prescription.prescription import Prescription
from harness.results import report_folder, write_json


def publish(prescription: Prescription, root: Path | None = None, tracking_uri: str | None = None) -> Path:
    """Write the page and the JSON document, log the proof to MLflow, and return the path of the page.

    Args:
        prescription: of any case. Without a proof, nothing is logged.
        root: folder that contains `mlruns/`; None means the current one.
        tracking_uri: of the MLflow store; None means `mlruns/mlflow.db`, or MLFLOW_TRACKING_URI.

    Raises:
        HarnessError: if a file or the store cannot be written.
    """
    root = root or Path.cwd()
    name = f"prescribe {prescription.case}"
    folder = report_folder(name, root)
    page, document = prescription.report(folder / "prescription.html"), folder / "prescription.json"
    write_json(document, prescription.to_dict())
    if prescription.records:
        from harness.tracking import Tracker, store_uri

        Tracker(store_uri(tracking_uri, root), root).project(
            name,
            prescription.records,
            note=f"{prescription.headline}\n\n```\n{prescription}\n```",
            artifacts=[page, document],
            parameters={"headline": prescription.headline},
            seconds=prescription.seconds,
            baseline={},
        )
    return page
