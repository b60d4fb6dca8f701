"""Severity, meaning and remedy of each verdict and flag."""

from dataclasses import dataclass

from harness.diagnosis.severity import Severity
from harness.diagnosis.verdicts import OutputVerdict, UnitVerdict


@dataclass(frozen=True)
class RuleText:
    """Severity of a rule, its meaning, and the remedy."""

    severity: Severity
    meaning: str
    remedy: str = ""


REVIVE = "zero the bias, normalize before the activation, or use leaky_relu"

LAYER: dict[str, RuleText] = {
    "invalid": RuleText(
        Severity.FAULT,
        "NaN or infinity reaches this layer",
        "lower the learning rate or clip gradients; look for log(0) and 0/0 in the loss",
    ),
    "not_testable": RuleText(
        Severity.RISK, "dependence on the input cannot be tested on these rows", "diagnose on more, and different, rows"
    ),
    "full_collapse": RuleText(
        Severity.FAULT,
        "no unit depends on the input: this layer passes no information on",
        f"audit the loss terms; {REVIVE}",
    ),
    "single_live_unit": RuleText(
        Severity.FAULT,
        "one unit carries all information that passes the bottleneck",
        f"audit the loss terms; {REVIVE}",
    ),
    "near_collapse": RuleText(
        Severity.FAULT,
        "every unit varies by less than a thousandth of its size",
        "normalize before the activation; check the ablation effect before relying on the layer",
    ),
    "partial_collapse": RuleText(
        Severity.RISK,
        "the bottleneck is narrower than designed",
        "zero the bias, or normalize before the activation; or use fewer units",
    ),
    "redundant": RuleText(
        Severity.RISK,
        "the units are copies of one another",
        "use fewer units, decorrelate them, or check that they are initialized differently",
    ),
    "dimensional_collapse": RuleText(
        Severity.RISK,
        "the live units span few dimensions together",
        "decorrelate or whiten the code; compare R2 with that of PCA with as many components",
    ),
    "single_unit_dominance": RuleText(
        Severity.FAULT,
        "one unit fires on every row and all others are constant: there is no code, however low the loss",
        "audit the loss terms; zero the bias, or normalize before the activation",
    ),
    "duplicates": RuleText(Severity.NOTE, "some units repeat others", "use fewer units"),
    "nonlinear_redundancy": RuleText(
        Severity.NOTE,
        "units share much of their information without being correlated",
        "do not count them as independent dimensions",
    ),
    "neural_collapse": RuleText(
        Severity.NOTE,
        "the code has little more than one point per class: usual at the end of a classifier's training, and a loss of"
        " everything else that the inputs contain",
        "stop earlier, or judge an earlier layer, if the code is to be used for other tasks",
    ),
    "rank_not_testable": RuleText(
        Severity.NOTE,
        "the rank of the live units is not judged: it takes at least 4 rows per live unit, and at most 4096 live units",
        "diagnose on more rows",
    ),
    "posterior_not_testable": RuleText(
        Severity.RISK,
        "the posterior of some units equals the prior on every row, but the rows are too few to call them at_prior",
        "diagnose on at least 368 distinct rows",
    ),
    "nonlinear_redundancy_not_searched": RuleText(
        Severity.NOTE,
        "the layer has too many units to compare every pair of them nonlinearly",
        "diagnose the units of interest by themselves",
    ),
}

