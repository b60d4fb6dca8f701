"""Effects of an experiment: every level against its baseline, the declared interactions and contrasts, and every cell."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Protocol

import numpy as np

from harness.effects.cells import Cell, cells
from harness.effects.effect import Effect, EffectSpec, is_confirmed, measure_effect
from harness.effects.matched_blocks import MatchedBlock, contrast_blocks, interaction_blocks, level_blocks
from harness.effects.member_table import MemberTable, member_table
from harness.effects.outcomes import OUTCOMES
from harness.effects.power import Power, power_of
from harness.effects.remedy_effects import BaselineOutcome, RemedyEffect, baseline_outcome, remedy_effects
from harness.measures.statistics import benjamini_hochberg
from harness.results.records import Level, MemberRecord


def scope_of(seeds: int, splits: int = 1) -> str:
    """Scope of every claim.

    >>> scope_of(24, 3)
    'Scope: over 24 seeds x 3 splits of the rows: other initializations, batch orders and held-out rows of this data set.'
    """
    if splits == 1:
        return "Scope: other initializations and batch orders on this data set, for one split of its rows."
    return (
        f"Scope: over {seeds} seeds x {splits} splits of the rows: other initializations, batch orders and held-out rows"
        " of this data set."
    )


class ExperimentProtocol(Protocol):
    """The parts of an experiment that the statistics depend on."""

    @property
    def name(self) -> str: ...
    @property
    def factors(self) -> Mapping[str, Sequence[Level]]: ...
    @property
    def baseline(self) -> Mapping[str, Level]: ...
    @property
    def interactions(self) -> Sequence[tuple[str, str]]: ...
    @property
    def contrasts(self) -> Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]: ...
    @property
    def seeds(self) -> Sequence[int]: ...


@dataclass(frozen=True)
class Effects:
    """Effects of the factors of an experiment.

    Args:
        effects: every level against the baseline, on every outcome, averaged over the other factors.
        interactions, contrasts: the declared ones, on every outcome.
        cells: every variant, with every seed.
        design: the limits of the design.
        scope: the scope of every claim.
        at_baseline: the outcome of the baseline cell.
        remedies: each remedy alone against the baseline cell, best first: the primary comparison.
    """

    experiment: str
    effects: tuple[Effect, ...]
    interactions: tuple[Effect, ...]
    contrasts: tuple[Effect, ...]
    cells: tuple[Cell, ...]
    design: Power
    baseline: Mapping[str, Level]
    scope: str = ""
    remedies: tuple[RemedyEffect, ...] = ()
    at_baseline: BaselineOutcome | None = None

    @property
    def family(self) -> tuple[Effect, ...]:
        """All declared effects. p is adjusted over this family, separately for each outcome."""
        return (*self.effects, *self.interactions, *self.contrasts)

    def of(self, outcome: str) -> tuple[Effect, ...]:
        """The level effects on one outcome."""
        return tuple(effect for effect in self.effects if effect.outcome == outcome)

    def deviations(self) -> dict[str, float]:
        """Largest standard deviation, per factor, of the per-seed differences in collapse; a later plan uses it."""
        deviations: dict[str, float] = {}
        for effect in self.of("collapsed"):
            if effect.deviation > deviations.get(effect.factor, 0.0):
                deviations[effect.factor] = effect.deviation
        return deviations

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: `effects`, `interactions`, `contrasts`, `cells`, `design`, `scope`."""
        return {
            "experiment": self.experiment,
            "baseline": dict(self.baseline),
            "remedies": [remedy.to_dict() for remedy in self.remedies],
            "effects": [effect.to_dict() for effect in self.effects],
            "interactions": [effect.to_dict() for effect in self.interactions],
            "contrasts": [effect.to_dict() for effect in self.contrasts],
            "cells": [cell.to_dict() for cell in self.cells],
            "design": self.design.to_dict(),
            "scope": self.scope,
        }


def analyse(records: Sequence[MemberRecord], experiment: ExperimentProtocol) -> Effects:
    """Estimate the effects of the factors of an experiment from its members.

    Args:
        records: the members, in any order, including diverged and failed ones.
        experiment: factors, baseline, and the declared interactions and contrasts.

    Returns:
        Effects over seeds: the mean difference of a seed over the variants that differ in nothing else, then mean, t
        interval and exact sign flips over seeds. p is adjusted over all levels, interactions and contrasts, separately
        for each outcome.
    """
    splits = getattr(experiment, "splits", 1)
    table = member_table(records, experiment.seeds, splits)
    measured = [
        measure_effect(table, spec, outcome, blocks)
        for spec, blocks in _questions(table, experiment)
        for outcome in OUTCOMES.values()
    ]
    judged = _adjusted(measured)
    remedies = remedy_effects(records, experiment)
    kinds = {
        role: tuple(effect for effect in judged if effect.kind == role) for role in ("level", "interaction", "contrast")
    }
    return Effects(
        experiment=experiment.name,
        effects=kinds["level"],
        interactions=kinds["interaction"],
        contrasts=kinds["contrast"],
        cells=tuple(cells(table)),
        design=power_of(len(table.seeds), judged, len(remedies)),
        baseline=dict(experiment.baseline),
        scope=scope_of(len(experiment.seeds), splits),
        remedies=remedies,
        at_baseline=baseline_outcome(records, experiment.baseline),
    )


def _adjusted(effects: Sequence[Effect]) -> list[Effect]:
    """Adjust p over all declared effects, one family per outcome."""
    p_values = np.array([effect.p for effect in effects])
    outcomes = np.array([effect.outcome for effect in effects])
    adjusted = np.full(len(effects), np.nan)
    for name in OUTCOMES:
        adjusted[outcomes == name] = benjamini_hochberg(p_values[outcomes == name])
    with_family = [replace(effect, p_adjusted=float(p)) for effect, p in zip(effects, adjusted, strict=True)]
    return [replace(effect, confirmed=is_confirmed(effect)) for effect in with_family]


def _questions(table: MemberTable, experiment: ExperimentProtocol) -> Iterator[tuple[EffectSpec, list[MatchedBlock]]]:
    levels, base = table.levels, experiment.baseline
    for factor in experiment.factors:
        for level in _other_levels(table, experiment, factor):
            yield EffectSpec("level", factor, level, base[factor]), level_blocks(levels, factor, level, base[factor])
    for first, second in experiment.interactions:
        pairs = product(_other_levels(table, experiment, first), _other_levels(table, experiment, second))
        for pair in pairs:
            baselines = (base[first], base[second])
            spec = EffectSpec("interaction", f"{first} x {second}", _crossed(pair), _crossed(baselines))
            yield spec, interaction_blocks(levels, (first, second), pair, baselines)
    for positive, negative in experiment.contrasts:
        yield (
            EffectSpec("contrast", "contrast", _named(positive), _named(negative)),
            contrast_blocks(levels, positive, negative),
        )


def _other_levels(table: MemberTable, experiment: ExperimentProtocol, factor: str) -> list[Level]:
    """Declared levels except the baseline's, then levels that only included cells have."""
    brought = (levels[factor] for levels in table.levels if factor in levels)
    return [
        level
        for level in dict.fromkeys([*experiment.factors[factor], *brought])
        if level != experiment.baseline[factor]
    ]


def _crossed(names: Sequence[Any]) -> str:
    return " x ".join(map(str, names))


def _named(cell: Mapping[str, Any]) -> str:
    from harness.grid.names import cell_name

    return cell_name(cell)
