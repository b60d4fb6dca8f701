"""Experiments made of nothing: records of any number of members, with whatever became of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from harness.diagnosis.result import Diagnosis, UnitDiagnosis
from harness.diagnosis.verdicts import LayerVerdict, UnitVerdict
from harness.effects import Effects, analyse, stored_experiment
from harness.grid.names import variant_name
from harness.results import StoredResults
from harness.results.records import MemberRecord

FACTORS: dict[str, list[Any]] = {"penalty": ["none", "as_posted"], "batchnorm": ["off", "on"]}
SNAPSHOTS = 6


def member(levels: Mapping[str, Any], seed: int, units: int = 4, verdict: str | None = None) -> MemberRecord:
    """One member; without batchnorm it collapses in most seeds."""
    random = np.random.default_rng([seed, *map(ord, str(sorted(levels.items())))])
    live = units if levels.get("batchnorm") == "on" else int(random.integers(0, min(units, 3)))
    found = verdict or ("healthy" if live == units else "full_collapse" if live == 0 else "single_live_unit")
    lost = [None] * live + [int(random.choice([0, 40, 80]))] * (units - live)
    inputs = random.normal(size=(4, 100))
    return MemberRecord(
        key=f"{seed}-{variant_name(levels, {})}",
        variant=variant_name(levels, {name: each[0] for name, each in FACTORS.items()}),
        levels=dict(levels),
        seed=seed,
        verdict=found,
        flags=["dead_outputs"],
        units=units,
        live_units=live,
        r2=0.1 * live,
        pca_r2=[0.2, 0.4],
        losses={"reconstruction": 0.9, "total": 0.95},
        history=_history(random, live, units),
        died_at=lost,
        diagnosis=_diagnosis(random, found, lost),
        unit_history={"activation_frequency": random.uniform(size=(SNAPSHOTS, units)).tolist()},
        examples={"inputs": inputs.tolist(), "reconstruction": (0.5 * inputs).tolist(), "shape": [100]}
        if not seed
        else {},
    )


def _history(random: np.random.Generator, live: int, units: int) -> dict[str, list[float]]:
    steps = np.arange(SNAPSHOTS, dtype=float)
    return {
        "step": (steps * 40).tolist(),
        "epoch": steps.tolist(),
        "loss/reconstruction": (1.0 - 0.05 * steps + 0.01 * random.normal(size=SNAPSHOTS)).tolist(),
        "loss/sparsity": np.exp(-steps).tolist(),
        "loss/total": (1.5 - 0.05 * steps).tolist(),
        "live_units": np.linspace(units, live, SNAPSHOTS).round().tolist(),
        "gradient/reconstruction": [0.1] * SNAPSHOTS,
        "gradient/sparsity": [0.2] * SNAPSHOTS,
    }


def _diagnosis(random: np.random.Generator, verdict: str, lost: Sequence[int | None]) -> dict[str, Any]:
    units = tuple(_unit(random, index, dead=step is not None) for index, step in enumerate(lost))
    return Diagnosis(LayerVerdict(verdict), (), units, None, (), {}, activation="relu", rows=400).to_dict()


def _unit(random: np.random.Generator, index: int, dead: bool) -> UnitDiagnosis:
    if dead:
        nothing = {"activation_frequency": 0.0, "mutual_information": 0.0, "ablation": 0.0}
        return UnitDiagnosis(index, UnitVerdict.DEAD, **nothing)
    fires, tells = float(random.uniform(0.1, 0.9)), float(random.uniform(0.2, 1.5))
    measured = {"activation_frequency": fires, "mutual_information": tells, "entropy_bits": 2.0, "ablation": 0.1}
    return UnitDiagnosis(index, UnitVerdict.ALIVE, **measured)


def study(
    factors: Mapping[str, Sequence[Any]] = FACTORS,
    seeds: int = 8,
    units: int = 4,
    change: Callable[[MemberRecord], MemberRecord] = lambda record: record,
    **manifest: Any,
) -> StoredResults:
    """A full factorial of members, each passed through `change`."""
    cells = [dict(zip(factors, levels, strict=True)) for levels in product(*factors.values())]
    records = [change(member(levels, seed, units)) for levels in cells for seed in range(seeds)]
    described = {
        "name": manifest.get("name", "made"),
        "case": "forum",
        "factors": {name: list(levels) for name, levels in factors.items()},
        "baseline": {name: levels[0] for name, levels in factors.items()},
        "seeds": list(range(seeds)),
        "interactions": [["penalty", "batchnorm"]] if {"penalty", "batchnorm"} <= set(factors) else [],
    }
    about = {"versions": {"torch": "2.13.0"}, "command": "harness run made.yaml", "commit": "0123abcd", "format": 1}
    return StoredResults(
        {"name": "made", "experiment": described, "factors": described["factors"], "audit": {}, **about, **manifest},
        records,
    )


def effects_of(results: StoredResults) -> Effects:
    """Its effects."""
    return analyse(results.records, stored_experiment(results))


def without_diagnosis(record: MemberRecord) -> MemberRecord:
    """As a member is that could not be run."""
    return replace(
        MemberRecord(record.key, record.variant, record.levels, record.seed, status="failed"), error="out of memory"
    )
