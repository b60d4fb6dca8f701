"""What each verdict and flag means, and what to do about it, in words."""

from dataclasses import dataclass

from harness.diagnosis.severity import Severity
from harness.diagnosis.verdicts import OutputVerdict, UnitVerdict


@dataclass(frozen=True)
class RuleText:
    """A rule's severity, what it means, and what to do about it."""

    severity: Severity
    meaning: str
    remedy: str = ""


LAYER: dict[str, RuleText] = {
    "invalid": RuleText(
        Severity.FAULT,
        "numbers that are not finite reach this layer",
        "lower the learning rate or clip; look for log(0) and 0/0 in the loss",
    ),
    "not_testable": RuleText(
        Severity.RISK, "nothing can be said of dependence on the input", "judge it on more, and different, rows"
    ),
    "full_collapse": RuleText(
        Severity.FAULT,
        "no unit depends on the input: the decoder sees a constant",
        "audit the penalty; zero the bias, normalise before the activation, or use leaky_relu",
    ),
    "single_live_unit": RuleText(
        Severity.FAULT,
        "one unit carries everything that passes the bottleneck",
        "audit the penalty; zero the bias, normalise before the activation, or use leaky_relu",
    ),
    "near_collapse": RuleText(
        Severity.FAULT,
        "every unit moves by less than a thousandth of its size",
        "normalise before the activation; look at the ablation effect before calling it used",
    ),
    "partial_collapse": RuleText(
        Severity.RISK,
        "the bottleneck is narrower than it was built",
        "zero the bias, or normalise before the activation; fewer units would do the same",
    ),
    "redundant": RuleText(
        Severity.RISK,
        "the units are copies of one another",
        "fewer units would do the same; decorrelate, or check that the units are initialised differently",
    ),
    "dimensional_collapse": RuleText(
        Severity.RISK,
        "the live units span few dimensions together",
        "decorrelate or whiten the code; compare the R2 with PCA of as many components",
    ),
    "single_unit_dominance": RuleText(
        Severity.FAULT,
        "one unit fires on every row and all others are constant: no code, whatever the loss says",
        "audit the penalty; zero the bias, normalise before the activation",
    ),
    "duplicates": RuleText(Severity.NOTE, "some units repeat others", "fewer units would do the same"),
    "nonlinear_redundancy": RuleText(
        Severity.NOTE,
        "units share much of their information without being correlated",
        "do not count them as independent dimensions",
    ),
    "rank_not_testable": RuleText(
        Severity.NOTE,
        "too few rows for the number of live units: the rank is not judged",
        "judge on at least 4 rows for each live unit",
    ),
    "nonlinear_redundancy_not_searched": RuleText(
        Severity.NOTE,
        "the layer has too many units to compare every pair of them nonlinearly",
        "diagnose the units of interest by themselves",
    ),
}

UNIT: dict[UnitVerdict, RuleText] = {
    UnitVerdict.INVALID: RuleText(
        Severity.FAULT, "not judged; the other units are", "find the first step at which they stop being finite"
    ),
    UnitVerdict.NOT_TESTABLE: RuleText(
        Severity.RISK,
        "a unit that had no chance to differ is neither dead nor alive",
        "judge it on more, and different, rows",
    ),
    UnitVerdict.NEVER_FIRED: RuleText(
        Severity.RISK, "counts as constant, but so few rows cannot tell dead from rare", "judge on at least 368 rows"
    ),
    UnitVerdict.DEAD: RuleText(
        Severity.RISK,
        "carries nothing and receives no gradient",
        "zero the bias, normalise before the activation, or use leaky_relu",
    ),
    UnitVerdict.CONSTANT_AT_TARGET: RuleText(
        Severity.RISK,
        "sits at the penalty's target: a penalty of zero, and no information",
        "penalise the activation's mean and its spread, or another site",
    ),
    UnitVerdict.CONSTANT_ON: RuleText(
        Severity.RISK, "a bias in disguise: the decoder could absorb it", "normalise before the activation"
    ),
    UnitVerdict.CONSTANT_OFF: RuleText(Severity.RISK, "the same on every row", "normalise before the activation"),
    UnitVerdict.SUBTHRESHOLD: RuleText(
        Severity.NOTE, "varies below the threshold: not dead, and it carries what it carries"
    ),
    UnitVerdict.RARE_INSUFFICIENT: RuleText(
        Severity.NOTE, "too few firing rows to judge dependence", "judge on more rows"
    ),
    UnitVerdict.NEAR_CONSTANT: RuleText(
        Severity.RISK,
        "hardly moves, and no reference variable shows in it",
        "the ablation effect decides what it is worth",
    ),
    UnitVerdict.RARE: RuleText(
        Severity.NOTE, "fires seldom: specialised or dying, which the ablation effect tells apart"
    ),
    UnitVerdict.SATURATED_BIMODAL: RuleText(
        Severity.NOTE,
        "a binary unit: informative, but with no gradient left",
        "lower the gain before the sigmoid to train it further",
    ),
}

UNIT_FLAGS: dict[str, RuleText] = {
    "stochastic": RuleText(
        Severity.NOTE,
        "differs between two passes over the same rows (noise, dropout, batch statistics)",
        "judge in eval mode, or average passes",
    ),
    "heavy_tailed": RuleText(
        Severity.NOTE, "a few rows carry it: its mean and correlations rest on them", "look at those rows"
    ),
    "unused": RuleText(
        Severity.RISK, "the decoder does as well with its mean: alive, and not used", "fewer units would do the same"
    ),
    "always_on": RuleText(
        Severity.NOTE, "never off: an affine unit where a sparse one was meant", "normalise before the activation"
    ),
}

OUTPUT: dict[OutputVerdict, RuleText] = {
    OutputVerdict.INVALID: RuleText(
        Severity.FAULT, "the reconstruction holds NaN or infinities", "lower the learning rate or clip"
    ),
    OutputVerdict.NOT_TESTABLE: RuleText(
        Severity.RISK, "the data do not vary on these rows: R2 is not defined", "give more, and different, rows"
    ),
    OutputVerdict.MEAN_OUTPUT: RuleText(
        Severity.FAULT,
        "the decoder answers with the mean whatever the code is",
        "train longer or without the penalty first; look at the bottleneck",
    ),
    OutputVerdict.DEAD_OUTPUTS: RuleText(
        Severity.FAULT,
        "some outputs are constant while the data vary: an output activation that cannot be left",
        "a linear output, or a sigmoid for data in [0, 1]",
    ),
    OutputVerdict.WORSE_THAN_MEAN: RuleText(
        Severity.FAULT,
        "answering with the mean would be better: live units are no health",
        "train longer; check scale and range of data and output",
    ),
}

BELOW_PCA = RuleText(
    Severity.NOTE,
    "as many principal components do better: the code is not the limit, or it is badly used",
    "train longer; a linear output; look at dead and redundant units",
)
