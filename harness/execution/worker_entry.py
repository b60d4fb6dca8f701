"""Entry point of a process of our own: `python -P entry.py MODULE COUNT ARGUMENTS... FOLDERS...` runs the module's `main`.

The package is loaded from the first folder, even if the path has another one; the folders are appended to the path.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def main() -> None:
    """Run the module with its arguments."""
    module, count, *words = sys.argv[1:]
    arguments, folders = words[: int(count)], words[int(count) :]
    _load("harness", folders[0])
    sys.path += [folder for folder in folders if folder not in sys.path]
    sys.argv = [module, *arguments]
    import_module(module).main()


def _load(package: str, folder: str) -> None:
    spec = PathFinder.find_spec(package, [folder])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[package] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[package])


if __name__ == "__main__":
    main()
