"""The entry of a process of our own: `python -P entry.py MODULE COUNT ARGUMENTS... PLACES...` runs the module's `main`.

The package is loaded from the first place, wherever the path has another; the other places are put last on the path.
"""

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def main() -> None:
    """Run the module with its arguments."""
    module, count, *words = sys.argv[1:]
    arguments, places = words[: int(count)], words[int(count) :]
    _load("harness", places[0])
    sys.path += [place for place in places if place not in sys.path]
    sys.argv = [module, *arguments]
    import_module(module).main()


def _load(package: str, place: str) -> None:
    spec = PathFinder.find_spec(package, [place])
    assert spec is not None
    assert spec.loader is not None
    sys.modules[package] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[package])


if __name__ == "__main__":
    main()
