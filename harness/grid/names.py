"""Short names for variants; what distinguishes them comes first, because MLflow cuts names at about 14 characters."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.factors import Level


def variant_name(levels: Mapping[str, Level], baseline: Mapping[str, Level]) -> str:
    """Name a variant by its penalty and activation, then by the levels that differ from the baseline.

    >>> variant_name({"penalty": "none", "batchnorm": "on"}, {"penalty": "l1", "batchnorm": "off"})
    'none bn=on'
    >>> variant_name({"batchnorm": "off", "rho": 0.05}, {"batchnorm": "off", "rho": 0.05})
    'bn=off'
    """
    distinctive = {name: level for name, level in levels.items() if name in BARE or level != baseline.get(name)}
    displayed = distinctive or dict(list(levels.items())[:1])
    return " ".join(_part(name, level) for name, level in displayed.items())


def cell_name(levels: Mapping[str, Any]) -> str:
    """Name a partial cell by all of its levels, as in the experiment file.

    >>> cell_name({"penalty": "none", "dropout": 0.2})
    'penalty: none, dropout: 0.2'
    """
    return ", ".join(f"{name}: {_one_or_more(level)}" for name, level in levels.items())


def _one_or_more(level: Level | Sequence[Level]) -> str:
    return f"[{', '.join(map(str, level))}]" if isinstance(level, list | tuple) else str(level)


def _part(name: str, level: Level) -> str:
    return str(level) if name in BARE else f"{SHORT.get(name, name)}={level}"


BARE = ("penalty", "activation")
SHORT = {
    "batchnorm": "bn",
    "bias_init": "bias",
    "output_activation": "out",
    "learning_rate": "lr",
    "batch_size": "batch",
}
