"""Facts about a case that a plan needs before torch is loaded: its file, its numbers, its training defaults.

If a case file contains `numbers` and `train` as literal values, they are read without running it. Any other file is
imported.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, did_you_mean

CASES_FOLDER = Path(__file__).parent.parent / "cases"
DEFAULT_TRAINING = {"epochs": 30, "batch_size": 64, "learning_rate": 1e-3, "snapshot_every": 1, "device": "auto"}


@dataclass(frozen=True)
class CaseFacts:
    """Numbers of a case, its training defaults, its optimizer, and the number that multiplies its penalties."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    penalty_weight: str | None = "beta"
    optimizer: str = "Adam"


def shipped_cases() -> list[str]:
    """Return the names of the shipped cases."""
    return sorted(path.stem for path in CASES_FOLDER.glob("*.py") if not path.stem.startswith("_"))


def case_file(case: str, folder: Path) -> Path:
    """Return the file of a shipped case, or of a case relative to the folder of the experiment file.

    Raises:
        HarnessError: if the file does not exist.
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
    """Return the facts of the case in a file.

    Raises:
        HarnessError: if the facts are not literal values and the file cannot be run.
    """
    try:
        return _written_out(ast.parse(path.read_bytes()))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        from harness.case import load_case

        case = load_case(path)
        optimizer = "Adam" if case.optimizer is None else "of the case"
        return CaseFacts(dict(case.numbers), dict(case.train), case.penalty_weight, optimizer)


def _written_out(module: ast.Module) -> CaseFacts:
    keywords = {keyword.arg: keyword.value for keyword in _the_case(module).keywords}
    if None in keywords:
        raise ValueError("** hides the keywords")
    numbers, train = (ast.literal_eval(keywords[key]) if key in keywords else {} for key in ("numbers", "train"))
    if not isinstance(numbers, dict) or not isinstance(train, dict):
        raise ValueError("expected a dict")
    weight = ast.literal_eval(keywords["penalty_weight"]) if "penalty_weight" in keywords else "beta"
    return CaseFacts(numbers, train, weight, _optimizer_name(keywords.get("optimizer")))


def _optimizer_name(value: ast.expr | None) -> str:
    """Name the optimizer that a case's function builds: the last name that it calls.

    >>> _optimizer_name(ast.parse("lambda parameters: torch.optim.SGD(parameters, lr=0.1)", mode="eval").body)
    'SGD'
    """
    if value is None or (isinstance(value, ast.Constant) and value.value is None):
        return "Adam"
    body = value.body if isinstance(value, ast.Lambda) else value
    function = body.func if isinstance(body, ast.Call) else body
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "of the case")


def _the_case(module: ast.Module) -> ast.Call:
    # if the name is bound anywhere except in one plain assignment, only running the file tells its value
    assignments = [node for node in module.body if isinstance(node, ast.Assign) and _names_case(node.targets)]
    bound = sum(isinstance(node, ast.Name) and node.id == "case" and _stores(node) for node in ast.walk(module))
    if len(assignments) != 1 or bound != 1 or not isinstance(assignments[0].value, ast.Call):
        raise ValueError("no single `case = ...`")
    function = assignments[0].value.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name != "Case" or assignments[0].value.args[4:]:
        raise ValueError("no plain `Case(...)`")
    return assignments[0].value


def _names_case(targets: list[ast.expr]) -> bool:
    return len(targets) == 1 and isinstance(targets[0], ast.Name) and targets[0].id == "case"


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long, or contains a null character
        return False
