"""Load an `Experiment` from a file; every error names the file, the key and the value, and what to write instead."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, did_you_mean
from harness.factors import training_numbers
from harness.grid.case_facts import DEFAULT_TRAINING, CaseFacts, case_facts, case_file
from harness.grid.experiment import Experiment
from harness.grid.remedy_design import remedy_baseline, remedy_cells
from harness.grid.shipped import experiment_file
from harness.grid.validation import check_experiment, factor_levels
from harness.grid.yaml_reader import read_document

REQUIRED = ("name", "case", "seeds")
DESIGNS = ("remedies", "factors")  # exactly one of them
FACTORIAL_ONLY = ("exclude", "include", "zip")
LONGEST_NAME = 200
MOST_SPLITS = 1000
KEEP_WEIGHTS = ("shown", "all", "none")


def load_experiment(path: str | Path) -> Experiment:
    """Load the experiment that a YAML file describes, and check it against its case; nothing is trained or written.

    A word without a suffix names a shipped experiment.

    Raises:
        HarnessError: if the file is invalid; the message names the file and the key (the line of a syntax error).
    """
    file = experiment_file(path)
    refuse_case_file(file)
    content = read_document(file)
    try:
        return _experiment(content, file)
    except HarnessError as error:
        raise HarnessError(printable(f"{file}: {error}")) from error


def refuse_case_file(path: str | Path) -> None:
    """Check that an experiment is not given as a Python file.

    Raises:
        HarnessError: for a path that ends with `.py`; the message names the commands that take a case.
    """
    if str(path).endswith(".py"):
        raise HarnessError(
            printable(
                f"{path}: expected an experiment (.yaml), got a Python file; `harness audit` and `harness diagnose` "
                "take a case, and an experiment names it as `case: FILE.py`"
            )
        )


def printable(text: str) -> str:
    """Escape control characters and direction marks, so that a quoted value cannot break the line.

    >>> printable("a\\n\\u202eb")
    'a\\\\n\\\\u202eb'
    """
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _experiment(content: Any, file: Path) -> Experiment:
    if not isinstance(content, dict):
        raise HarnessError(f"expected a mapping (name, case, factors or remedies, seeds), got {_kind(content)}")
    for key in content:
        if key not in KEYS:
            raise HarnessError(f"{key[:60]}: {did_you_mean('key', key[:60], KEYS)}")
    for key in REQUIRED:
        if key not in content:
            raise HarnessError(f"{key}: expected this key, which is required; it is missing")
    _check_design(content)
    values = {key: KEYS[key](value, key) for key, value in content.items()}
    facts = _facts(values["case"], file)
    return check_experiment(_build(values, facts, file), facts)


def _check_design(content: Mapping[str, Any]) -> None:
    if not any(key in content for key in DESIGNS):
        raise HarnessError("remedies: expected either this key or `factors`, got neither")
    if all(key in content for key in DESIGNS):
        raise HarnessError("factors: expected either `remedies` (one at a time) or `factors` (all crossed), got both")
    for key in FACTORIAL_ONLY if "remedies" in content else ():
        if key in content:
            raise HarnessError(f"{key}: expected with `factors` only, got it beside `remedies`; write its cells there")


def _facts(case: str, file: Path) -> CaseFacts:
    try:
        return case_facts(case_file(case, file.parent))
    except HarnessError as error:
        raise HarnessError(f"case: {error}") from error


def _build(values: Mapping[str, Any], facts: CaseFacts, file: Path) -> Experiment:
    train = training_numbers(values.get("train", {}))
    if "remedies" in values:
        return Experiment(**{**values, **_remedy_design(values, facts, train), "train": train, "path": file})
    levels = factor_levels(values["factors"], values.get("zip", ()), facts.numbers)
    return Experiment(**{**values, "factors": levels, "train": train, "path": file})


def _remedy_design(values: Mapping[str, Any], facts: CaseFacts, train: Mapping[str, Any]) -> dict[str, Any]:
    """Express remedies as a factorial of the baseline alone, to which a cell is added for each remedy."""
    remedies, numbers = values["remedies"], facts.numbers
    defaults = {**DEFAULT_TRAINING, **facts.train, **train}
    baseline = remedy_baseline(remedies, values.get("baseline", {}), numbers, defaults)
    cells = remedy_cells(remedies, baseline, numbers)
    factors = {name: (level,) for name, level in baseline.items()}
    return {"factors": factors, "baseline": baseline, "include": cells, "remedies": cells}


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise HarnessError(f"{key}: expected a string, got {_kind(value)}; quote it")
    if len(value) > LONGEST_NAME:
        raise HarnessError(f"{key}: expected at most {LONGEST_NAME} characters, got {len(value)}")
    return value


def _factors(value: Any, key: str) -> dict[str, list[Any]]:
    factors = _mapping(value, key)
    if not factors:
        raise HarnessError(
            f"{key}: expected at least one factor with its levels, as in `activation: [relu, elu]`, got an empty mapping"
        )
    for name, levels in factors.items():
        if not isinstance(levels, list):
            raise HarnessError(f"{key}.{name}: expected a list of levels, got {_kind(levels)}; write [{levels}]")
        if not levels:
            raise HarnessError(f"{key}.{name}: expected at least one level, got an empty list")
    return factors


def _seeds(value: Any, key: str) -> tuple[int, ...]:
    if isinstance(value, list):
        return _seed_list(value, key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise HarnessError(f"{key}: expected a number of seeds or a list of seeds, got {_kind(value)}")
    if value < 1:
        raise HarnessError(f"{key}: expected at least 1 seed, got {value}; 8 or more can confirm an effect")
    if value > 1_000_000:
        raise HarnessError(f"{key}: expected at most 1,000,000 members, got {_kind(value)} seeds")
    return tuple(range(value))


def _seed_list(value: list[Any], key: str) -> tuple[int, ...]:
    if not value:
        raise HarnessError(f"{key}: expected at least 1 seed, got an empty list")
    for index, seed in enumerate(value):
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise HarnessError(f"{key}[{index}]: expected a whole number from 0, got {_kind(seed)}")
        if seed in value[:index]:
            raise HarnessError(f"{key}[{index}]: the seed {seed} is listed twice")
    return tuple(value)


def _cell(value: Any, key: str) -> dict[str, Any]:
    cell = _mapping(value, key)
    if not cell:
        raise HarnessError(f"{key}: expected a factor with its level, as in {{activation: relu}}, got an empty mapping")
    return cell


def _baseline(value: Any, key: str) -> dict[str, Any]:
    for name, level in _mapping(value, key).items():
        if isinstance(level, bool) or not isinstance(level, str | int | float):
            raise HarnessError(f"{key}.{name}: expected one level, got {_kind(level)}")
    return _mapping(value, key)


def _remedies(value: Any, key: str) -> tuple[dict[str, Any], ...]:
    if not _list(value, key):
        raise HarnessError(f"{key}: expected at least one remedy, as in `- {{batchnorm: on}}`, got an empty list")
    return _cells(value, key)


def _cells(value: Any, key: str) -> tuple[dict[str, Any], ...]:
    return tuple(_cell(cell, f"{key}[{index}]") for index, cell in enumerate(_list(value, key)))


def _pairs(value: Any, key: str) -> tuple[tuple[Any, Any], ...]:
    pairs = _list(value, key)
    for index, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise HarnessError(f"{key}[{index}]: expected a pair, as in [first, second], got {_kind(pair)}")
    return tuple((first, second) for first, second in pairs)


def _interactions(value: Any, key: str) -> tuple[tuple[str, str], ...]:
    for index, pair in enumerate(_pairs(value, key)):
        for side, name in enumerate(pair):
            _text(name, f"{key}[{index}][{side}]")
    return _pairs(value, key)


def _contrasts(value: Any, key: str) -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    for index, pair in enumerate(_pairs(value, key)):
        for side, cell in enumerate(pair):
            _cell(cell, f"{key}[{index}][{side}]")
    return _pairs(value, key)


def _splits(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_SPLITS:
        raise HarnessError(
            f"{key}: expected a number of splits of the rows from 1 to {MOST_SPLITS}, got {_kind(value)}"
        )
    return value


def _keep_weights(value: Any, key: str) -> str:
    if value not in KEEP_WEIGHTS:
        raise HarnessError(f"{key}: expected {', '.join(KEEP_WEIGHTS)}, got {_kind(value)}")
    return str(value)


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise HarnessError(f"{key}: expected a list, got {_kind(value)}")
    return value


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise HarnessError(f"{key}: expected a mapping, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a number of more than 30 digits"
    return text if len(text) <= 60 else text[:57] + "..."


KEYS: dict[str, Callable[[Any, str], Any]] = {
    "name": _text,
    "case": _text,
    "data": _text,
    "remedies": _remedies,
    "factors": _factors,
    "baseline": _baseline,
    "interactions": _interactions,
    "contrasts": _contrasts,
    "seeds": _seeds,
    "train": _mapping,
    "exclude": _cells,
    "include": _cells,
    "zip": _cells,
    "keep_weights": _keep_weights,
    "splits": _splits,
}
