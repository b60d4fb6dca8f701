"""A small experiment."""

import pytest

from harness.grid import Experiment


@pytest.fixture
def grid() -> Experiment:
    """Three factors, eight seeds, one interaction, one contrast."""
    return Experiment(
        name="planted",
        case="forum",
        factors={"penalty": ("as_posted", "none", "l1"), "activation": ("relu", "leaky_relu"), "dropout": (0.0, 0.2)},
        seeds=tuple(range(8)),
        interactions=(("penalty", "activation"),),
        contrasts=(({"penalty": "l1"}, {"penalty": "none"}),),
    )
