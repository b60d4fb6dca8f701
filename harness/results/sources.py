"""Which files beside a case's file it imports: read from the import statements, nothing is run."""

import ast
from collections.abc import Iterator
from pathlib import Path


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