UNIT: dict[UnitVerdict, RuleText] = {
    UnitVerdict.INVALID: RuleText(
        Severity.FAULT,
        "this unit is not judged; the others are judged as usual",
        "find the first step with a value that is not finite",
    ),
    UnitVerdict.NOT_TESTABLE: RuleText(
        Severity.RISK,
        "without different inputs a unit is neither dead nor alive",
        "diagnose on more, and different, rows",
    ),
    UnitVerdict.NEVER_FIRED: RuleText(
        Severity.RISK,
        "counts as constant, but so few rows cannot tell dead from rare",
        "diagnose on at least 368 distinct rows: pass more activations to diagnose(), or more rows in"
        " Case(evaluation=...)",
    ),
    UnitVerdict.DEAD: RuleText(Severity.RISK, "carries no information and receives no gradient", REVIVE),
    UnitVerdict.CONSTANT_AT_TARGET: RuleText(
        Severity.RISK,
        "equals the penalty's target on every row: the penalty is zero and the unit carries no information",
        "penalize the spread of the activation as well, or place the penalty elsewhere",
    ),
    UnitVerdict.CONSTANT_ON: RuleText(
        Severity.RISK, "acts as a bias that the decoder could absorb", "normalize before the activation"
    ),
    UnitVerdict.CONSTANT_OFF: RuleText(
        Severity.RISK, "has the same value on every row", "normalize before the activation"
    ),
    UnitVerdict.SUBTHRESHOLD: RuleText(
        Severity.NOTE, "varies below the threshold: the unit is not dead, its dependence is tested as usual"
    ),
    UnitVerdict.RARE_INSUFFICIENT: RuleText(
        Severity.NOTE, "fires on too few rows to judge dependence", "diagnose on more rows"
    ),
    UnitVerdict.AT_PRIOR: RuleText(
        Severity.RISK,
        "the posterior equals the prior (posterior collapse): a sample of this unit carries no information",
        "warm the KL weight up from 0, lower it, or use free bits",
    ),
    UnitVerdict.NEAR_CONSTANT: RuleText(
        Severity.RISK,
        "varies by less than a thousandth of its size and depends on no reference variable",
        "check the ablation effect before removing it",
    ),
    UnitVerdict.RARE: RuleText(
        Severity.NOTE, "fires seldom: specialized or dying; the ablation effect tells them apart"
    ),
    UnitVerdict.SATURATED_BIMODAL: RuleText(
        Severity.NOTE,
        "a binary unit: informative, but almost without gradient",
        "lower the gain before the sigmoid to train it further",
    ),
}

UNIT_FLAGS: dict[str, RuleText] = {
    "stochastic": RuleText(
        Severity.NOTE,
        "differs between two passes over the same rows (noise, dropout, batch statistics)",
        "diagnose in eval mode, or average passes",
    ),
    "heavy_tailed": RuleText(Severity.NOTE, "a few rows determine its mean and its correlations", "look at these rows"),
    "unused": RuleText(
        Severity.RISK,
        "the decoder does as well with the unit's mean: live, but not used",
        "use fewer units; if all are unused, look for a penalty that is too strong, or for a path around the code",
    ),
    "always_on": RuleText(
        Severity.NOTE, "active on every row, so it acts as a linear unit", "normalize before the activation"
    ),
    "input_independent": RuleText(
        Severity.RISK,
        "varies with the position in the sample (or with the training step) and is the same for every input",
        "audit the loss terms; look for what cuts the layer off from the input, such as weights of 0 or a mask",
    ),
}

OUTPUT: dict[OutputVerdict, RuleText] = {
    OutputVerdict.INVALID: RuleText(
        Severity.FAULT, "the output contains NaN or infinity", "lower the learning rate or clip gradients"
    ),
    OutputVerdict.NOT_TESTABLE: RuleText(
        Severity.RISK, "the data do not vary on these rows: R2 is not defined", "diagnose on more, and different, rows"
    ),
    OutputVerdict.CONSTANT_OUTPUT: RuleText(
        Severity.FAULT,
        "the output is the same for every input: the model cannot be used",
        "check the output activation (a softmax over one number is always 1) and the layers behind the bottleneck",
    ),
    OutputVerdict.MEAN_OUTPUT: RuleText(
        Severity.FAULT,
        "predicting the mean would do as well or better; live units alone do not make the layer healthy",
        "train longer or without the penalty first; check scale and range of data and output",
    ),
    OutputVerdict.DEAD_OUTPUTS: RuleText(
        Severity.FAULT,
        "some output features are constant while the data vary, as behind a saturated output activation",
        "use a linear output, or a sigmoid for data in [0, 1]",
    ),
    OutputVerdict.WORSE_THAN_MEAN: RuleText(
        Severity.FAULT,
        "predicting the mean would do better; live units alone do not make the layer healthy",
        "train longer; check scale and range of data and output",
    ),
}

BELOW_PCA = RuleText(
    Severity.NOTE,
    "as many principal components do better: the code is not the limit, or the decoder does not use it fully",
    "train longer; look at dead and redundant units, and at the range of the output",
)

LOGITS = RuleText(
    Severity.NOTE,
    "the rows lie between 0 and 1 and the output does not: it was judged behind a sigmoid, as the logits of probabilities",
    "nothing to do, if the loss takes logits",
)
