"""Lines of code of an experiment's remedies, written for the case's own model."""

from harness.grid import Experiment
from harness.grid.factorial import changes
from harness.grid.names import cell_name
from harness.user_code import guarded

MOST = 64  # remedies; each inspects the model once


def remedy_lines(experiment: Experiment) -> dict[str, str]:
    """Return remedy -> lines, for the remedies of the answer; a remedy that does not apply has none."""
    from harness.case import load_case
    from harness.data import split_of
    from harness.remedies.source_code import source_code

    cells = [changes(variant.levels, experiment.baseline) for variant in experiment.variants()]
    remedies = [cell for cell in cells if cell and (experiment.remedies or len(cell) == 1)][:MOST]
    lines: dict[str, str] = {}
    try:
        with guarded():
            case = load_case(experiment.case_reference)
            split = split_of(case, experiment.data_reference)
    except Exception:  # the members' errors say why
        return {}
    for remedy in remedies:
        try:
            with guarded():
                lines[cell_name(remedy)] = source_code(case, remedy, split)
        except Exception:  # the remedy does not apply, or the case's code raised; its members say why
            continue
    return lines
