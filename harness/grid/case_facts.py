"""What a plan must know of a case before torch is loaded: its file, its numbers, its training defaults.

Where a case file writes `numbers` and `train` out as plain values, they are read without running it. Any other file is
loaded as the Python code that it is.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, did_you_mean

CASES_FOLDER = Path(__file__).parent.parent / "cases"


@dataclass(frozen=True)
class CaseFacts:
    """The numbers of a case, its training defaults and which number weighs its penalties, as its file says."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    penalty_weight: str | None = "beta"


def shipped_cases() -> list[str]:
    """The names of the cases that come with the harness."""
    return sorted(path.stem for path in CASES_FOLDER.glob("*.py") if not path.stem.startswith("_"))


def case_file(case: str, folder: Path) -> Path:
    """The file of a shipped case, or of one relative to the folder of the experiment file.

    Raises:
        HarnessError: when there is none.
    """
    if not case.endswith(".py"):
        if case not in shipped_cases():
            raise HarnessError(f"{did_you_mean('case', case, shipped_cases())}; or give the path of a .py file")
        return CASES_FOLDER / f"{case}.py"
    path = folder / case
    if not _is_file(path):
        raise HarnessError(
            f"no file {case!r} in {folder.resolve()}; a case is a Python file with a module-level `case`"
        )
    return path.resolve()


def case_facts(path: Path) -> CaseFacts:
    """The facts of the case in a file.

    Raises:
        HarnessError: when a file whose facts are not written out cannot be run.
    """
    try:
        return _written_out(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        from harness.case import load_case

        case = load_case(path)
        return CaseFacts(dict(case.numbers), dict(case.train), case.penalty_weight)


def _written_out(module: ast.Module) -> CaseFacts:
    keywords = {each.arg: each.value for each in _the_case(module).keywords}
    if None in keywords:
        raise ValueError("** hides what is given")
    numbers, train = (ast.literal_eval(keywords[key]) if key in keywords else {} for key in ("numbers", "train"))
    if not isinstance(numbers, dict) or not isinstance(train, dict):
        raise ValueError("a dict is wanted")
    weight = ast.literal_eval(keywords["penalty_weight"]) if "penalty_weight" in keywords else "beta"
    return CaseFacts(numbers, train, weight)


def _the_case(module: ast.Module) -> ast.Call:
    # a name that is bound anywhere but in one plain assignment may be anything: then the file must be run
    found = [each for each in module.body if isinstance(each, ast.Assign) and _names_case(each.targets)]
    bound = sum(isinstance(each, ast.Name) and each.id == "case" and _stores(each) for each in ast.walk(module))
    if len(found) != 1 or bound != 1 or not isinstance(found[0].value, ast.Call):
        raise ValueError("no single `case = ...`")
    function = found[0].value.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name != "Case" or found[0].value.args[4:]:
        raise ValueError("no plain `Case(...)`")
    return found[0].value


def _names_case(targets: list[ast.expr]) -> bool:
    return len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == "case"


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a null character, is no file
        return False
