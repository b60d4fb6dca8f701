"""Checks between the keys of an experiment; each error names the offending key."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, did_you_mean
from harness.factors import FACTORS, Level, check_level, known_factors
from harness.grid.case_facts import CaseFacts
from harness.grid.experiment import LARGEST, Experiment
from harness.grid.factorial import as_list, size
from harness.grid.names import cell_name

MOST_CELLS_TO_SIFT = 200_000  # beyond this, the cells that `exclude` leaves are not counted one by one
INDEX_AT_END = re.compile(r"\[\d+\]$")
DATA_FILES = (".npy", ".npz", ".pt", ".pth", ".csv", ".parquet")


def check_experiment(experiment: Experiment, facts: CaseFacts) -> Experiment:
    """Check an experiment's keys against each other and against the case, and normalize its levels.

    Raises:
        HarnessError: if a key is wrong; the message names it.
    """
    numbers = facts.numbers
    include = tuple(
        partial_cell(cell, experiment.factors, f"include[{index}]", numbers, new=True)
        for index, cell in enumerate(experiment.include)
    )
    levels = _with_included(experiment.factors, include)
    checked = experiment.with_changes(
        baseline=single_cell(experiment.baseline, levels, "baseline", numbers),
        exclude=_partial_cells(experiment.exclude, levels, "exclude", numbers),
        include=include,
        zip=_zipped(experiment, numbers),
        contrasts=_contrasts(experiment, levels, numbers),
    )
    _one_weight(experiment, facts)
    _interactions(experiment)
    check_data(experiment)
    check_size(checked)
    return checked


def factor_levels(
    factors: Mapping[str, Sequence[Any]],
    zipped: Iterable[Mapping[str, Any]],
    numbers: Mapping[str, float],
) -> dict[str, tuple[Level, ...]]:
    """Normalize the levels of every factor; a factor that occurs only in `zip` takes its levels from there.

    Raises:
        HarnessError: if a factor or level is unknown or listed twice.
    """
    plain = {
        name: tuple(plain_level(name, level, f"factors.{name}[{index}]", numbers) for index, level in enumerate(levels))
        for name, levels in factors.items()
    }
    for name, levels in plain.items():
        twice = [level for index, level in enumerate(levels) if level in levels[:index]]
        if twice:
            raise HarnessError(f"factors.{name}: the level {twice[0]!r} is listed twice")
    return {**plain, **_only_zipped(plain, zipped, numbers)}


def plain_level(name: str, value: Any, key: str, numbers: Mapping[str, float]) -> Level:
    """Normalize a level; 0 and 0.0 are the same level of a factor that takes fractions.

    Raises:
        HarnessError: if the factor or level is unknown; the message names the key.
    """
    if name not in FACTORS and name not in numbers:
        raise HarnessError(
            f"{re.sub(INDEX_AT_END, '', key)}: {did_you_mean('factor', name[:60], known_factors(numbers))}"
        )
    try:
        level = check_level(name, value, numbers)
    except HarnessError as error:
        raise HarnessError(f"{key}: {error}") from error
    integral = name not in FACTORS or FACTORS[name].integer
    return level if isinstance(level, str) or integral else float(level)


def partial_cell(
    cell: Mapping[str, Any],
    factors: Mapping[str, Sequence[Level]],
    key: str,
    numbers: Mapping[str, float],
    new: bool = False,
) -> dict[str, Any]:
    """Normalize a partial cell: a level, or a tuple of levels, for each of its factors.

    Args:
        new: whether levels that the factors do not list are allowed.

    Raises:
        HarnessError: if the experiment has no such factor or level.
    """
    plain: dict[str, Any] = {}
    for name, value in cell.items():
        if name not in factors:
            raise HarnessError(f"{key}: {did_you_mean('factor of this experiment', name[:60], factors)}")
        levels = tuple(
            plain_level(name, level_value, f"{key}.{name}", numbers) for level_value in _levels(value, f"{key}.{name}")
        )
        for level in levels:
            if not new and level not in factors[name]:
                listed = ", ".join(map(str, factors[name]))
                raise HarnessError(f"{key}.{name}: {level!r} is not among the levels of this experiment: {listed}")
        plain[name] = levels if isinstance(value, list | tuple) else levels[0]
    return plain


def single_cell(
    cell: Mapping[str, Any], factors: Mapping[str, Sequence[Level]], key: str, numbers: Mapping[str, float]
) -> dict[str, Any]:
    """Normalize a partial cell that has a single level for each factor.

    Raises:
        HarnessError: for a list of levels, or an error of `partial_cell`.
    """
    for name, value in cell.items():
        if isinstance(value, list | tuple):
            raise HarnessError(f"{key}.{name}: expected one level, got a list of {len(value)}")
    return partial_cell(cell, factors, key, numbers)


def check_data(experiment: Experiment) -> None:
    """Check that `data` is a data set or an existing file.

    Raises:
        HarnessError: if it is neither.
    """
    if experiment.data is None:
        return
    from harness.data.datasets import DATASETS

    file, colon, _ = experiment.data.rpartition(":")
    path = Path(file if colon and Path(file).suffix in DATA_FILES else experiment.data)
    if experiment.data not in DATASETS and path.suffix.lower() not in DATA_FILES:
        raise HarnessError(
            f"data: {did_you_mean('data set', experiment.data, DATASETS)}; or a file: {' '.join(DATA_FILES)}"
        )
    if experiment.data not in DATASETS and not (experiment.folder / path).is_file():
        raise HarnessError(f"data: no file {str(path)!r} in {experiment.folder.resolve()}")


def check_size(experiment: Experiment) -> None:
    """Check the number of members; cells are counted without building them.

    Raises:
        HarnessError: for more than 1,000,000 members, or none.
    """
    added = sum(_cells_of(cell) for cell in experiment.include)
    cells = experiment.crossed() + added
    most = cells * experiment.blocks
    if most > LARGEST and (not experiment.exclude or cells > MOST_CELLS_TO_SIFT):
        raise HarnessError(
            f"factors: {cells:,} cells x {experiment.blocks:,} {_blocks(experiment)}, at most {LARGEST:,} members are run"
        )
    if not experiment.exclude:
        return
    remaining = len(experiment.variants())
    if not remaining:
        raise HarnessError("exclude: expected at least one remaining cell; every cell is excluded")
    if remaining * experiment.blocks > LARGEST:
        raise HarnessError(
            f"factors: {remaining:,} cells x {experiment.blocks:,} {_blocks(experiment)}, at most {LARGEST:,} members are run"
        )


def _blocks(experiment: Experiment) -> str:
    return "seeds" if experiment.splits == 1 else "pairs of seed and split"


def _cells_of(partial: Mapping[str, Any]) -> int:
    return size([((name,), tuple((level,) for level in as_list(value))) for name, value in partial.items()])


def _partial_cells(
    cells: Iterable[Mapping[str, Any]], factors: Mapping[str, Sequence[Level]], key: str, numbers: Mapping[str, float]
) -> tuple[dict[str, Any], ...]:
    return tuple(partial_cell(cell, factors, f"{key}[{index}]", numbers) for index, cell in enumerate(cells))


def _zipped(experiment: Experiment, numbers: Mapping[str, float]) -> tuple[dict[str, Any], ...]:
    cells = _partial_cells(experiment.zip, experiment.factors, "zip", numbers)
    home: dict[str, frozenset[str]] = {}
    for index, cell in enumerate(cells):
        for name in cell:
            if home.setdefault(name, frozenset(cell)) != frozenset(cell):
                together = " and ".join(sorted(home[name]))
                raise HarnessError(
                    f"zip[{index}]: {name} is zipped with {together} already; name the same factors here"
                )
        lengths = {len(value) for value in cell.values() if isinstance(value, tuple) and len(value) > 1}
        if len(lengths) > 1:
            raise HarnessError(f"zip[{index}]: expected lists of equal length, got lengths {sorted(lengths)}")
    return cells


def _only_zipped(
    factors: Mapping[str, Sequence[Level]], zipped: Iterable[Mapping[str, Any]], numbers: Mapping[str, float]
) -> dict[str, tuple[Level, ...]]:
    levels: dict[str, list[Level]] = {}
    for index, cell in enumerate(zipped):
        for name, value in cell.items():
            if name not in factors:
                key = f"zip[{index}].{name}"
                levels.setdefault(name, []).extend(
                    plain_level(name, level, key, numbers) for level in _levels(value, key)
                )
    return {name: tuple(dict.fromkeys(values)) for name, values in levels.items()}


def _with_included(
    factors: Mapping[str, Sequence[Level]], include: Iterable[Mapping[str, Any]]
) -> dict[str, tuple[Level, ...]]:
    cells = list(include)
    return {
        name: tuple(dict.fromkeys([*levels, *(level for cell in cells for level in as_list(cell.get(name, ())))]))
        for name, levels in factors.items()
    }


def _one_weight(experiment: Experiment, facts: CaseFacts) -> None:
    """Check that the weight of the penalties is not a factor under two names."""
    name = facts.penalty_weight
    both = isinstance(name, str) and name != "beta" and {"beta", name} <= set(experiment.factors)
    if both and "beta" not in facts.numbers:
        raise HarnessError(
            f"factors: beta and {name} are one number, the weight of the case's penalties; expected one of them"
        )


def _interactions(experiment: Experiment) -> None:
    for index, pair in enumerate(experiment.interactions):
        for name in pair:
            if name not in experiment.factors:
                raise HarnessError(
                    f"interactions[{index}]: {did_you_mean('factor of this experiment', name[:60], experiment.factors)}"
                )
            if len(experiment.levels(name)) < 2:
                raise HarnessError(f"interactions[{index}]: {name} has one level; an interaction needs two of each")
        if pair[0] == pair[1]:
            raise HarnessError(f"interactions[{index}]: expected two different factors, got {pair[0]} twice")


def _contrasts(
    experiment: Experiment, factors: Mapping[str, Sequence[Level]], numbers: Mapping[str, float]
) -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    checked = []
    for index, (first, second) in enumerate(experiment.contrasts):
        key = f"contrasts[{index}]"
        pair = single_cell(first, factors, key, numbers), single_cell(second, factors, key, numbers)
        if set(pair[0]) != set(pair[1]):
            raise HarnessError(
                f"{key}: expected two cells with the same factors, got {cell_name(first)} and {cell_name(second)}"
            )
        if pair[0] == pair[1]:
            raise HarnessError(f"{key}: expected two different cells, got {cell_name(first)} twice")
        checked.append(pair)
    return tuple(checked)


def _levels(value: Any, key: str) -> Sequence[Any]:
    if isinstance(value, list | tuple) and not value:
        raise HarnessError(f"{key}: expected at least one level, got an empty list")
    return as_list(value)
