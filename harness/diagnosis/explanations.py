"""Findings for verdicts and flags: evidence, meaning and remedy of each."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from harness.diagnosis.finding import Finding
from harness.diagnosis.rule_texts import BELOW_PCA, LAYER, LOGITS, OUTPUT, REVIVE, UNIT, UNIT_FLAGS
from harness.diagnosis.severity import gravity
from harness.diagnosis.thresholds import Thresholds
from harness.diagnosis.unit_rules import excluded_frequency
from harness.diagnosis.units import OutputDiagnosis, UnitDiagnosis
from harness.diagnosis.verdicts import LayerVerdict, OutputVerdict, UnitVerdict
from harness.text import plural

Units = Sequence[UnitDiagnosis]
MOST_COPIES = 4
INPUT_INDEPENDENT = "input_independent"
SQUASHED = "normalize before the activation, or start from smaller weights and biases"
REVIVALS = {  # what makes constant units vary again; of a ReLU it is `REVIVE`
    "sigmoid": SQUASHED,
    "tanh": SQUASHED,
    "none": "normalize the layer's output, and look for weights that vanished",
    **dict.fromkeys(
        ("leaky_relu", "elu", "gelu", "silu", "softplus"), "zero the bias, or normalize before the activation"
    ),
}


def findings_for(
    verdict: LayerVerdict,
    flags: Sequence[str],
    units: Units,
    output: OutputDiagnosis | None,
    measures: Mapping[str, float],
    distinct: int,
    rows: int,
    thresholds: Thresholds,
    activation: str,
) -> tuple[Finding, ...]:
    """All findings about a layer, gravest first.

    Args:
        verdict, flags: of the layer. units, output, measures: see `Diagnosis`.
        distinct, rows: number of rows with different inputs, and of all rows.
        thresholds: the numbers that the findings rest on. activation: of the layer; remedies fit it.
    """
    rules = [rule for rule in (str(verdict), *map(str, flags)) if rule in LAYER]
    findings = [_layer(rule, units, measures, _rows(distinct, rows)) for rule in rules]
    findings += [
        finding for unit_verdict in UnitVerdict if (finding := _units(unit_verdict, units, distinct, rows)) is not None
    ]
    findings += [finding for flag in UNIT_FLAGS if (finding := _flagged(flag, units, measures)) is not None]
    findings += [] if output is None else _output(output, thresholds)
    verdicts = [unit.verdict for unit in units if not unit.live]
    if verdicts and all(verdict == UnitVerdict.AT_PRIOR for verdict in verdicts):
        findings = [_explained(finding, UNIT[UnitVerdict.AT_PRIOR].remedy) for finding in findings]
    if verdicts and all(INPUT_INDEPENDENT in unit.flags for unit in units if not unit.live):
        findings = [_explained(finding, UNIT_FLAGS[INPUT_INDEPENDENT].remedy) for finding in findings]
    revival = REVIVALS.get(activation, REVIVE)
    findings = [replace(finding, remedy=finding.remedy.replace(REVIVE, revival)) for finding in findings]
    return tuple(sorted(findings, key=lambda finding: gravity(finding.severity)))


def _explained(finding: Finding, remedy: str) -> Finding:
    """Replace remedies for constant units where their verdict says what helps."""
    return replace(finding, remedy=remedy) if finding.rule in UNITS_EXPLAIN else finding


def _rows(distinct: int, rows: int) -> str:
    return f"{rows} rows" if distinct == rows else f"{distinct} distinct rows ({rows} with repetitions)"


def _layer(rule: str, units: Units, measures: Mapping[str, float], rows: str) -> Finding:
    text = LAYER[rule]
    share = measures["live_share"]
    evidence = f"{measures['live_units']:.0f} of {len(units)} units live ({share:.0%}) on {rows}"
    if rule in LAYER_EVIDENCE:
        evidence += "; " + LAYER_EVIDENCE[rule](measures, units)
    return Finding(rule, text.severity, evidence, text.meaning, text.remedy, numbers=measures)


def _units(unit_verdict: UnitVerdict, units: Units, distinct: int, rows: int) -> Finding | None:
    concerned = [unit for unit in units if unit.verdict == unit_verdict]
    if not concerned or unit_verdict not in UNIT:
        return None
    text = UNIT[unit_verdict]
    describe = UNIT_EVIDENCE.get(unit_verdict, _spread)
    evidence = f"{len(concerned)} of {len(units)} units; {describe(concerned, _rows(distinct, rows))}"
    numbers = {}
    if unit_verdict in (UnitVerdict.NEVER_FIRED, UnitVerdict.DEAD):
        numbers = {"rows": float(distinct), "excluded_frequency": excluded_frequency(distinct)}
    by_position = UNIT_FLAGS[INPUT_INDEPENDENT] if all(INPUT_INDEPENDENT in unit.flags for unit in concerned) else text
    return Finding(
        *(unit_verdict.value, text.severity, evidence, by_position.meaning, by_position.remedy),
        _indices(concerned),
        numbers=numbers,
    )


def _flagged(flag: str, units: Units, measures: Mapping[str, float]) -> Finding | None:
    concerned = [unit for unit in units if flag in unit.flags]
    if not concerned:
        return None
    text = UNIT_FLAGS[flag]
    evidence = f"{len(concerned)} of {len(units)} units; " + FLAG_EVIDENCE[flag](concerned)
    if flag == "unused" and (together := measures.get("code_ablation", math.nan)) == together:
        evidence += f", replacing all units at once by {abs(together):.1e}"
    return Finding(flag, text.severity, evidence, text.meaning, text.remedy, _indices(concerned))


def _output(output: OutputDiagnosis, thresholds: Thresholds) -> list[Finding]:
    numbers = {"r2": output.r2, "r2_low": output.r2_interval[0], "r2_high": output.r2_interval[1]}
    numbers |= {"variance_ratio": output.variance_ratio, "dead_share": output.dead_share}
    numbers |= {f"pca_{k}": level for k, level in enumerate(output.pca_r2, 1)}
    evidence = _output_evidence(output)
    if output.verdict != OutputVerdict.HEALTHY:
        text = OUTPUT[output.verdict]
        return [Finding(output.verdict.value, text.severity, evidence, text.meaning, text.remedy, numbers=numbers)]
    findings = []
    if output.logits:
        findings.append(
            Finding("logits_output", LOGITS.severity, evidence, LOGITS.meaning, LOGITS.remedy, numbers=numbers)
        )
    if output.pca_r2 and output.r2_interval[1] <= output.pca_r2[-1] - thresholds.below_pca:
        findings.append(
            Finding("below_pca", BELOW_PCA.severity, evidence, BELOW_PCA.meaning, BELOW_PCA.remedy, numbers=numbers)
        )
    return findings


def _output_evidence(output: OutputDiagnosis) -> str:
    parts = ["every output feature is constant although the inputs vary"] if output.constant else []
    if output.r2 == output.r2:
        parts.append(f"R2 {output.r2:.3f} [{output.r2_interval[0]:.3f}, {output.r2_interval[1]:.3f}]")
        if output.pca_r2:
            parts.append(f"PCA-{len(output.pca_r2)} reaches {output.pca_r2[-1]:.3f}")
        parts.append(f"variance ratio {output.variance_ratio:.3g}")
        parts.append(f"{output.dead_share:.0%} of the features dead")
    return "; ".join(parts) or NO_R2.get(output.verdict, "R2 is not available")


def _indices(units: Units) -> tuple[int, ...]:
    return tuple(unit.index for unit in units)


def _spread(units: Units, rows: str) -> str:
    if any(unit.stochastic for unit in units):
        return f"upper bound of test-retest reliability {max(unit.reliability_bound for unit in units):.3f}"
    if all(INPUT_INDEPENDENT in unit.flags for unit in units):
        return f"at each position, max - min is at most {max(unit.position_range for unit in units):.3g} on {rows}"
    widest = max(unit.maximum - unit.minimum for unit in units)
    return f"max - min is at most {widest:.3g} on {rows}"


def _never(units: Units, rows: str) -> str:
    bound = units[0].activation_frequency_bounds[1]
    return f"active on 0 of {rows}, which excludes frequencies above {bound:.2g} (95 %, Clopper-Pearson)"


def _bad(units: Units, rows: str) -> str:
    return f"NaN or infinity on {rows}"


def _few(units: Units, rows: str) -> str:
    return f"{rows}; at least two different input rows are needed"


def _fired(units: Units, rows: str) -> str:
    return f"active on {_from_to([unit.fired_rows for unit in units])} of {rows}"


def _rare(units: Units, rows: str) -> str:
    counts = [unit.informed_rows if unit.informed_rows >= 0 else unit.fired_rows for unit in units]
    word = "posterior informative" if any(unit.informed_rows >= 0 for unit in units) else "active"
    return f"{word} on {_from_to(counts)} of {rows}"


def _from_to(counts: Sequence[int]) -> str:
    fewest, most = min(counts), max(counts)
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def _prior(units: Units, rows: str) -> str:
    informed = max(unit.informed_rows for unit in units)
    largest = max(unit.kl for unit in units)
    return f"KL from the prior is 0.01 nats or more on at most {informed} of {rows}, {largest:.2g} nats on average"


def _variation(units: Units, rows: str) -> str:
    return f"standard deviation / RMS at most {max(unit.variation for unit in units):.2g}"


def _ends(units: Units, rows: str) -> str:
    return f"at least {min(unit.saturated for unit in units):.0%} of the values within 0.001 of 0 or 1"


def _copies(measures: Mapping[str, float], units: Units) -> str:
    pairs = [(unit.index, flag.argument) for unit in units for flag in unit.flags if flag.name == "duplicate_of"]
    listed = "; ".join(f"unit {copy} is a copy of unit {original}" for copy, original in pairs[:MOST_COPIES])
    rest = f" and {len(pairs) - MOST_COPIES} more" if len(pairs) > MOST_COPIES else ""
    return f"{listed}{rest}; {plural(int(measures['groups']), 'different unit')}"


def _dimensions(measures: Mapping[str, float], units: Units) -> str:
    possible = min(measures["live_units"], measures["dimension"])
    return f"rank {measures['rank']:.0f} of {possible:.0f} possible"


def _classes(measures: Mapping[str, float], units: Units) -> str:
    return f"rank {measures['rank']:.0f}; {measures['within_class_variance']:.1%} of the variance lies within classes"


def _noise(units: Units) -> str:
    lowest, highest = min(unit.reliability for unit in units), max(unit.reliability for unit in units)
    return f"test-retest reliability {lowest:.2f} to {highest:.2f}"


def _tails(units: Units) -> str:
    kurtosis, share = max(unit.kurtosis for unit in units), max(unit.energy_share for unit in units)
    return f"kurtosis up to {kurtosis:.0f}, up to {share:.0%} of the energy in one row"


def _ablation(units: Units) -> str:
    return f"replacing one by its mean changes R2 by at most {max(abs(unit.ablation) for unit in units):.1e}"


def _positions(units: Units) -> str:
    widest = max(unit.maximum - unit.minimum for unit in units)
    within = max(unit.position_range for unit in units)
    return f"max - min is up to {widest:.3g} over all rows, and at most {within:.3g} within one position"


def _always(units: Units) -> str:
    return f"frequency at least {min(unit.activation_frequency_bounds[0] for unit in units):.3f} (95 %)"


UNITS_EXPLAIN = {
    *("full_collapse", "single_live_unit", "partial_collapse", "mean_output", "constant_output", "below_pca"),
}

LAYER_EVIDENCE: dict[str, Callable[[Mapping[str, float], Units], str]] = {
    "redundant": _copies,
    "duplicates": _copies,
    "dimensional_collapse": _dimensions,
    "neural_collapse": _classes,
    "nonlinear_redundancy": lambda measures, _: plural(int(measures["nonlinear_pairs"]), "pair"),
}


UNIT_EVIDENCE: dict[UnitVerdict, Callable[[Units, str], str]] = {
    UnitVerdict.INVALID: _bad,
    UnitVerdict.NOT_TESTABLE: _few,
    UnitVerdict.NEVER_FIRED: _never,
    UnitVerdict.DEAD: _never,
    UnitVerdict.SUBTHRESHOLD: _fired,
    UnitVerdict.RARE_INSUFFICIENT: _fired,
    UnitVerdict.AT_PRIOR: _prior,
    UnitVerdict.NEAR_CONSTANT: _variation,
    UnitVerdict.RARE: _rare,
    UnitVerdict.SATURATED_BIMODAL: _ends,
}

NO_R2 = {
    OutputVerdict.INVALID: "R2 is not available: the output contains NaN or infinity",
    OutputVerdict.NOT_TESTABLE: "R2 is not available: the data do not vary",
}

FLAG_EVIDENCE: dict[str, Callable[[Units], str]] = {
    "stochastic": _noise,
    "heavy_tailed": _tails,
    "unused": _ablation,
    "always_on": _always,
    INPUT_INDEPENDENT: _positions,
}
