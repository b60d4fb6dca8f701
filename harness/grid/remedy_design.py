"""The design of one remedy at a time: the baseline, and one cell for each remedy."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.factors import Level, default_level
from harness.grid.factorial import Cell, as_list, expand_variants
from harness.grid.names import cell_name
from harness.grid.validation import plain_level


def remedy_cells(
    remedies: Sequence[Mapping[str, Any]], baseline: Mapping[str, Level], numbers: Mapping[str, float]
) -> tuple[Cell, ...]:
    """Normalize remedies: partial cells of one or several changes; a list of levels stands for one remedy per level.

    Args:
        remedies: partial cells, as in the file.
        baseline: level of every factor.
        numbers: of the case, which are factors too.

    Raises:
        HarnessError: if a factor or level is unknown, or a remedy changes nothing or occurs twice.
    """
    cells: list[Cell] = []
    for index, remedy in enumerate(remedies):
        for cell in _plain_cells(remedy, f"remedies[{index}]", numbers):
            for name, level in cell.items():
                if level == baseline[name]:
                    raise HarnessError(
                        f"remedies[{index}].{name}: expected a change, got {level}, which is the baseline's level"
                    )
            if cell in cells:
                raise HarnessError(f"remedies[{index}]: the remedy {cell_name(cell)} is listed twice")
            cells.append(cell)
    return tuple(cells)


def remedy_baseline(
    remedies: Iterable[Mapping[str, Any]],
    baseline: Mapping[str, Any],
    numbers: Mapping[str, float],
    train: Mapping[str, Any],
) -> dict[str, Level]:
    """Return the baseline: declared levels, then what leaves the case as it is, for every factor of the remedies.

    Args:
        remedies: partial cells, as in the file.
        baseline: declared levels; a factor that no remedy names is the same in all variants.
        numbers: of the case.
        train: training numbers of the experiment and the case, with defaults.

    Raises:
        HarnessError: if a factor or level is unknown, or a factor without a default level has no declared level.
    """
    declared = {name: plain_level(name, level, f"baseline.{name}", numbers) for name, level in baseline.items()}
    levels: dict[str, Level] = {}
    for index, remedy in enumerate(remedies):
        for name, value in remedy.items():
            for level in as_list(value):
                plain_level(name, level, f"remedies[{index}].{name}", numbers)
            levels.setdefault(name, declared.get(name, default_level(name, numbers, train)))
    for name, level in levels.items():
        if level is None:
            raise HarnessError(f"baseline: expected the level of {name} in the case as it is; it is missing")
        levels[name] = plain_level(name, level, f"baseline.{name}", numbers)
    return {**levels, **{name: level for name, level in declared.items() if name not in levels}}


def _plain_cells(remedy: Mapping[str, Any], key: str, numbers: Mapping[str, float]) -> list[Cell]:
    for name, value in remedy.items():
        if isinstance(value, list | tuple) and not value:
            raise HarnessError(f"{key}.{name}: expected at least one level, got an empty list")
    return [
        {name: plain_level(name, level, f"{key}.{name}", numbers) for name, level in cell.items()}
        for cell in expand_variants(remedy)
    ]
