"""The shipped experiments: those of the repository, or those that travel in the installed package."""

import re
from pathlib import Path

from harness.errors import HarnessError, did_you_mean

PACKAGE = Path(__file__).parents[1] / "shipped"  # filled when the package is built
REPOSITORY = Path(__file__).parents[2] / "experiments"
CASE_FILE = re.compile(r"^case: (\w+\.py)$", re.MULTILINE)


def shipped_folder() -> Path:
    """Return the folder of the shipped experiments."""
    return PACKAGE if PACKAGE.is_dir() else REPOSITORY


def shipped_experiments() -> list[str]:
    """Return the names of the shipped experiments.

    >>> "quickstart" in shipped_experiments()
    True
    """
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def shipped_file(name: str) -> Path:
    """Return the file of a shipped experiment.

    Raises:
        HarnessError: if no shipped experiment has this name.
    """
    if name not in shipped_experiments():
        raise HarnessError(f"{did_you_mean('shipped experiment', name, shipped_experiments())}; or give a YAML file")
    return shipped_folder() / f"{name}.yaml"


def experiment_file(path: str | Path) -> Path:
    """Return the path of an experiment: a file as it is, and a word without a suffix as a shipped experiment.

    Raises:
        HarnessError: if a word names neither a file nor a shipped experiment.
    """
    file = Path(path)
    if file.suffix or file.exists() or len(file.parts) != 1:
        return file
    return shipped_file(str(path))


def companions(file: Path) -> list[Path]:
    """Return an experiment file, and the case file beside it if it names one."""
    match = CASE_FILE.search(file.read_text())
    return [file, *([file.with_name(match[1])] if match else [])]


def summaries() -> dict[str, str]:
    """Return the first sentence of the comment that opens each shipped experiment, by name."""
    return {name: _first_sentence(shipped_file(name).read_text()) for name in shipped_experiments()}


def _first_sentence(text: str) -> str:
    comment = " ".join(line.lstrip("# ") for line in text.split("\nname:")[0].splitlines() if line.startswith("#"))
    match = re.match(r".*?[.?](?= [A-Z0-9]|$)", comment)
    return match[0] if match else comment
