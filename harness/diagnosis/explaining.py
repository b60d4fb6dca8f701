"""From verdicts and flags to findings: the numbers that show it, what it means, what to do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.diagnosis.findings import Finding
from harness.diagnosis.results import OutputDiagnosis, UnitDiagnosis
from harness.diagnosis.verdicts import LayerVerdict, OutputVerdict, UnitVerdict

Units = Sequence[UnitDiagnosis]


@dataclass(frozen=True)
class Text:
    """A rule's severity, what it means, and what to do about it."""

    severity: str
    meaning: str
    remedy: str = ""


def explain(
    verdict: LayerVerdict,
    flags: Sequence[str],
    units: Units,
    output: OutputDiagnosis | None,
    measures: dict[str, float],
    rows: int,
) -> tuple[Finding, ...]:
    """Every finding about a layer, gravest first."""
    findings = [_layer(str(verdict), units, measures, rows)] if verdict != LayerVerdict.HEALTHY else []
    findings += [_layer(flag, units, measures, rows) for flag in flags if flag in LAYER]
    findings += [each for kind in UnitVerdict if (each := _units(kind, units, rows)) is not None]
    findings += [each for flag in UNIT_FLAGS if (each := _flagged(flag, units)) is not None]
    findings += [] if output is None else _output(output)
    return tuple(sorted(findings, key=lambda each: SEVERITY.index(each.severity)))


def _layer(rule: str, units: Units, measures: dict[str, float], rows: int) -> Finding:
    text = LAYER[rule]
    share = measures["live_share"]
    evidence = f"{measures['live_units']:.0f} of {len(units)} units live ({share:.0%}) on {rows} rows"
    if rule in LAYER_EVIDENCE:
        evidence += "; " + LAYER_EVIDENCE[rule](measures)
    return Finding(rule, text.severity, evidence, text.meaning, text.remedy, numbers=measures)


def _units(kind: UnitVerdict, units: Units, rows: int) -> Finding | None:
    concerned = [unit for unit in units if unit.verdict == kind]
    if not concerned or kind not in UNIT:
        return None
    text = UNIT[kind]
    evidence = f"{len(concerned)} of {len(units)} units; " + UNIT_EVIDENCE.get(kind, _spread)(concerned, rows)
    return Finding(kind.value, text.severity, evidence, text.meaning, text.remedy, _indices(concerned))


def _flagged(flag: str, units: Units) -> Finding | None:
    concerned = [unit for unit in units if flag in unit.flags]
    if not concerned:
        return None
    text = UNIT_FLAGS[flag]
    evidence = f"{len(concerned)} of {len(units)} units; " + FLAG_EVIDENCE[flag](concerned)
    return Finding(flag, text.severity, evidence, text.meaning, text.remedy, _indices(concerned))


def _output(output: OutputDiagnosis) -> list[Finding]:
    numbers = {"r2": output.r2, "r2_low": output.r2_interval[0], "r2_high": output.r2_interval[1]}
    numbers |= {"variance_ratio": output.variance_ratio, "dead_share": output.dead_share}
    numbers |= {f"pca_{k}": level for k, level in enumerate(output.pca_r2, 1)}
    level = f"; PCA-{len(output.pca_r2)} reaches {output.pca_r2[-1]:.3f}" if output.pca_r2 else ""
    evidence = (
        f"R2 {output.r2:.3f} [{output.r2_interval[0]:.3f}, {output.r2_interval[1]:.3f}]{level}; variance ratio"
        f" {output.variance_ratio:.3g}; {output.dead_share:.0%} of the features dead"
    )
    if output.verdict != OutputVerdict.HEALTHY:
        text = OUTPUT[output.verdict]
        return [Finding(output.verdict.value, text.severity, evidence, text.meaning, text.remedy, numbers=numbers)]
    if output.pca_r2 and output.r2_interval[1] < output.pca_r2[-1]:
        return [Finding("below_pca", BELOW_PCA.severity, evidence, BELOW_PCA.meaning, BELOW_PCA.remedy, numbers=numbers)]
    return []


def _indices(units: Units) -> tuple[int, ...]:
    return tuple(unit.index for unit in units)


