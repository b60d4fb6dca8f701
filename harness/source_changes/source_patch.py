"""A change as a unified diff of the user's own source, checked by running the changed source, or as lines."""

import os
from collections.abc import Mapping
from pathlib import Path

from harness.case import Case
from harness.data.rows import Split
from harness.errors import HarnessError
from harness.factors import Level
from harness.loss_terms import bind_losses
from harness.remedies.apply import apply_remedies, treatment_of
from harness.remedies.layout import inspect_model
from harness.source_changes.case_editor import SourceEditor
from harness.source_changes.source_check import same_numbers
from harness.source_changes.source_code import source_code
from harness.source_changes.text_edits import NotEditable, SourceFile

STYLES = ((True, False), (False, False), (True, True), (False, True))  # (as_child, in_factory), the usual one first


def change_code(case: Case, levels: Mapping[str, Level], split: Split) -> str:
    """Return the change of a remedy: a checked diff of the case's source, or else lines for its model."""
    return source_diff(case, levels, split) or source_code(case, levels, split)


def source_diff(case: Case, levels: Mapping[str, Level], split: Split) -> str:
    """Return the change as a unified diff of the case's source; "" where it is not known, or the check fails.

    The changed source is executed, and the model and loss that it makes have the numbers of the treated case bit for
    bit. Only a case that was loaded from a file is executed again.
    """
    if case.source is None:
        return ""
    for as_child, in_factory in STYLES:
        try:
            sources = edited_sources(case, levels, split, as_child, in_factory)
            texts = {source.path: source.result() for source in sources}
            if sources and same_numbers(case, texts, apply_remedies(case, levels, split), split):
                return "".join(source.diff(path_for_patch(source.path, case.source)) for source in sources)
        except (NotEditable, HarnessError, OSError, SyntaxError):
            continue
    return ""


def path_for_patch(path: Path, source: Path) -> str:
    """Path as `patch -p0` takes it: relative to the working directory, or else to the folder of the case."""
    relative = os.path.relpath(path)
    return os.path.relpath(path, source.parent) if relative.startswith("..") else relative


def edited_sources(
    case: Case, levels: Mapping[str, Level], split: Split, as_child: bool = True, in_factory: bool = False
) -> list[SourceFile]:
    """Return the files that the change touches, with their edits.

    Args:
        case: a case that was loaded from a file.
        levels: the change.
        split: its rows.
        as_child: False keeps the statistics of a normalization in buffers of the model, for code that walks over the
            model's children.
        in_factory: True sets initial values in the factory function, for one that sets values itself.

    Raises:
        NotEditable: when a part of the change has no place in the source.
    """
    layout = inspect_model(bind_losses(case, split.train.targets), split.train.inputs)
    treatment = treatment_of(case, levels, layout)
    editor = SourceEditor(case, treatment, layout, split, as_child, in_factory)
    editor.edit()
    return [source for source in editor.files.values() if source.edits]
