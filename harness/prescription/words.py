"""Changes as the words of `--try`."""

import re
from collections.abc import Mapping

from harness.case import Case
from harness.errors import HarnessError, did_you_mean
from harness.factors import FACTORS, Level, check_level, known_factors

# the level of a factor that stands alone
ALONE: Mapping[str, tuple[str, Level]] = {
    "batchnorm": ("batchnorm", "on"),
    "dropout": ("dropout", 0.2),
    "zero_bias": ("bias_init", "zero"),
    "warmup": ("warmup", 0.5),
    "rate_warmup": ("rate_warmup", 0.1),
    "gradient_clip": ("gradient_clip", 1.0),
    "free_bits": ("free_bits", 0.1),
}
REPEATED = ("batchnorm", "weight_init", "output_activation")  # factors whose words say nothing alone, or two things


def change_of(word: str, case: Case) -> dict[str, Level]:
    """Return the change that a word means: a factor with its level, or a level or factor alone.

    Raises:
        HarnessError: for a word that means no change.
    """
    name, equals, level = word.partition("=")
    if equals:
        number = re.fullmatch(r"-?\d+(?:\.\d*)?(?:e[+-]?\d+)?", level)
        return {name: check_level(name, float(level) if number else level, case.numbers)}
    if name in ALONE:
        return dict([ALONE[name]])
    choices = {choice: factor for factor in FACTORS for choice in FACTORS[factor].choices if factor not in REPEATED}
    if name not in choices:
        raise HarnessError(f"try: {did_you_mean('change', name, [*known_factors(case.numbers), *choices])}")
    return {choices[name]: check_level(choices[name], name, case.numbers)}
