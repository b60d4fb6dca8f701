"""What must hold between the keys of an experiment; each check names the key that breaks it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, did_you_mean
from harness.factors import FACTORS, Level, check_level, known_factors
from harness.grid.case_facts import CaseFacts
from harness.grid.experiment import LARGEST, Experiment
from harness.grid.factorial import as_list, size
from harness.grid.names import cell_name

MOST_CELLS_TO_SIFT = 200_000  # beyond it, what `exclude` leaves is not counted one by one
DATA_FILES = (".npy", ".npz", ".pt", ".pth", ".csv", ".parquet")


def check_experiment(experiment: Experiment, facts: CaseFacts) -> Experiment:
    """The experiment with every level in its plain form, if its keys agree with each other and with the case.

    Raises:
        HarnessError: naming the key that does not.
    """
    numbers = facts.numbers
    include = tuple(
        partial_cell(cell, experiment.factors, f"include[{place}]", numbers, new=True)
        for place, cell in enumerate(experiment.include)
    )
    known = _with_included(experiment.factors, include)
    checked = experiment.model_copy(
        update={
            "baseline": single_cell(experiment.baseline, known, "baseline", numbers),
            "exclude": _partial_cells(experiment.exclude, known, "exclude", numbers),
            "include": include,
            "zip": _zipped(experiment, numbers),
            "contrasts": _contrasts(experiment, known, numbers),
        }
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
    """Every factor's levels in their plain form; a factor that only `zip` names gets its levels from there.

    Raises:
        HarnessError: for an unknown factor or level, or one that is listed twice.
    """
    found = {
        name: tuple(plain_level(name, level, f"factors.{name}[{place}]", numbers) for place, level in enumerate(levels))
        for name, levels in factors.items()
    }
    for name, levels in found.items():
        twice = [level for place, level in enumerate(levels) if level in levels[:place]]
        if twice:
            raise HarnessError(f"factors.{name}: the level {twice[0]!r} is listed twice")
    return {**found, **_only_zipped(found, zipped, numbers)}


def plain_level(name: str, value: Any, key: str, numbers: Mapping[str, float]) -> Level:
    """The level as `check_level` takes it; 0 and 0.0 are the same level of a factor that knows fractions.

    Raises:
        HarnessError: for an unknown factor or level, with the key.
    """
    if name not in FACTORS and name not in numbers:
        raise HarnessError(f"{key.split('[')[0]}: {did_you_mean('factor', name[:60], known_factors(numbers))}")
    try:
        level = check_level(name, value, numbers)
    except HarnessError as error:
        raise HarnessError(f"{key}: {error}") from error
    whole = name not in FACTORS or FACTORS[name].whole
    return level if isinstance(level, str) or whole else float(level)


def partial_cell(
    cell: Mapping[str, Any],
    factors: Mapping[str, Sequence[Level]],
    key: str,
    numbers: Mapping[str, float],
    new: bool = False,
) -> dict[str, Any]:
    """A partial cell in plain form: a level, or a list of levels, for each factor that it names.

    Args:
        new: whether levels may be named that the factors do not list.

    Raises:
        HarnessError: for a factor or level that the experiment does not have.
    """
    plain: dict[str, Any] = {}
    for name, value in cell.items():
        if name not in factors:
            raise HarnessError(f"{key}: {did_you_mean('factor of this experiment', name[:60], factors)}")
        levels = tuple(plain_level(name, each, f"{key}.{name}", numbers) for each in _levels(value, f"{key}.{name}"))
        for level in levels:
            if not new and level not in factors[name]:
                listed = ", ".join(map(str, factors[name]))
                raise HarnessError(f"{key}.{name}: {level!r} is not among the levels of this experiment: {listed}")
        plain[name] = levels if isinstance(value, list | tuple) else levels[0]
    return plain


def single_cell(
    cell: Mapping[str, Any], factors: Mapping[str, Sequence[Level]], key: str, numbers: Mapping[str, float]
) -> dict[str, Any]:
    """A partial cell with one level a factor.

    Raises:
        HarnessError: for a list of levels, or what `partial_cell` refuses.
    """
    for name, value in cell.items():
        if isinstance(value, list | tuple):
            raise HarnessError(f"{key}.{name}: one level is wanted, a list of {len(value)} was given")
    return partial_cell(cell, factors, key, numbers)


def check_data(experiment: Experiment) -> None:
    """Nothing, if `data` is a data set or a file that is there.

    Raises:
        HarnessError: if not.
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
    """Nothing, if there is something to run and it can be run; cells are counted without making them.

    Raises:
        HarnessError: for more than 1,000,000 members, or none.
    """
    added = sum(_cells_of(cell) for cell in experiment.include)
    cells = experiment.crossed() + added
    most = cells * len(experiment.seeds)
    if most > LARGEST and (not experiment.exclude or cells > MOST_CELLS_TO_SIFT):
        raise HarnessError(
            f"factors: {cells:,} cells x {len(experiment.seeds):,} seeds, at most {LARGEST:,} members are run"
        )
    if not experiment.exclude:
        return
    left = len(experiment.variants())
    if not left:
        raise HarnessError("exclude: every cell is excluded, nothing is left to run")
    if left * len(experiment.seeds) > LARGEST:
        raise HarnessError(
            f"factors: {left:,} cells x {len(experiment.seeds):,} seeds, at most {LARGEST:,} members are run"
        )


