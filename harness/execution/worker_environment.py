"""Processes of our own find no module in the working directory: a file named `gzip.py` there is not Python's.

`-P` leaves the working directory off the path, and what multiprocessing starts in such a process inherits it. The
variable `PYTHONSAFEPATH` would do so for every program, also for the scripts that a case starts itself: it is for
MLflow's server alone, whose processes are all our own.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.sibling_imports import added_places

ENTRY = Path(__file__).with_name("worker_entry.py")


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `main` of a module of this very package in a process of its own.

    It finds what this process finds: the places that this process has on its path, and a new one has not, come last.
    """
    root = str(Path(__file__).parents[2])
    places = dict.fromkeys(os.path.abspath(place) for place in (root, *sys.path) if place not in added_places())
    return [sys.executable, "-P", str(ENTRY), module, str(len(arguments)), *arguments, *places]


def leave_working_directory() -> None:
    """Take the working directory, which `python -c` puts first, off the path of this process, and of what multiprocessing
    starts in it: that copies the flags of the interpreter, which cannot be changed, and the path later.
    """
    if not sys.flags.safe_path and sys.path[:1] == [""]:
        del sys.path[0]
    flags = subprocess._args_from_interpreter_flags  # type: ignore[attr-defined]
    for name in ("subprocess", "multiprocessing.util"):
        if name in sys.modules:
            setattr(sys.modules[name], flags.__name__, lambda: [*(flag for flag in flags() if flag != "-P"), "-P"])


def without_empty_places(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process; an empty entry of PYTHONPATH, which stands for the working directory, is left out.

    >>> without_empty_places({"PYTHONPATH": f"{os.pathsep}lib{os.pathsep}", "HOME": "/"})
    {'PYTHONPATH': 'lib', 'HOME': '/'}
    >>> without_empty_places({"PYTHONPATH": os.pathsep})
    {}
    """
    places = [place for place in variables.get("PYTHONPATH", "").split(os.pathsep) if place]
    kept = {name: value for name, value in variables.items() if name != "PYTHONPATH" or places}
    return kept | ({"PYTHONPATH": os.pathsep.join(places)} if places else {})
