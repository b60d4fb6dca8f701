"""From verdicts and flags to findings: the numbers that show it, what it means, what to do."""

from collections.abc import Callable, Sequence

from harness.diagnosis.finding import Finding
from harness.diagnosis.result import OutputDiagnosis, UnitDiagnosis
from harness.diagnosis.rule_texts import BELOW_PCA, LAYER, OUTPUT, UNIT, UNIT_FLAGS
from harness.diagnosis.severity import gravity
from harness.diagnosis.verdicts import LayerVerdict, OutputVerdict, UnitVerdict

Units = Sequence[UnitDiagnosis]


def findings_for(
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
    return tuple(sorted(findings, key=lambda finding: gravity(finding.severity)))


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
        return [
            Finding("below_pca", BELOW_PCA.severity, evidence, BELOW_PCA.meaning, BELOW_PCA.remedy, numbers=numbers)
        ]
    return []


def _indices(units: Units) -> tuple[int, ...]:
    return tuple(unit.index for unit in units)


def _spread(units: Units, rows: int) -> str:
    if any(unit.stochastic for unit in units):
        return f"upper bound of test-retest reliability {max(unit.reliability_bound for unit in units):.3f}"
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
    ratio, dimension = measures["participation_ratio_corrected"], measures["dimension"]
    return f"participation ratio {ratio:.2f} of {min(measures['live_units'], dimension):.0f} possible"


def _noise(units: Units) -> str:
    lowest, highest = min(unit.reliability for unit in units), max(unit.reliability for unit in units)
    return f"test-retest reliability {lowest:.2f} to {highest:.2f}"


def _tails(units: Units) -> str:
    kurtosis, share = max(unit.kurtosis for unit in units), max(unit.energy_share for unit in units)
    return f"kurtosis up to {kurtosis:.0f}, one row holds up to {share:.0%} of the energy"


def _ablation(units: Units) -> str:
    return f"replacing one by its mean costs at most {max(unit.ablation for unit in units):.1e} R2"


def _always(units: Units) -> str:
    return f"frequency at least {min(unit.activation_frequency_bounds[0] for unit in units):.3f} (95 %)"


LAYER_EVIDENCE: dict[str, Callable[[dict[str, float]], str]] = {
    "redundant": _groups,
    "duplicates": _groups,
    "dimensional_collapse": _dimensions,
    "nonlinear_redundancy": lambda measures: f"{measures['nonlinear_pairs']:.0f} pairs",
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


FLAG_EVIDENCE: dict[str, Callable[[Units], str]] = {
    "stochastic": _noise,
    "heavy_tailed": _tails,
    "unused": _ablation,
    "always_on": _always,
}
