"""Comparison of two experiments: the same factors on other data, or before and after a change."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from harness.effects.effect import Effect, EffectSpec, is_confirmed, measure_effect
from harness.effects.matched_blocks import MatchedBlock
from harness.effects.member_table import member_table
from harness.effects.outcomes import OUTCOMES, is_judged
from harness.effects.risk_differences import RiskDifference, risk_difference
from harness.effects.stored_experiments import StoredExperiment, stored_experiment, stored_members
from harness.measures.statistics import benjamini_hochberg
from harness.results.records import COLLAPSED, MemberRecord

SIDES = ("first", "second")
Key = frozenset[tuple[str, Any]]


@dataclass(frozen=True)
class VariantPair:
    """One variant in both experiments; differences are second minus first.

    Args:
        effects: effects paired by seed, on every outcome; empty where the seeds do not match.
        risk: difference of the share collapsed between two separate arms (first argument: the second experiment);
            None where paired, or where an arm has no judged member. p_adjusted: adjusted over the variants.
    """

    variant: str
    effects: tuple[Effect, ...]
    risk: RiskDifference | None
    p_adjusted: float | None
    first: dict[str, Any]
    second: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Two experiments; differences are second minus first.

    Args:
        paired: True where members of the same variant and seed are compared with each other. why: the reason.
        overall: paired effects over all shared variants, averaged per seed first; empty where unpaired.
        variants: one entry per shared variant. only_first, only_second: variants that the other experiment lacks.
        sentences: the result in words.
    """

    first: str
    second: str
    paired: bool
    why: str
    overall: tuple[Effect, ...]
    variants: tuple[VariantPair, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    sentences: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            **{name: getattr(self, name) for name in ("first", "second", "paired", "why")},
            "overall": [effect.to_dict() for effect in self.overall],
            "variants": [_variant_dict(pair) for pair in self.variants],
            **{name: list(getattr(self, name)) for name in ("only_first", "only_second", "sentences")},
        }


def compare(results_a: StoredExperiment, results_b: StoredExperiment) -> Comparison:
    """Compare two experiments.

    Members are paired by variant and seed where both train the same case: the same seed is then the same initial
    weights. Else the arms are compared as they are. A factor that only one experiment names counts at its default
    in the other.

    Raises:
        HarnessError: when a manifest names no experiment.
    """
    sides = [_by_variant(results) for results in (results_a, results_b)]
    names = [str(results.manifest.get("name", stored_experiment(results).name)) for results in (results_a, results_b)]
    shared = [key for key in sides[0] if key in sides[1]]
    paired, why = _pairing(results_a, results_b, [sides[0][key] for key in shared], [sides[1][key] for key in shared])
    overall, variants = (_paired if paired else _unpaired)(sides, shared)
    only = [tuple(sides[side][key][0].variant for key in sides[side] if key not in sides[1 - side]) for side in (0, 1)]
    sentences = _sentences(names, why, overall, variants, only)
    return Comparison(names[0], names[1], paired, why, overall, variants, only[0], only[1], sentences)


def _by_variant(results: StoredExperiment) -> dict[Key, list[MemberRecord]]:
    stored_defaults = results.manifest.get("defaults")
    defaults = dict(stored_defaults) if isinstance(stored_defaults, Mapping) else {}
    groups: dict[Key, list[MemberRecord]] = {}
    for record in stored_members(results):
        key = frozenset((name, level) for name, level in record.levels.items() if defaults.get(name) != level)
        groups.setdefault(key, []).append(record)
    return groups


def _pairing(
    first: StoredExperiment,
    second: StoredExperiment,
    members_a: Sequence[Sequence[MemberRecord]],
    members_b: Sequence[Sequence[MemberRecord]],
) -> tuple[bool, str]:
    cases = [stored_experiment(results).case for results in (first, second)]
    if cases[0] != cases[1]:
        return False, f"unpaired: the cases differ ({cases[0]}, {cases[1]}), so a seed is not the same initial weights"
    seeds = [{record.block for group in side for record in group} for side in (members_a, members_b)]
    shared = seeds[0] & seeds[1]
    if len(shared) < 2:
        return False, f"unpaired: the experiments share {len(shared)} seeds"
    return True, f"paired by variant and seed: {len(shared)} shared seeds, the same initial weights in both"