def _spread(units: Units, rows: int) -> str:
    widest = max(unit.maximum - unit.minimum for unit in units)
    return f"max - min is at most {widest:.3g} on {rows} rows"


def _never(units: Units, rows: int) -> str:
    bound = units[0].activation_frequency_bounds[1]
    return f"0 of {rows} rows, which means a frequency below {bound:.2g} (95 %, Clopper-Pearson)"


def _bad(units: Units, rows: int) -> str:
    return f"NaN or infinite among {rows} rows"


def _few(units: Units, rows: int) -> str:
    return f"{rows} rows, or no two different input rows"


def _fired(units: Units, rows: int) -> str:
    fewest, most = min(unit.fired_rows for unit in units), max(unit.fired_rows for unit in units)
    return f"on {fewest} to {most} of {rows} rows"


def _variation(units: Units, rows: int) -> str:
    return f"standard deviation / RMS at most {max(unit.variation for unit in units):.2g}"


def _ends(units: Units, rows: int) -> str:
    return f"at least {min(unit.saturated for unit in units):.0%} of the values within .001 of 0 or 1"


def _groups(measures: dict[str, float]) -> str:
    return f"{measures['groups']:.0f} groups of copies"


def _dimensions(measures: dict[str, float]) -> str:
    return f"participation ratio {measures['participation_ratio_corrected']:.2f}, inputs of {measures['dimension']:.0f} dimensions"


SEVERITY = ("fault", "warning", "note")

LAYER: dict[str, Text] = {
    "invalid": Text("fault", "numbers that are not finite reach this layer", "lower the learning rate or clip; look for log(0) and 0/0 in the loss"),
    "not_testable": Text("warning", "nothing can be said of dependence on the input", "judge it on more, and different, rows"),
    "full_collapse": Text("fault", "no unit depends on the input: the decoder sees a constant", "audit the penalty; zero the bias, normalise before the activation, or use leaky_relu"),
    "single_live_unit": Text("fault", "one unit carries everything that passes the bottleneck", "audit the penalty; zero the bias, normalise before the activation, or use leaky_relu"),
    "near_collapse": Text("fault", "every unit moves by less than a thousandth of its size", "normalise before the activation; look at the ablation effect before calling it used"),
    "partial_collapse": Text("warning", "the bottleneck is narrower than it was built", "zero the bias, or normalise before the activation; fewer units would do the same"),
    "redundant": Text("warning", "the units are copies of one another", "fewer units would do the same; decorrelate, or check that the units are initialised differently"),
    "dimensional_collapse": Text("warning", "the live units span few dimensions together", "decorrelate or whiten the code; compare the R2 with PCA of as many components"),
    "single_unit_dominance": Text("fault", "one unit fires on every row and all others are constant: no code, whatever the loss says", "audit the penalty; zero the bias, normalise before the activation"),
    "duplicates": Text("note", "some units repeat others", "fewer units would do the same"),
    "nonlinear_redundancy": Text("note", "units share much of their information without being correlated", "do not count them as independent dimensions"),
    "rank_not_testable": Text("note", "too few rows for the number of live units: the rank is not judged", "judge on at least 4 rows for each live unit"),
    "nonlinear_redundancy_not_searched": Text("note", "the layer has too many units to compare every pair of them nonlinearly", "diagnose the units of interest by themselves"),
}

LAYER_EVIDENCE: dict[str, Callable[[dict[str, float]], str]] = {
    "redundant": _groups,
    "duplicates": _groups,
    "dimensional_collapse": _dimensions,
    "nonlinear_redundancy": lambda measures: f"{measures['nonlinear_pairs']:.0f} pairs",
}

