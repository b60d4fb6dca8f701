"""Modules beside a case's file, as `python case.py` finds them, and found by nobody but the case.

While the file runs, its own import statements look beside it first. Modules that are loaded already stay what they are.
Afterwards its functions still find what no other place has. A library that is loaded does not: `random.py` may lie beside
a case, and so may `bottleneck.py`, which pandas would take for a package that it knows.
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

PREFIX = "harness_case_"  # of the names under which the files of cases are loaded
_in_use: WeakValueDictionary[str, ModuleType] = WeakValueDictionary()


def own_name(path: Path) -> str:
    """A name for the module of a case's file that no other has which is still in use."""
    name = f"{PREFIX}{path.stem}"
    return next(free for free in chain([name], (f"{name}_{number}" for number in count(1))) if free not in _in_use)


@contextmanager
def with_siblings(module: ModuleType) -> Iterator[None]:
    """Let a case's file be imported by its name: while it runs, for dataclasses, and later by `pickle`, as long as its
    functions are in use.

    Later it is not listed among the modules: what sends a function to a process that cannot import it (joblib) sends
    the function itself then.
    """
    vars(module)["__harness_module__"] = module  # lives as long as its functions do, and no longer
    _in_use[module.__name__] = sys.modules[module.__name__] = module
    try:
        yield
    finally:
        del sys.modules[module.__name__]


@contextmanager
def sibling_imports(folder: Path) -> Iterator[None]:
    """Let a case's file find the modules in its folder, each run anew for each case that is loaded."""
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
            # a package that was there before is nobody's who is loaded now: this one, where a case lies beside it
            if name.partition(".")[0] not in before and _is_of(folder, name, sys.modules[name]):
                siblings.loaded[name] = sys.modules.pop(name)


class SiblingFinder(MetaPathFinder):
    """Finds the modules of a folder for the code that lies in it.

    Args:
        folder: of a case's file, resolved.
        last: the harness put the folder on the path, as its last entry; else its place there is somebody's choice.
    """

    def __init__(self, folder: Path, last: bool) -> None:
        self.folder, self.last = folder, last
        self.running = 0
        self.loaded: dict[str, ModuleType] = {}  # by the case that was loaded last

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module in the folder where the case asks for it; None leaves the answer to others.

        Raises:
            ModuleNotFoundError: where a library asks for what the folder alone has.
        """
        if name in _in_use:
            return spec_from_loader(name, SiblingLoader(_in_use[name]))
        own = PathFinder.find_spec(name, [str(self.folder)]) if path is None else None
        if own is None and name not in self.loaded:
            return None
        importer = _importer(sys._getframe(1))
        if self.running and self._is_own(importer):
            return own if own is not None and own.loader is not None else None  # a plain folder hides no package
        if own is not None and self.last:
            elsewhere = self._elsewhere(name, target)
            if elsewhere is not None:
                return elsewhere
            if self._is_asked_by_a_library(importer):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        elif own is not None and getattr(PathFinder.find_spec(name), "origin", None) != own.origin:
            return None
        return spec_from_loader(name, SiblingLoader(self.loaded[name])) if name in self.loaded else None

    def _elsewhere(self, name: str, target: ModuleType | None) -> ModuleSpec | None:
        others = [place for place in sys.path if place != str(self.folder)]
        for finder in sys.meta_path:
            if isinstance(finder, SiblingFinder):
                continue
            spec = PathFinder.find_spec(name, others) if finder is PathFinder else finder.find_spec(name, None, target)
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

    def _is_asked_by_a_library(self, frame: FrameType | None) -> bool:
        """Return True while a library is loaded, which looks for what may be installed; False in a call by the case."""
        while frame is not None and not self._is_own(frame):
            if _is_importlib(frame):
                return True
            frame = frame.f_back
        return False


class SiblingLoader(Loader):
    """Gives a module that is loaded already, so that its classes and functions stay the same objects."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module."""
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Run nothing."""


def added_places() -> set[str]:
    """The folders that are on the path for the cases in them alone."""
    return {str(finder.folder) for finder in sys.meta_path if isinstance(finder, SiblingFinder) and finder.last}


def hidden_sibling(folder: Path, error: Exception) -> str:
    """The file in the folder that an import meant where it met a module loaded before; empty where there is none."""
    module = sys.modules.get(str(error.name)) if isinstance(error, ImportError) else getattr(error, "obj", None)
    if not isinstance(module, ModuleType) or _is_of(folder, module.__name__, module):
        return ""
    file = folder / f"{module.__name__}.py"
    return file.name if file.is_file() else ""


def _siblings(folder: Path) -> SiblingFinder:
    """The finder of a folder; the first time, it is put before all others, and the folder last on the path."""
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
    """The frame that imports: the first outside `importlib`."""
    while frame is not None and _is_importlib(frame):
        frame = frame.f_back
    return frame


def _is_importlib(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in ("importlib", "_frozen_importlib")


def _is_of(folder: Path, name: str, module: ModuleType) -> bool:
    """Whether a module is the one of that name in the folder, not one of an environment that lies in it too."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return not _files(folder, name).isdisjoint(places)


def _files(folder: Path, name: str) -> set[str]:
    place = folder.joinpath(*name.split("."))
    return {f"{place}.py", str(place / "__init__.py"), str(place)}
