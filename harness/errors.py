"""The one exception of the harness, and the sentence that suggests what was meant."""

from collections.abc import Iterable
from difflib import get_close_matches


class HarnessError(ValueError):
    """A request that cannot be carried out: says where, what, and what to write instead.

    Bad input raises it; bad science (NaN, dead units, an inert penalty) never does: that is a finding.
    """


def did_you_mean(kind: str, name: object, known: Iterable[object], article: str = "no") -> str:
    """The sentence for a name that does not exist.

    >>> did_you_mean("activation", "leaky-relu", ["relu", "leaky_relu"])
    "no activation is called 'leaky-relu'; did you mean 'leaky_relu'? Known: relu, leaky_relu"
    >>> did_you_mean("activation", "ReLU", ["relu", "tanh"])
    "no activation is called 'ReLU'; did you mean 'relu'? Known: relu, tanh"
    """
    names = [str(each) for each in known]
    lower = {each.lower(): each for each in reversed(names)}
    close = get_close_matches(str(name).lower(), lower, n=1, cutoff=0.5)
    guess = f"; did you mean {lower[close[0]]!r}?" if close else "."
    return f"{article} {kind} is called {str(name)!r}{guess} Known: {', '.join(names) or 'none'}"


def missing_extra(error: ImportError) -> HarnessError | None:
    """Return the sentence for a package that an extra brings and that is not installed; None for any other package.

    >>> print(missing_extra(ModuleNotFoundError("No module named 'mlflow'", name="mlflow")))
    mlflow is not installed: `pip install 'harness[mlflow]'` brings it, and 'harness[all]' what every command needs
    >>> missing_extra(ModuleNotFoundError("No module named 'a_module_of_mine'", name="a_module_of_mine"))
    """
    package = (error.name or "").split(".")[0]
    if package not in EXTRAS:
        return None
    extra = EXTRAS[package]
    return HarnessError(
        f"{package} is not installed: `pip install 'harness[{extra}]'` brings it, and 'harness[all]' what every command needs"
    )


EXTRAS = {
    **dict.fromkeys(("pandas", "pyarrow", "safetensors"), "files"),
    **dict.fromkeys(("sklearn", "PIL", "ruamel", "filelock"), "grid"),
    "mlflow": "mlflow",
    **dict.fromkeys(("seaborn", "matplotlib", "jinja2"), "report"),
}
