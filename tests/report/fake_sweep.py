"""StoredResults whose report is known beforehand: codes of each kind, judged by `diagnose`, in experiments of each kind."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.diagnosis import diagnose
from harness.diagnosis.finding import Finding
from harness.effects import analyse
from harness.report import write_report
from harness.results import StoredResults
from harness.results.records import Level, MemberRecord

ROWS, FEATURES = 400, 100
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "line\nbreak",
    "turned \u202egnorw\u202c round",
    "{{ 7 * 7 }} $x^2$ \\frac",
    '=HYPERLINK("http://example.org","click")',
    "'; DROP TABLE members; --",
    "](javascript:alert(1)) | `code` **bold**",
    "a very long name that goes on and on " * 4,
)


@dataclass(frozen=True)
class Asked:
    """What of an experiment the statistics depend on."""

    name: str
    factors: dict[str, tuple[Level, ...]]
    baseline: dict[str, Level]
    seeds: tuple[int, ...]
    interactions: tuple[tuple[str, str], ...] = ()
    contrasts: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = ()


def asked(name: str, factors: dict[str, tuple[Level, ...]], seeds: int) -> Asked:
    pairs = tuple(list(zip(list(factors), list(factors)[1:], strict=False))[:1])
    return Asked(name, factors, {factor: levels[0] for factor, levels in factors.items()}, tuple(range(seeds)), pairs)


@cache
def judged(kind: str, units: int = 4) -> dict[str, Any]:
    """The diagnosis of a planted code of so many units, with planted information."""
    code = np.random.default_rng(3).normal(size=(ROWS, units)).clip(0)
    dead = {"healthy": 0, "partial_collapse": 1, "single_live_unit": units - 1, "full_collapse": units}[kind]
    code[:, units - dead :] = 0.0
    stored = diagnose(torch.tensor(code), information=False).to_dict()
    for unit in stored["units"]:
        unit["mutual_information"] = 0.0 if unit["verdict"] == "dead" else 0.2 + 0.1 * unit["index"] / units
    return stored


def member(asking: Asked, levels: dict[str, Level], seed: int, units: int = 4) -> MemberRecord:
    """A member that collapses on the baseline, and less so the more it differs from it."""
    away = sum(levels[factor] != level for factor, level in asking.baseline.items())
    kinds = ("full_collapse", "single_live_unit", "partial_collapse", "healthy")
    kind = kinds[min(3, (away + seed % 3) * 3 // 4)] if units > 1 else ("full_collapse", "healthy")[seed % 2]
    stored = judged(kind, units)
    live, name = int(stored["measures"]["live_units"]), " ".join(map(str, levels.values()))
    return MemberRecord(
        key=f"{name}/{seed}",
        variant=name,
        levels=levels,
        seed=seed,
        verdict=stored["verdict"],
        flags=list(stored["flags"]),
        units=units,
        live_units=live,
        r2=0.15 * live / units + 0.01 * seed,
        pca_r2=[0.2, 0.3, 0.4, 0.5][:live],
        losses={"reconstruction": 0.8, "kl": 0.1, "total": 0.9},
        history=history(live, seed, units),
        unit_history=unit_history(live, units),
        died_at=[None] * live + [0 if (seed + unit) % 2 else 80 for unit in range(units - live)],
        diagnosis=stored,
        examples=examples(live / units) if seed == asking.seeds[0] else {},
        seconds=0.5,
    )


def history(live: int, seed: int, units: int) -> dict[str, list[float]]:
    epochs = np.arange(6.0)
    return {
        "step": (40 * epochs).tolist(),
        "epoch": epochs.tolist(),
        "loss/reconstruction": ((1 + 0.05 * seed) * np.exp(-0.1 * epochs * (1 + live)) + 0.3).tolist(),
        "loss/kl": (0.1 + 0.01 * epochs).tolist(),
        "loss/total": (np.exp(-0.1 * epochs) + 0.4).tolist(),
        "r2": (0.04 * epochs * live / units).tolist(),
        "live_units": np.linspace(units, live, 6).round().tolist(),
        "effective_rank": np.linspace(units, live, 6).tolist(),
    }


def unit_history(live: int, units: int) -> dict[str, list[list[float]]]:
    alive = np.array([[1.0] * units] * 2 + [[1.0] * live + [0.0] * (units - live)] * 4)
    known = np.full_like(alive, np.nan)
    known[[0, 5]] = 0.3 * alive[[0, 5]]
    return {
        "live": alive.tolist(),
        "activation_frequency": (0.4 * alive).tolist(),
        "mutual_information": known.tolist(),
    }


def examples(share: float) -> dict[str, Any]:
    rows = np.random.default_rng(8).normal(size=(4, FEATURES))
    return {"inputs": rows.tolist(), "reconstruction": (share * rows).tolist(), "shape": [FEATURES]}


def members(asking: Asked, units: int = 4) -> list[MemberRecord]:
    cells = [dict(zip(asking.factors, levels, strict=True)) for levels in product(*asking.factors.values())]
    return [member(asking, cell, seed, units) for cell in cells for seed in asking.seeds]


def lost(records: Iterable[MemberRecord], status: str) -> list[MemberRecord]:
    """The same members, of which none came to an end."""
    plain = {"verdict": "", "flags": [], "live_units": 0, "r2": None, "pca_r2": [], "losses": {}, "diagnosis": {}}
    empty = {"history": {}, "unit_history": {}, "died_at": [], "examples": {}}
    why: dict[str, Any] = {"diverged_step": 3} if status == "diverged" else {"error": HOSTILE[0]}
    return [replace(record, status=status, **why, **plain, **empty) for record in records]


def manifest(asking: Asked) -> dict[str, Any]:
    finding = Finding("wrong_axis", "fault", evidence=HOSTILE[0], meaning=HOSTILE[2], remedy="mean(0)").to_dict()
    return {
        "name": asking.name,
        "experiment": {"name": asking.name, "case": "planted", "factors": asking.factors},
        "factors": asking.factors,
        "text": f"name: {asking.name}\n",
        "command": "harness run planted.yaml",
        "commit": "0123abc",
        "versions": {"torch": "2.13.0"},
        "inputs": {"data": "ffff", "case": "eeee", "train_rows": 800, "evaluation_rows": ROWS, "bottleneck": "enc3"},
        "audit": {str(level): [finding] for level in next(iter(asking.factors.values()))},
    }


def _planted(name: str) -> tuple[Asked, list[MemberRecord]]:
    few = asked("few", {"penalty": ("as_posted", "none"), "activation": ("relu", "leaky_relu")}, 8)
    if name in ("few", "failed", "diverged"):
        return few, members(few) if name == "few" else lost(members(few), name)
    if name == "hostile":
        asking = asked(HOSTILE[0], {HOSTILE[1]: HOSTILE, "note": ("", "on")}, 2)
        return asking, members(asking)
    if name == "many":
        factors: dict[str, tuple[Level, ...]] = {
            "penalty": tuple("abcde"),
            "bias_init": ("default", "zero"),
            "batchnorm": ("off", "on"),
        }
        asking = asked("many", {**factors, "dropout": (0.0, 0.1, 0.2, 0.3, 0.4)}, 10)
        return asking, members(asking)
    units = {"one_unit": 1, "wide": 64}[name]
    asking = asked(name, {"penalty": ("none", "l1")}, 1 if name == "wide" else 3)
    return asking, [replace(each, examples={}) for each in members(asking, units)]


NAMES = ("few", "failed", "diverged", "hostile", "many", "one_unit", "wide")


@cache
def planted(name: str) -> tuple[Asked, list[MemberRecord]]:
    """The experiment and the members of a kind: one of `NAMES`; `many` has 1000."""
    return _planted(name)


@cache
def report(base: Path, name: str) -> Path:
    """The page of a planted experiment, written once a session below `base`."""
    asking, records = planted(name)
    folder = base / f"report-{name}"
    return write_report(StoredResults(manifest(asking), records), analyse(records, asking), folder)
