"""From a file to an `Experiment`; every complaint names file, key and value, and says what to write instead."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, did_you_mean
from harness.factors import training_numbers
from harness.grid.case_facts import CaseFacts, case_facts, case_file
from harness.grid.experiment import Experiment
from harness.grid.validation import check_experiment, factor_levels
from harness.grid.yaml_reader import read_document

REQUIRED = ("name", "case", "factors", "seeds")
LONGEST_NAME = 200


def load_experiment(path: str | Path) -> Experiment:
    """The experiment that a YAML file describes, checked against its case; nothing is trained or written.

    Raises:
        HarnessError: for whatever is wrong with the file, with its name and the key (and the line of a syntax error).
    """
    file = Path(path)
    content = read_document(file).content
    try:
        return _experiment(content, file)
    except HarnessError as error:
        raise HarnessError(printable(f"{file}: {error}")) from error


def printable(text: str) -> str:
    """The text on one line, with control and direction marks written out: a complaint quotes what it was given.

    >>> printable("a\\n\\u202eb")
    'a\\\\n\\\\u202eb'
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _experiment(content: Any, file: Path) -> Experiment:
    if not isinstance(content, dict):
        raise HarnessError(f"keys and values are wanted (name, case, factors, seeds), {_kind(content)} was found")
    for key in content:
        if key not in KEYS:
            raise HarnessError(f"{key[:60]}: {did_you_mean('key', key[:60], KEYS)}")
    for key in REQUIRED:
        if key not in content:
            raise HarnessError(f"{key}: this key is required, and it is missing")
    given = {key: KEYS[key](value, key) for key, value in content.items()}
    facts = _facts(given["case"], file)
    return check_experiment(_build(given, facts, file), facts)


def _facts(case: str, file: Path) -> CaseFacts:
    try:
        return case_facts(case_file(case, file.parent))
    except HarnessError as error:
        raise HarnessError(f"case: {error}") from error


def _build(given: Mapping[str, Any], facts: CaseFacts, file: Path) -> Experiment:
    levels = factor_levels(given["factors"], given.get("zip", ()), facts.numbers)
    train = training_numbers(given.get("train", {}))
    return Experiment(**{**given, "factors": levels, "train": train, "path": file})


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise HarnessError(f"{key}: a word is wanted, {_kind(value)} was given; put it in quotes to make it one")
    if len(value) > LONGEST_NAME:
        raise HarnessError(f"{key}: at most {LONGEST_NAME} characters are wanted, {len(value)} were given")
    return value


def _factors(value: Any, key: str) -> dict[str, list[Any]]:
    found = _mapping(value, key)
    if not found:
        raise HarnessError(
            f"{key}: empty; at least one factor with its levels is wanted, as in `activation: [relu, elu]`"
        )
    for name, levels in found.items():
        if not isinstance(levels, list):
            raise HarnessError(f"{key}.{name}: a list of levels is wanted, {_kind(levels)} was given; write [{levels}]")
        if not levels:
            raise HarnessError(f"{key}.{name}: empty; at least one level is wanted")
    return found


def _seeds(value: Any, key: str) -> tuple[int, ...]:
    if isinstance(value, list):
        return _seed_list(value, key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise HarnessError(f"{key}: a number of seeds, or a list of them, is wanted, {_kind(value)} was given")
    if value < 1:
        raise HarnessError(f"{key}: at least 1 seed is wanted, {value} was given; 8 and more confirm an effect")
    if value > 1_000_000:
        raise HarnessError(f"{key}: at most 1,000,000 members are run, and {_kind(value)} seeds make more")
    return tuple(range(value))


def _seed_list(value: list[Any], key: str) -> tuple[int, ...]:
    if not value:
        raise HarnessError(f"{key}: empty; at least 1 seed is wanted")
    for place, seed in enumerate(value):
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise HarnessError(f"{key}[{place}]: a whole number from 0 is wanted, {_kind(seed)} was given")
        if seed in value[:place]:
            raise HarnessError(f"{key}[{place}]: the seed {seed} is listed twice")
    return tuple(value)


def _cell(value: Any, key: str) -> dict[str, Any]:
    found = _mapping(value, key)
    if not found:
        raise HarnessError(f"{key}: empty; a factor with its level is wanted, as in {{activation: relu}}")
    return found


def _baseline(value: Any, key: str) -> dict[str, Any]:
    for name, level in _mapping(value, key).items():
        if isinstance(level, bool) or not isinstance(level, str | int | float):
            raise HarnessError(f"{key}.{name}: one level is wanted, {_kind(level)} was given")
    return _mapping(value, key)


def _cells(value: Any, key: str) -> tuple[dict[str, Any], ...]:
    return tuple(_cell(each, f"{key}[{place}]") for place, each in enumerate(_list(value, key)))


def _pairs(value: Any, key: str) -> tuple[tuple[Any, Any], ...]:
    pairs = _list(value, key)
    for place, pair in enumerate(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise HarnessError(f"{key}[{place}]: a pair is wanted, as in [first, second]; {_kind(pair)} was given")
    return tuple((first, second) for first, second in pairs)


def _interactions(value: Any, key: str) -> tuple[tuple[str, str], ...]:
    for place, pair in enumerate(_pairs(value, key)):
        for side, name in enumerate(pair):
            _text(name, f"{key}[{place}][{side}]")
    return _pairs(value, key)


def _contrasts(value: Any, key: str) -> tuple[tuple[dict[str, Any], dict[str, Any]], ...]:
    for place, pair in enumerate(_pairs(value, key)):
        for side, cell in enumerate(pair):
            _cell(cell, f"{key}[{place}][{side}]")
    return _pairs(value, key)


def _list(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise HarnessError(f"{key}: a list is wanted, {_kind(value)} was given")
    return value


def _mapping(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise HarnessError(f"{key}: keys and values are wanted, {_kind(value)} was given")
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
    "factors": _factors,
    "baseline": _baseline,
    "interactions": _interactions,
    "contrasts": _contrasts,
    "seeds": _seeds,
    "train": _mapping,
    "exclude": _cells,
    "include": _cells,
    "zip": _cells,
}