def _cells_of(partial: Mapping[str, Any]) -> int:
    return size([((name,), tuple((level,) for level in as_list(value))) for name, value in partial.items()])


def _partial_cells(
    cells: Iterable[Mapping[str, Any]], factors: Mapping[str, Sequence[Level]], key: str, numbers: Mapping[str, float]
) -> tuple[dict[str, Any], ...]:
    return tuple(partial_cell(cell, factors, f"{key}[{place}]", numbers) for place, cell in enumerate(cells))


def _zipped(experiment: Experiment, numbers: Mapping[str, float]) -> tuple[dict[str, Any], ...]:
    cells = _partial_cells(experiment.zip, experiment.factors, "zip", numbers)
    home: dict[str, frozenset[str]] = {}
    for place, cell in enumerate(cells):
        for name in cell:
            if home.setdefault(name, frozenset(cell)) != frozenset(cell):
                together = " and ".join(sorted(home[name]))
                raise HarnessError(
                    f"zip[{place}]: {name} is zipped with {together} already; name the same factors here"
                )
        lengths = {len(value) for value in cell.values() if isinstance(value, tuple) and len(value) > 1}
        if len(lengths) > 1:
            raise HarnessError(f"zip[{place}]: lists of equal length are wanted, {sorted(lengths)} were given")
    return cells


def _only_zipped(
    factors: Mapping[str, Sequence[Level]], zipped: Iterable[Mapping[str, Any]], numbers: Mapping[str, float]
) -> dict[str, tuple[Level, ...]]:
    found: dict[str, list[Level]] = {}
    for place, cell in enumerate(zipped):
        for name, value in cell.items():
            if name not in factors:
                key = f"zip[{place}].{name}"
                found.setdefault(name, []).extend(plain_level(name, each, key, numbers) for each in _levels(value, key))
    return {name: tuple(dict.fromkeys(levels)) for name, levels in found.items()}


def _with_included(
    factors: Mapping[str, Sequence[Level]], include: Iterable[Mapping[str, Any]]
) -> dict[str, tuple[Level, ...]]:
    cells = list(include)
    return {
        name: tuple(dict.fromkeys([*levels, *(level for cell in cells for level in as_list(cell.get(name, ())))]))
        for name, levels in factors.items()
    }


def _one_weight(experiment: Experiment, facts: CaseFacts) -> None:
    """Nothing, unless the weight of the penalties is a factor under two names."""
    name = facts.penalty_weight
    both = isinstance(name, str) and name != "beta" and {"beta", name} <= set(experiment.factors)
    if both and "beta" not in facts.numbers:
        raise HarnessError(
            f"factors: beta and {name} are one number, the weight of the case's penalties; expected one of them"
        )


def _interactions(experiment: Experiment) -> None:
    for place, pair in enumerate(experiment.interactions):
        for name in pair:
            if name not in experiment.factors:
                raise HarnessError(
                    f"interactions[{place}]: {did_you_mean('factor of this experiment', name[:60], experiment.factors)}"
                )
            if len(experiment.levels(name)) < 2:
                raise HarnessError(f"interactions[{place}]: {name} has one level; an interaction needs two of each")
        if pair[0] == pair[1]:
            raise HarnessError(f"interactions[{place}]: two different factors are wanted, {pair[0]} was given twice")


def _contrasts(
    experiment: Experiment, factors: Mapping[str, Sequence[Level]], numbers: Mapping[str, float]
) -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    checked = []
    for place, (first, second) in enumerate(experiment.contrasts):
        key = f"contrasts[{place}]"
        pair = single_cell(first, factors, key, numbers), single_cell(second, factors, key, numbers)
        if set(pair[0]) != set(pair[1]):
            raise HarnessError(
                f"{key}: both cells name the same factors; {cell_name(first)} and {cell_name(second)} do not"
            )
        if pair[0] == pair[1]:
            raise HarnessError(f"{key}: two different cells are wanted, {cell_name(first)} was given twice")
        checked.append(pair)
    return tuple(checked)


def _levels(value: Any, key: str) -> Sequence[Any]:
    if isinstance(value, list | tuple) and not value:
        raise HarnessError(f"{key}: empty; at least one level is wanted")
    return as_list(value)
