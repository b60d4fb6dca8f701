"""Changes of the user's source that an experiment's remedies make."""

from harness.case import Case
from harness.data.rows import Split
from harness.grid import Experiment
from harness.grid.factorial import changes
from harness.grid.names import cell_name
from harness.user_code import guarded

MOST = 64  # remedies; each inspects the model once


def remedy_lines(experiment: Experiment, case: Case, split: Split) -> list[dict[str, str]]:
    """Return `remedy` and `lines` of each remedy of the answer; a remedy that does not apply is left out."""
    from harness.source_changes import change_code

    cells = [changes(variant.levels, experiment.baseline) for variant in experiment.variants()]
    remedies = [cell for cell in cells if cell and (experiment.remedies or len(cell) == 1)][:MOST]
    entries: list[dict[str, str]] = []
    for remedy in remedies:
        try:
            with guarded():
                entries.append({"remedy": cell_name(remedy), "lines": change_code(case, remedy, split)})
        except Exception:  # the remedy does not apply, or the case's code raised; its members say why
            continue
    return entries
