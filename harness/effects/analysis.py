"""From members to effects: every level against its baseline, the declared interactions and contrasts, every cell."""

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
from harness.measures.statistics import benjamini_hochberg
from harness.results.records import Level, MemberRecord

SCOPE = "Scope: other initialisations and batch orders on this data set; the data are not resampled."


class ExperimentProtocol(Protocol):
    """What of an experiment the statistics depend on."""

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
    """What the factors of an experiment do.

    Args:
        effects: every level against the baseline, on every outcome.
        interactions, contrasts: those that were declared, on every outcome.
        cells: every variant, with every seed.
        design: what could not have been detected.
        scope: of every claim.
    """

    experiment: str
    effects: tuple[Effect, ...]
    interactions: tuple[Effect, ...]
    contrasts: tuple[Effect, ...]
    cells: tuple[Cell, ...]
    design: Power
    baseline: Mapping[str, Level]
    scope: str = SCOPE

    @property
    def family(self) -> tuple[Effect, ...]:
        """Everything that was declared: p is adjusted over it, for each outcome by itself."""
        return (*self.effects, *self.interactions, *self.contrasts)

    def of(self, outcome: str) -> tuple[Effect, ...]:
        """The level effects on one outcome."""
        return tuple(each for each in self.effects if each.outcome == outcome)

    def deviations(self) -> dict[str, float]:
        """Per factor the largest standard deviation of the seeds' differences in collapse: what a later plan needs."""
        found: dict[str, float] = {}
        for each in self.of("collapsed"):
            if each.deviation > found.get(each.factor, 0.0):
                found[each.factor] = each.deviation
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: `effects`, `interactions`, `contrasts`, `cells`, `design`, `scope`."""
        return {
            "experiment": self.experiment,
            "baseline": dict(self.baseline),
            "effects": [each.to_dict() for each in self.effects],
            "interactions": [each.to_dict() for each in self.interactions],
            "contrasts": [each.to_dict() for each in self.contrasts],
            "cells": [each.to_dict() for each in self.cells],
            "design": self.design.to_dict(),
            "scope": self.scope,
        }


def analyse(records: Sequence[MemberRecord], experiment: ExperimentProtocol) -> Effects:
    """What the factors of an experiment do, over the members that it left behind.

    Args:
        records: its members, in any order; those that diverged or failed included.
        experiment: factors, baseline, and what was declared beforehand.

    Returns:
        Effects over seeds: per seed the mean difference over the variants that differ in nothing else, then mean, t
        interval and exact sign flips over seeds. p is adjusted over all levels, interactions and contrasts, for each
        outcome by itself.
    """
    table = member_table(records, experiment.seeds)
    found = [
        measure_effect(table, question, outcome, blocks)
        for question, blocks in _questions(table, experiment)
        for outcome in OUTCOMES.values()
    ]
    judged = _adjusted(found)
    kinds = {kind: tuple(each for each in judged if each.kind == kind) for kind in ("level", "interaction", "contrast")}
    return Effects(
        experiment=experiment.name,
        effects=kinds["level"],
        interactions=kinds["interaction"],
        contrasts=kinds["contrast"],
        cells=tuple(cells(table)),
        design=power_of(len(table.seeds), judged),
        baseline=dict(experiment.baseline),
    )


def _adjusted(found: Sequence[Effect]) -> list[Effect]:
    """With p adjusted over everything that was declared, one family for each outcome."""
    p_values = np.array([each.p for each in found])
    outcomes = np.array([each.outcome for each in found])
    adjusted = np.full(len(found), np.nan)
    for name in OUTCOMES:
        adjusted[outcomes == name] = benjamini_hochberg(p_values[outcomes == name])
    with_family = [replace(each, p_adjusted=float(p)) for each, p in zip(found, adjusted, strict=True)]
    return [replace(each, confirmed=is_confirmed(each)) for each in with_family]


def _questions(table: MemberTable, experiment: ExperimentProtocol) -> Iterator[tuple[EffectSpec, list[MatchedBlock]]]:
    levels, base = table.levels, experiment.baseline
    for factor in experiment.factors:
        for level in _other_levels(table, experiment, factor):
            yield EffectSpec("level", factor, level, base[factor]), level_blocks(levels, factor, level, base[factor])
    for one, two in experiment.interactions:
        pairs = product(_other_levels(table, experiment, one), _other_levels(table, experiment, two))
        for pair in pairs:
            baselines = (base[one], base[two])
            question = EffectSpec("interaction", f"{one} x {two}", _crossed(pair), _crossed(baselines))
            yield question, interaction_blocks(levels, (one, two), pair, baselines)
    for first, second in experiment.contrasts:
        yield EffectSpec("contrast", "contrast", _named(first), _named(second)), contrast_blocks(levels, first, second)


def _other_levels(table: MemberTable, experiment: ExperimentProtocol, factor: str) -> list[Level]:
    """The declared levels but for the baseline's, then those that only the members have (`include` brings them)."""
    brought = (levels[factor] for levels in table.levels if factor in levels)
    return [
        level
        for level in dict.fromkeys([*experiment.factors[factor], *brought])
        if level != experiment.baseline[factor]
    ]


def _crossed(pair: Sequence[Any]) -> str:
    return " x ".join(map(str, pair))


def _named(cell: Mapping[str, Any]) -> str:
    from harness.grid.names import cell_name

    return cell_name(cell)
