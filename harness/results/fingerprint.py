"""The resume key: a hash of exactly the inputs that a member's result depends on."""

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
    split: int = 0,
) -> str:
    """Hash a resolved member: two members with equal keys have equal results.

    A level that leaves the case unchanged does not count, so adding a factor later invalidates no result.

    Args:
        levels: of the variant.
        seed: of the member.
        numbers: the case's numbers; levels of the same name override them.
        train: training numbers, defaults included; levels of the same name override them.
        data: fingerprint of the rows.
        case: fingerprint of the case's source.
        split: number of the split of the rows; the first one does not count.

    >>> one = member_key({}, 0, {"rho": 0.05}, {"epochs": 3}, "d", "c")
    >>> one == member_key({"dropout": 0.0, "rho": 0.05, "epochs": 3}, 0, {"rho": 0.05}, {"epochs": 3}, "d", "c")
    True
    >>> one == member_key({"dropout": 0.2}, 0, {"rho": 0.05}, {"epochs": 3}, "d", "c")
    False
    """
    remedies = {name: level for name, level in levels.items() if name in FACTORS and level != FACTORS[name].default}
    all_numbers = {**numbers, **{name: train[name] for name in TRAINING if name in train}}
    changed = {name: all_numbers.get(name) for name in all_numbers} | {
        n: v for n, v in levels.items() if _is_number(n, all_numbers)
    }
    counted = {name: level for name, level in remedies.items() if name not in changed}
    content = {
        "format": RESULTS_FORMAT,
        "remedies": {name: str(level) if isinstance(level, str) else float(level) for name, level in counted.items()},
        "numbers": {name: _plain(value) for name, value in changed.items()},
        "seed": seed,
        "data": data,
        "case": case,
        **({"split": split} if split else {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


def case_fingerprint(path: Path) -> str:
    """Hash a case's file, with the shipped cases and the modules beside it that it imports."""
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    for name in sorted(set(SHIPPED_IMPORT.findall(content))):
        digest.update(case_fingerprint(CASES_FOLDER / f"{name.decode()}.py").encode())
    for file in imported_files(path):
        digest.update(f"{file.relative_to(path.parent).as_posix()} {len(file.read_bytes())} ".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _is_number(name: str, numbers: Mapping[str, Any]) -> bool:
    return name in numbers or (name not in FACTORS) or name in ("rho", "beta")


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) or value is None else float(value)


def imported_files(path: Path) -> list[Path]:
    """Return the files in the folder of `path` and below that it imports, directly or indirectly, in order.

    Names that are computed while the code runs (`importlib.import_module(name)`) are not followed, and neither is this
    package, if it is in the folder: its version is recorded, but is not part of a key.
    """
    folder, files, pending = path.parent, {path}, [path]
    while pending:
        file = pending.pop()
        names = {name for name in _imports(file, folder) if name[0] != "harness"}
        new = {imported for name in names for imported in _files(folder, name)} - files
        files |= new
        pending += new
    return sorted(files - {path})


def _imports(file: Path, folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names that a file may import, in parts; `from a import b` may mean the module `a.b`."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    package = file.parent.relative_to(folder).parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: max(0, len(package) - node.level + 1)] if node.level else ()
            base = (*above, *(node.module.split(".") if node.module else ()))
            yield from ((*base, alias.name) for alias in node.names)


def _files(folder: Path, name: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files that importing a dotted name runs: its parent packages and the module itself."""
    for length in range(1, len(name) + 1):
        path = folder.joinpath(*name[:length])
        yield from (
            candidate for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py") if candidate.is_file()
        )
