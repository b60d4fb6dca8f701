"""The exception of the package, and suggestions for misspelled names."""

from collections.abc import Iterable
from difflib import get_close_matches


class HarnessError(ValueError):
    """A request that cannot be carried out; the message says where, what, and what to write instead.

    Bad input raises it. Outcomes of training (NaN, dead units, an inert penalty) are findings, not exceptions.
    """


def did_you_mean(noun: str, name: object, candidates: Iterable[object], article: str = "no") -> str:
    """Return the sentence for an unknown name, with the nearest known name.

    >>> did_you_mean("activation", "leaky-relu", ["relu", "leaky_relu"])
    "no activation is called 'leaky-relu'; did you mean 'leaky_relu'? Known: relu, leaky_relu"
    >>> did_you_mean("activation", "ReLU", ["relu", "tanh"])
    "no activation is called 'ReLU'; did you mean 'relu'? Known: relu, tanh"
    """
    names = list(map(str, candidates))
    lower = {candidate.lower(): candidate for candidate in reversed(names)}
    close = get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    guess = f"; did you mean {lower[close[0]]!r}?" if close else "."
    return f"{article} {noun} is called {str(name)!r}{guess} Known: {', '.join(names) or 'none'}"


def well_formed(text: str) -> str:
    """Return a text that files and tables can hold: halves of surrogate pairs are written as escapes.

    >>> well_formed("a\\ud800b"), well_formed("é")
    ('a\\\\ud800b', 'é')
    """
    return text.encode("utf-8", "backslashreplace").decode()


def missing_extra(error: ImportError) -> HarnessError | None:
    """Return the sentence for a package that an extra brings and that is not installed; None for any other package.

    >>> print(missing_extra(ModuleNotFoundError("No module named 'mlflow'", name="mlflow")))
    mlflow is not installed: `pip install 'collapse-harness[mlflow]'` brings it, and 'collapse-harness[all]' what every command needs
    >>> missing_extra(ModuleNotFoundError("No module named 'a_module_of_mine'", name="a_module_of_mine"))
    """
    package = (error.name or "").split(".")[0]
    if package not in EXTRAS:
        return None
    extra = EXTRAS[package]
    return HarnessError(
        f"{package} is not installed: `pip install 'collapse-harness[{extra}]'` brings it, and 'collapse-harness[all]' what every command needs"
    )


EXTRAS = {
    **dict.fromkeys(("pandas", "pyarrow", "safetensors"), "files"),
    **dict.fromkeys(("sklearn", "PIL", "ruamel", "filelock"), "grid"),
    "mlflow": "mlflow",
    "ray": "ray",
    "psycopg": "postgresql",
    "lightning": "lightning",
    **dict.fromkeys(("transformers", "accelerate"), "transformers"),
    **dict.fromkeys(("seaborn", "matplotlib", "jinja2"), "report"),
}
