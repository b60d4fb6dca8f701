"""Imports of modules beside a case's file, as `python case.py` finds them, for the case alone.

While the file runs, its own import statements search its folder first; loaded modules are not replaced. Later, its
functions still find modules that no other folder has. Libraries do not search the folder: `random.py` may stand beside a
case, and so may `bottleneck.py`, which pandas would mistake for a package.
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import spec_from_loader
from itertools import chain, count
from pathlib import Path
from types import FrameType, ModuleType
from weakref import WeakValueDictionary

PREFIX = "harness_case_"  # of the module names of case files
_in_use: WeakValueDictionary[str, ModuleType] = WeakValueDictionary()


def own_name(path: Path) -> str:
    """Return a name for the module of a case's file that no module in use has."""
    name = f"{PREFIX}{path.stem}"
    return next(free for free in chain([name], (f"{name}_{number}" for number in count(1))) if free not in _in_use)


@contextmanager
def with_siblings(module: ModuleType) -> Iterator[None]:
    """Make a case's module importable by name while it runs, for dataclasses, and for `pickle` while it is in use.

    Afterwards it is not in `sys.modules`, so that joblib pickles its functions by value for other processes.
    """
    vars(module)["__harness_module__"] = module  # keeps the module alive as long as its functions
    _in_use[module.__name__] = sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]


@contextmanager
def sibling_imports(folder: Path) -> Iterator[None]:
    """Let a case's file import modules from its folder, each executed again for every case."""
    siblings = _siblings(folder)
    importlib.invalidate_caches()
    before = set(sys.modules)
    siblings.loaded.clear()
    siblings.running += 1
    try:
        yield
    finally:
        siblings.running -= 1
        for name in set(sys.modules) - before:
            # submodules of packages loaded before belong to those packages, not to the case
            if name.partition(".")[0] not in before and _is_of(folder, name, sys.modules[name]):
                siblings.loaded[name] = sys.modules.pop(name)


class SiblingFinder(MetaPathFinder):
    """Finder of the modules of a folder for the code in the folder.

    Args:
        folder: folder of a case's file, resolved.
        last: True if the harness appended the folder to the path, False if it was there before.
    """

    def __init__(self, folder: Path, last: bool) -> None:
        self.folder, self.last = folder, last
        self.running = 0
        self.loaded: dict[str, ModuleType] = {}  # modules of the case loaded last

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module in the folder if the case imports it; None for other finders.

        Raises:
            ModuleNotFoundError: when a library imports a module that only the folder has.
        """
        if name in _in_use:
            return spec_from_loader(name, SiblingLoader(_in_use[name]))
        own = PathFinder.find_spec(name, [str(self.folder)]) if path is None else None
        if own is None and name not in self.loaded:
            return None
        importer = _importer(sys._getframe(1))
        if self.running and self._is_own(importer):
            return (
                own if own is not None and own.loader is not None else None
            )  # a namespace package does not hide a regular one
        if own is not None and self.last:
            elsewhere = self._elsewhere(name, target)
            if elsewhere is not None:
                return elsewhere
            if self._is_imported_by_library(importer):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        elif own is not None and getattr(PathFinder.find_spec(name), "origin", None) != own.origin:
            return None
        return spec_from_loader(name, SiblingLoader(self.loaded[name])) if name in self.loaded else None

    def _elsewhere(self, name: str, target: ModuleType | None) -> ModuleSpec | None:
        paths = [path for path in sys.path if path != str(self.folder)]
        for finder in sys.meta_path:
            if isinstance(finder, SiblingFinder):
                continue
            spec = PathFinder.find_spec(name, paths) if finder is PathFinder else finder.find_spec(name, None, target)
            if spec is not None:
                return spec
        return None

    def _is_own(self, frame: FrameType | None) -> bool:
        name, file = ("", "") if frame is None else (frame.f_globals.get(key) for key in ("__name__", "__file__"))
        if not name or not file:
            return False
        if name.startswith(PREFIX):
            return Path(file).resolve().parent == self.folder
        return file in _files(self.folder, name)

    def _is_imported_by_library(self, frame: FrameType | None) -> bool:
        """Return True if a library that is being loaded runs the import, False in a call by the case."""
        while frame is not None and not self._is_own(frame):
            if _is_importlib(frame):
                return True
            frame = frame.f_back
        return False


class SiblingLoader(Loader):
    """Loader of a loaded module, so that its classes and functions stay the same objects."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing."""


def appended_folders() -> set[str]:
    """Return the folders that the harness appended to the path."""
    return {str(finder.folder) for finder in sys.meta_path if isinstance(finder, SiblingFinder) and finder.last}


def hidden_sibling(folder: Path, error: Exception) -> str:
    """Return the file in the folder that a loaded module of the same name hid from an import; empty for none."""
    module = sys.modules.get(str(error.name)) if isinstance(error, ImportError) else getattr(error, "obj", None)
    if not isinstance(module, ModuleType) or _is_of(folder, module.__name__, module):
        return ""
    file = folder / f"{module.__name__}.py"
    return file.name if file.is_file() else ""


def _siblings(folder: Path) -> SiblingFinder:
    """Return the finder of a folder; the first call installs it and appends the folder to the path."""
    listed = str(folder) in sys.path
    if not listed:
        sys.path.append(str(folder))
    for finder in sys.meta_path:
        if isinstance(finder, SiblingFinder) and finder.folder == folder:
            return finder
    finder = SiblingFinder(folder, last=not listed)
    sys.meta_path.insert(0, finder)
    return finder


def _importer(frame: FrameType | None) -> FrameType | None:
    """Return the importing frame: the first one outside `importlib`."""
    while frame is not None and _is_importlib(frame):
        frame = frame.f_back
    return frame


def _is_importlib(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in ("importlib", "_frozen_importlib")


def _is_of(folder: Path, name: str, module: ModuleType) -> bool:
    """Return True if a module is the one of that name in the folder itself."""
    paths = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return not _files(folder, name).isdisjoint(paths)


def _files(folder: Path, name: str) -> set[str]:
    path = folder.joinpath(*name.split("."))
    return {f"{path}.py", str(path / "__init__.py"), str(path)}
