"""The table of all strangers."""

import assorted
import contrastive
import held_out
import held_out_codes
import held_out_terms
import plumbing
import quantized
import realistic
import sparse_codes
import variational
from stranger import Stranger

STRANGERS: tuple[Stranger, ...] = (
    *variational.STRANGERS,
    *sparse_codes.STRANGERS,
    *quantized.STRANGERS,
    *contrastive.STRANGERS,
    *plumbing.STRANGERS,
    *assorted.STRANGERS,
    *realistic.STRANGERS,
    *held_out.STRANGERS,
    *held_out_codes.STRANGERS,
    *held_out_terms.STRANGERS,
)


def by_name(name: str) -> Stranger:
    """Return a stranger by its name."""
    return next(stranger for stranger in STRANGERS if stranger.name == name)
