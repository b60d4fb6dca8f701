"""Short names for variants: what distinguishes them first, as MLflow cuts names at about 14 characters."""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.remedies.levels import FACTORS, Level


def variant_name(levels: Mapping[str, Level]) -> str:
    """The levels in words: those that say enough alone stand bare, those that leave the case as it is are left out.

    >>> variant_name({"penalty": "kl_sigmoid_of_relu", "activation": "leaky_relu", "batchnorm": "on", "dropout": 0.0})
    'kl_sigmoid_of_relu leaky_relu bn=on'
    >>> variant_name({"batchnorm": "off", "rho": 0.05})
    'rho=0.05'
    """
    told = {name: level for name, level in levels.items() if name in BARE or not leaves_as_is(name, level)}
    shown = told or dict(list(levels.items())[:1])
    return " ".join(_part(name, level) for name, level in shown.items())


def leaves_as_is(name: str, level: Level) -> bool:
    """Whether the level is the one that changes nothing."""
    return name in FACTORS and FACTORS[name].default is not None and FACTORS[name].default == level


def cell_name(levels: Mapping[str, Any]) -> str:
    """All levels of a partial cell, as they stand in the experiment file.

    >>> cell_name({"penalty": "none", "dropout": 0.2})
    'penalty: none, dropout: 0.2'
    """
    return ", ".join(f"{name}: {_one_or_more(level)}" for name, level in levels.items())


def _one_or_more(level: Level | Sequence[Level]) -> str:
    return f"[{', '.join(map(str, level))}]" if isinstance(level, list | tuple) else str(level)


def _part(name: str, level: Level) -> str:
    bare = name in BARE and isinstance(level, str) and level != "default"
    return str(level) if bare else f"{SHORT.get(name, name)}={level}"


BARE = ("penalty", "activation")
SHORT = {
    "batchnorm": "bn",
    "bias_init": "bias",
    "output_activation": "out",
    "learning_rate": "lr",
    "batch_size": "batch",
}
