"""Environment of processes of our own, which do not import from the working directory (a `gzip.py` there, for example).

`-P` keeps the working directory off the path, also for processes that multiprocessing starts. The variable
`PYTHONSAFEPATH` would do so for every program, including scripts that a case starts itself, so it is set only for MLflow's
server.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from harness.sibling_imports import appended_folders

ENTRY = Path(__file__).with_name("worker_entry.py")


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `main` of a module of this package in a new process.

    The new process gets the folders on this process's path, appended to its own.
    """
    root = str(Path(__file__).parents[2])
    folders = dict.fromkeys(os.path.abspath(folder) for folder in (root, *sys.path) if folder not in appended_folders())
    return [sys.executable, "-P", str(ENTRY), module, str(len(arguments)), *arguments, *folders]


def leave_working_directory() -> None:
    """Remove the working directory, which `python -c` puts first, from the path of this process and its children.

    multiprocessing copies the flags of the interpreter, which cannot be changed, and later the path.
    """
    if not sys.flags.safe_path and sys.path[:1] == [""]:
        del sys.path[0]
    flags = subprocess._args_from_interpreter_flags  # type: ignore[attr-defined]
    for name in ("subprocess", "multiprocessing.util"):
        if name in sys.modules:
            setattr(sys.modules[name], flags.__name__, lambda: [*(flag for flag in flags() if flag != "-P"), "-P"])


def without_empty_places(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without empty entries of PYTHONPATH, which stand for the working directory.

    >>> without_empty_places({"PYTHONPATH": f"{os.pathsep}lib{os.pathsep}", "HOME": "/"})
    {'PYTHONPATH': 'lib', 'HOME': '/'}
    >>> without_empty_places({"PYTHONPATH": os.pathsep})
    {}
    """
    folders = [folder for folder in variables.get("PYTHONPATH", "").split(os.pathsep) if folder]
    entries = {name: value for name, value in variables.items() if name != "PYTHONPATH" or folders}
    return entries | ({"PYTHONPATH": os.pathsep.join(folders)} if folders else {})
