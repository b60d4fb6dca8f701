"""Lines on what changed in a watched layer, one for each step and kind."""

from collections.abc import Sequence

import numpy as np

from harness.measures.units import has_off_state
from harness.watching.layer_window import LayerWindow
from harness.watching.unit_record import SILENT_EPOCHS, SILENT_ROWS, Clocks, StepChanges

Line = tuple[int, str, str, tuple[int, ...], str]  # step, layer, rule, units, and a word on the length of silence


def warning_lines(window: LayerWindow, clocks: Clocks, finite: Sequence[bool], changes: StepChanges) -> list[Line]:
    """Return step, layer, rule, units and a word on the length of silence of each warning."""
    lines: list[Line] = []
    some_silenced = np.any(changes.silenced, -1).tolist()
    some_revived = np.any(changes.revived, -1).tolist()
    verb = "fired" if has_off_state(window.activation) else "varied"
    for index, step in enumerate(clocks.step.tolist()):
        if not finite[index]:
            lines.append((step, window.name, "values", (0,), ""))
        if some_silenced[index]:
            length = f"{SILENT_EPOCHS} epochs" if clocks.returning[index] else f"{SILENT_ROWS} rows"
            units = tuple(changes.silenced[index].nonzero()[0].tolist())
            lines.append((step, window.name, "silent", units, f"{verb} for {length}"))
        if some_revived[index]:
            units = tuple(changes.revived[index].nonzero()[0].tolist())
            lines.append((step, window.name, "revived", units, ""))
    return lines