UNIT: dict[UnitVerdict, Text] = {
    UnitVerdict.INVALID: Text("fault", "not judged; the other units are", "find the first step at which they stop being finite"),
    UnitVerdict.NOT_TESTABLE: Text("warning", "a unit that had no chance to differ is neither dead nor alive", "judge it on more, and different, rows"),
    UnitVerdict.NEVER_FIRED: Text("warning", "counts as constant, but so few rows cannot tell dead from rare", "judge on at least 368 rows"),
    UnitVerdict.DEAD: Text("warning", "carries nothing and receives no gradient", "zero the bias, normalise before the activation, or use leaky_relu"),
    UnitVerdict.CONSTANT_AT_TARGET: Text("warning", "sits at the penalty's target: a penalty of zero, and no information", "penalise the activation's mean and its spread, or another site"),
    UnitVerdict.CONSTANT_ON: Text("warning", "a bias in disguise: the decoder could absorb it", "normalise before the activation"),
    UnitVerdict.CONSTANT_OFF: Text("warning", "the same on every row", "normalise before the activation"),
    UnitVerdict.SUBTHRESHOLD: Text("note", "varies below the threshold: not dead, and it carries what it carries"),
    UnitVerdict.RARE_INSUFFICIENT: Text("note", "too few firing rows to judge dependence", "judge on more rows"),
    UnitVerdict.NEAR_CONSTANT: Text("warning", "hardly moves, and no reference variable shows in it", "the ablation effect decides what it is worth"),
    UnitVerdict.RARE: Text("note", "fires seldom: specialised or dying, which the ablation effect tells apart"),
    UnitVerdict.SATURATED_BIMODAL: Text("note", "a binary unit: informative, but with no gradient left", "lower the gain before the sigmoid to train it further"),
}

UNIT_EVIDENCE: dict[UnitVerdict, Callable[[Units, int], str]] = {
    UnitVerdict.INVALID: _bad,
    UnitVerdict.NOT_TESTABLE: _few,
    UnitVerdict.NEVER_FIRED: _never,
    UnitVerdict.DEAD: _never,
    UnitVerdict.SUBTHRESHOLD: _fired,
    UnitVerdict.RARE_INSUFFICIENT: _fired,
    UnitVerdict.NEAR_CONSTANT: _variation,
    UnitVerdict.RARE: _fired,
    UnitVerdict.SATURATED_BIMODAL: _ends,
}

UNIT_FLAGS: dict[str, Text] = {
    "stochastic": Text("note", "differs between two passes over the same rows (noise, dropout, batch statistics)", "judge in eval mode, or average passes"),
    "heavy_tailed": Text("note", "a few rows carry it: its mean and correlations rest on them", "look at those rows"),
    "unused": Text("warning", "the decoder does as well with its mean: alive, and not used", "fewer units would do the same"),
    "always_on": Text("note", "never off: an affine unit where a sparse one was meant", "normalise before the activation"),
}

FLAG_EVIDENCE: dict[str, Callable[[Units], str]] = {
    "stochastic": lambda units: f"test-retest reliability {min(unit.reliability for unit in units):.2f} to {max(unit.reliability for unit in units):.2f}",
    "heavy_tailed": lambda units: f"kurtosis up to {max(unit.kurtosis for unit in units):.0f}, one row holds up to {max(unit.energy_share for unit in units):.0%}",
    "unused": lambda units: f"ablation costs at most {max(unit.ablation for unit in units):.1e} R2",
    "always_on": lambda units: f"frequency at least {min(unit.activation_frequency_bounds[0] for unit in units):.3f} (95 %)",
}

OUTPUT: dict[OutputVerdict, Text] = {
    OutputVerdict.INVALID: Text("fault", "the reconstruction holds NaN or infinities", "lower the learning rate or clip"),
    OutputVerdict.NOT_TESTABLE: Text("warning", "the data do not vary on these rows: R2 is not defined", "give more, and different, rows"),
    OutputVerdict.MEAN_OUTPUT: Text("fault", "the decoder answers with the mean whatever the code is", "train longer or without the penalty first; look at the bottleneck"),
    OutputVerdict.DEAD_OUTPUTS: Text("fault", "some outputs are constant while the data vary: an output activation that cannot be left", "a linear output, or a sigmoid for data in [0, 1]"),
    OutputVerdict.WORSE_THAN_MEAN: Text("fault", "answering with the mean would be better: live units are no health", "train longer; check scale and range of data and output"),
}

BELOW_PCA = Text("note", "as many principal components do better: the code is not the limit, or it is badly used", "train longer; a linear output; look at dead and redundant units")
