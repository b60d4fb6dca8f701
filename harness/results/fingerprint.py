"""The resume key: what a member's result depends on, and nothing else."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.factors import FACTORS, Level
from harness.grid.case_facts import CASES_FOLDER

RESULTS_FORMAT = 2  # 1: penalties whose KL was rounded, and roundings that depended on the stack
TRAINING = ("epochs", "batch_size", "learning_rate", "snapshot_every", "warmup")
SHIPPED_IMPORT = re.compile(rb"^\s*from harness\.cases\.(\w+) import", re.MULTILINE)


def member_key(
    levels: Mapping[str, Level],
    seed: int,
    numbers: Mapping[str, float],
    train: Mapping[str, Any],
    data: str,
    case: str,
) -> str:
    """A hash of the resolved member: two members with one key have one result.

    A level that leaves the case as it is does not count, so that a factor added later orphans nothing.

    Args:
        levels: of the variant.
        seed: of the member.
        numbers: the case's numbers, which levels of the same name replace.
        train: the training numbers that hold without the levels, defaults included.
        data: fingerprint of the rows.
        case: fingerprint of the case's source.

    >>> one = member_key({}, 0, {"rho": 0.05}, {"epochs": 3}, "d", "c")
    >>> one == member_key({"dropout": 0.0, "rho": 0.05, "epochs": 3}, 0, {"rho": 0.05}, {"epochs": 3}, "d", "c")
    True
    >>> one == member_key({"dropout": 0.2}, 0, {"rho": 0.05}, {"epochs": 3}, "d", "c")
    False
    """
    remedies = {name: level for name, level in levels.items() if name in FACTORS and level != FACTORS[name].default}
    known = {**numbers, **{name: train[name] for name in TRAINING if name in train}}
    changed = {name: known.get(name) for name in known} | {n: v for n, v in levels.items() if _is_number(n, known)}
    kept = {name: level for name, level in remedies.items() if name not in changed}
    content = {
        "format": RESULTS_FORMAT,
        "remedies": {name: str(level) if isinstance(level, str) else float(level) for name, level in kept.items()},
        "numbers": {name: _plain(value) for name, value in changed.items()},
        "seed": seed,
        "data": data,
        "case": case,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def case_fingerprint(path: Path) -> str:
    """A hash of a case's file, with the shipped cases that it builds on and the modules beside it that it imports."""
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    for name in sorted(set(SHIPPED_IMPORT.findall(content))):
        digest.update(case_fingerprint(CASES_FOLDER / f"{name.decode()}.py").encode())
    for file in imported_files(path):
        digest.update(f"{file.relative_to(path.parent).as_posix()} {len(file.read_bytes())} ".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _is_number(name: str, known: Mapping[str, Any]) -> bool:
    return name in known or (name not in FACTORS) or name in ("rho", "beta")


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) or value is None else float(value)


def imported_files(path: Path) -> list[Path]:
    """The files in the folder of `path` and below that it imports, and those that they import, in order.

    A name that is made while the code runs (`importlib.import_module(name)`) is not followed, and neither is this
    package, where it lies in the folder: its version is recorded, and no part of a key.
    """
    folder, found, open_files = path.parent, {path}, [path]
    while open_files:
        file = open_files.pop()
        names = {name for name in _imports(file, folder) if name[0] != "harness"}
        new = {each for name in names for each in _files(folder, name)} - found
        found |= new
        open_files += new
    return sorted(found - {path})


def _imports(file: Path, folder: Path) -> Iterator[tuple[str, ...]]:
    """The dotted names that a file may import, in parts; `from a import b` may mean the module `a.b`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    package = file.parent.relative_to(folder).parts
    for each in ast.walk(tree):
        if isinstance(each, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in each.names)
        elif isinstance(each, ast.ImportFrom):
            above = package[: max(0, len(package) - each.level + 1)] if each.level else ()
            base = (*above, *(each.module.split(".") if each.module else ()))
            yield from ((*base, alias.name) for alias in each.names)


def _files(folder: Path, name: tuple[str, ...]) -> Iterator[Path]:
    """The files that importing a dotted name runs: each package on the way, and the module itself."""
    for length in range(1, len(name) + 1):
        place = folder.joinpath(*name[:length])
        yield from (each for each in (place.with_name(f"{place.name}.py"), place / "__init__.py") if each.is_file())