def _paired(
    sides: Sequence[dict[Key, list[MemberRecord]]], shared: Sequence[Key]
) -> tuple[tuple[Effect, ...], tuple[VariantPair, ...]]:
    labelled = [
        replace(record, variant=f"{index} {side}")
        for index, key in enumerate(shared)
        for side in (0, 1)
        for record in sides[side][key]
    ]
    table = member_table(labelled)
    row = {name: index for index, name in enumerate(table.variants)}
    blocks = [MatchedBlock((row[f"{index} 1"], row[f"{index} 0"]), (1.0, -1.0)) for index in range(len(shared))]
    spec = EffectSpec("comparison", "experiment", *reversed(SIDES))
    overall = [measure_effect(table, spec, outcome, blocks) for outcome in OUTCOMES.values()]
    single = [[measure_effect(table, spec, outcome, [block]) for outcome in OUTCOMES.values()] for block in blocks]
    adjusted = _adjusted([effect for group in single for effect in group])
    width = len(OUTCOMES)
    pairs = [
        VariantPair(
            sides[0][key][0].variant,
            tuple(adjusted[index * width : (index + 1) * width]),
            *(None, None, _counts(sides[0][key]), _counts(sides[1][key])),
        )
        for index, key in enumerate(shared)
    ]
    return tuple(_adjusted(overall)), tuple(pairs)


def _unpaired(
    sides: Sequence[dict[Key, list[MemberRecord]]], shared: Sequence[Key]
) -> tuple[tuple[Effect, ...], tuple[VariantPair, ...]]:
    counts = [(_counts(sides[0][key]), _counts(sides[1][key])) for key in shared]
    risks = [
        risk_difference((b["collapsed"], b["judged"]), (a["collapsed"], a["judged"]))
        if a["judged"] and b["judged"]
        else None
        for a, b in counts
    ]
    adjusted = benjamini_hochberg(np.array([np.nan if risk is None else risk.p for risk in risks]))
    pairs = [
        VariantPair(sides[0][key][0].variant, (), risk, None if risk is None else float(p), a, b)
        for key, risk, p, (a, b) in zip(shared, risks, adjusted, counts, strict=True)
    ]
    return (), tuple(pairs)


def _adjusted(effects: Sequence[Effect]) -> list[Effect]:
    outcomes, p_values = np.array([effect.outcome for effect in effects]), np.array([effect.p for effect in effects])
    adjusted = np.full(len(effects), np.nan)
    for name in OUTCOMES:
        adjusted[outcomes == name] = benjamini_hochberg(p_values[outcomes == name])
    with_family = [replace(effect, p_adjusted=float(p)) for effect, p in zip(effects, adjusted, strict=True)]
    return [replace(effect, confirmed=is_confirmed(effect)) for effect in with_family]


def _counts(members: Sequence[MemberRecord]) -> dict[str, Any]:
    judged = [record for record in members if is_judged(record)]
    fits = [record.r2 for record in judged if record.r2 is not None]
    return {
        "members": len(members),
        "judged": len(judged),
        "collapsed": sum(record.verdict in COLLAPSED for record in judged),
        "diverged": sum(record.status == "diverged" for record in members),
        "failed": sum(record.status == "failed" for record in members),
        "live_fraction": float(np.mean([record.live_units / record.units for record in judged])) if judged else None,
        "r2": float(np.mean(fits)) if fits else None,
    }


def _sentences(
    names: Sequence[str],
    why: str,
    overall: Sequence[Effect],
    variants: Sequence[VariantPair],
    only: Sequence[Sequence[str]],
) -> tuple[str, ...]:
    sentences = [f"{names[1]} minus {names[0]}: {len(variants)} shared variants; {why}."]
    for effect in overall:
        if effect.estimable:
            title = OUTCOMES[effect.outcome].title
            bounds = (
                f" [{effect.low:+.2f}, {effect.high:+.2f}]" if effect.low < effect.high else f" ({effect.interval})"
            )
            sentences.append(f"{title}: {effect.estimate:+.2f}{bounds}, p = {effect.p:.2g}, {effect.seeds} seeds.")
    apart = [pair for pair in variants if pair.p_adjusted is not None and pair.p_adjusted <= 0.05]
    if not overall and variants:
        sentences.append(
            f"{len(apart)} of {len(variants)} variants differ in how often they collapse (adjusted p at most 0.05)."
        )
    lacking = [
        f"{len(variant_names)} only in {name}" for variant_names, name in zip(only, names, strict=True) if variant_names
    ]
    return (*sentences, *([f"Not compared: {', '.join(lacking)}."] if lacking else []))


def _variant_dict(pair: VariantPair) -> dict[str, Any]:
    return {
        **{name: getattr(pair, name) for name in ("variant", "p_adjusted", "first", "second")},
        "effects": [effect.to_dict() for effect in pair.effects],
        "risk": None if pair.risk is None else asdict(pair.risk),
    }
