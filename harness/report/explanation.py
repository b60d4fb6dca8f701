"""Explanations: one paragraph per group of variants, from audit to verdict, with a number behind each sentence."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from harness.diagnosis.severity import Severity, gravity, severity_of
from harness.diagnosis.verdicts import CONSTANT
from harness.effects.outcomes import is_judged
from harness.measures.statistics import wilson
from harness.results.records import Level, MemberRecord

MOST_VARIANTS = 12  # beyond so many the variants are told by the level of their first factor
MOST_FINDINGS = 2  # of the audit, told with their evidence
FEWEST_HALVED = 4  # units: "half of them" says little of fewer
GRAVE = (Severity.FAULT, Severity.RISK)
Numbers = dict[str, float]


@dataclass(frozen=True)
class Sentence:
    """A sentence and the numbers behind it."""

    text: str
    numbers: Numbers = field(default_factory=dict)


@dataclass(frozen=True)
class Paragraph:
    """Explanation of one group of variants: audit, initialization, deaths, gradients, use, reconstruction, verdict."""

    group: str
    variants: tuple[str, ...]
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """The sentences as one text."""
        return " ".join(sentence.text for sentence in self.sentences)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; numbers that are not finite become None."""
        numbers = [
            {name: value if math.isfinite(value) else None for name, value in sentence.numbers.items()}
            for sentence in self.sentences
        ]
        sentences = [
            {"text": sentence.text, "numbers": values} for sentence, values in zip(self.sentences, numbers, strict=True)
        ]
        return {"group": self.group, "variants": list(self.variants), "text": self.text, "sentences": sentences}


def explain_experiment(
    records: Sequence[MemberRecord], audit: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> list[Paragraph]:
    """One paragraph per variant; beyond 12 variants one per level of `penalty`, or of the first factor.

    Args:
        records: the members. audit: level of `penalty` -> findings of the audit (`Finding.to_dict()`).
    """
    groups: dict[str, list[MemberRecord]] = {}
    by_variant = len({record.variant for record in records}) <= MOST_VARIANTS
    for record in records:
        groups.setdefault(_group(record, by_variant), []).append(record)
    return [_paragraph(name, members, audit or {}) for name, members in groups.items()]


def _group(record: MemberRecord, by_variant: bool) -> str:
    factor = _grouping(record.levels)
    return record.variant if by_variant or factor is None else f"{factor}: {record.levels[factor]}"


def _grouping(levels: Mapping[str, Level]) -> str | None:
    return "penalty" if "penalty" in levels else next(iter(levels), None)


def _paragraph(
    name: str, members: Sequence[MemberRecord], audit: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Paragraph:
    judged = [record for record in members if is_judged(record)]
    chain = [sentence for link in CHAIN if judged and (sentence := link(judged)) is not None]
    sentences = [*_audited(members, audit), *chain, _verdict(members, judged)]
    return Paragraph(name, tuple(dict.fromkeys(record.variant for record in members)), tuple(sentences))


def _audited(members: Sequence[MemberRecord], audit: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Sentence]:
    """Faults and risks of the group's penalty in the audit: the gravest with evidence, the others by name."""
    level = str(members[0].levels.get("penalty", "as_posted"))
    findings = [finding for finding in audit.get(level, ()) if severity_of(finding.get("severity")) in GRAVE]
    findings.sort(key=lambda finding: gravity(finding.get("severity")))
    sentences = [
        Sentence(
            f"The audit of the penalty reports {_named(finding)}: {_stop(finding.get('evidence') or finding['rule'])}",
            {key: float(value) for key, value in (finding.get("numbers") or {}).items() if value is not None},
        )
        for finding in findings[:MOST_FINDINGS]
    ]
    rest = list(dict.fromkeys(_named(finding) for finding in findings[MOST_FINDINGS:]))
    if rest:
        sentences.append(Sentence(f"It also reports {'; '.join(rest)}.", {"findings": float(len(findings))}))
    return sentences


def _named(finding: Mapping[str, Any]) -> str:
    return f"the {severity_of(finding.get('severity'))} {finding['rule']}"


def _born_dead(judged: Sequence[MemberRecord]) -> Sentence | None:
    units = [step for record in judged for step in record.died_at]
    if not units:
        return None
    dead = sum(step == 0 for step in units)
    return Sentence(
        f"At initialization {dead} of {len(units)} units ({dead / len(units):.1%}) were constant on the held-out rows "
        "and stayed so.",
        {"units": len(units), "dead_at_birth": dead},
    )


def _died_later(judged: Sequence[MemberRecord]) -> Sentence | None:
    units = [step for record in judged for step in record.died_at]
    later = [step for step in units if step]
    if not units:
        return None
    if not later:
        return Sentence("None became constant later.", {"died_in_training": 0})
    return Sentence(
        f"{len(later)} more became constant in training, {_when(later)}.",
        {"died_in_training": len(later), "median_step": float(median(later))},
    )


def _when(steps: Sequence[int]) -> str:
    """The steps of some events: the median of at least 4, the range of fewer.

    >>> _when([10, 30]), _when([10, 10]), _when([10, 20, 30, 40])
    ('at steps 10 to 30', 'at step 10', 'half of them by step 25')
    """
    if len(steps) >= FEWEST_HALVED:
        return f"half of them by step {median(steps):.0f}"
    first, last = min(steps), max(steps)
    return f"at step {first}" if first == last else f"at steps {first} to {last}"


def _gradients(judged: Sequence[MemberRecord]) -> Sentence | None:
    """Ratio of penalty to reconstruction gradient, before the first unit became constant in training or at initialization."""
    dying = [record for record in judged if any(record.died_at)]
    ratios = [ratio for record in dying or judged if (ratio := _gradient_ratio(record)) is not None]
    if not ratios:
        return None
    when = "Just before the first unit became constant," if dying else "At initialization"
    middle = median(ratios)
    if middle == 0:
        text = f"{when} the penalty's gradient at the bottleneck was 0, so the penalty did not act on the bottleneck."
    elif not math.isfinite(middle):
        text = f"{when} the reconstruction's gradient at the bottleneck was 0 and the penalty's was not."
    else:
        text = f"{when} the penalty's gradient at the bottleneck was {middle:.2g} times the reconstruction's (median)."
    return Sentence(text, {"gradient_ratio": middle, "members": len(ratios)})


def _gradient_ratio(record: MemberRecord) -> float | None:
    history = record.history
    terms = [name for name in history if name.startswith("gradient/") and name != "gradient/total"]
    penalties = [name for name in terms if name != "gradient/reconstruction"]
    if not penalties or "gradient/reconstruction" not in terms:
        return None
    deaths = [step for step in record.died_at if step]
    steps = history.get("step", [0.0])
    at = max((index for index, step in enumerate(steps) if step < min(deaths)), default=0) if deaths else 0
    norms = [history[name][at] for name in penalties]
    base = history["gradient/reconstruction"][at]
    push = _penalty_weight(record) * math.sqrt(sum(norm**2 for norm in norms))
    if not math.isfinite(push) or not math.isfinite(base):
        return None
    if base == 0:
        return math.inf if push else None
    return push / base


def _penalty_weight(record: MemberRecord) -> float:
    """Weight of the penalties in the trained loss, from the recorded terms (unweighted) and the total (weighted)."""
    series = {name.removeprefix("loss/"): values for name, values in record.history.items() if name.startswith("loss/")}
    penalties = [values for name, values in series.items() if name not in ("reconstruction", "total")]
    if not penalties or not {"reconstruction", "total"} <= set(series):
        return 1.0
    raw = math.fsum(map(math.fsum, penalties))
    added = math.fsum(series["total"]) - math.fsum(series["reconstruction"])
    weight = added / raw if raw else 1.0
    return weight if math.isfinite(weight) else 1.0


def _used(judged: Sequence[MemberRecord]) -> Sentence | None:
    live_units = [  # (R2 lost without the unit, flagged): the rest of a diagnosis is large
        (float(unit["ablation"]), "unused" in unit.get("flags", ()))
        for record in judged
        for unit in record.diagnosis.get("units", ())
        if _number(unit.get("ablation")) is not None and unit.get("verdict") not in CONSTANT
    ]
    if not live_units:
        return None
    unused = sum(flagged for _, flagged in live_units)
    middle = median(cost for cost, _ in live_units)
    effect = f"{'raises' if middle < 0 else 'lowers'} R2 by {abs(middle):.3f} (median)"
    return Sentence(
        f"{unused} of {len(live_units)} live units are unused; replacing a unit by its mean {effect}.",
        {"live_units": len(live_units), "unused": unused, "median_ablation": middle},
    )


def _reconstruction(judged: Sequence[MemberRecord]) -> Sentence | None:
    fits = [float(record.r2) for record in judged if record.r2 is not None]
    if not fits:
        return None
    worse, middle = sum(fit <= 0 for fit in fits), median(fits)
    mean = f"{worse} of {len(fits)} members have an R2 of at most 0"
    behind = [record.pca_r2[-1] - record.r2 for record in judged if record.pca_r2 and record.r2 is not None]
    if not behind:
        text = f"The reconstruction's R2 is {middle:.2f} (median); {mean}."
        return Sentence(text, {"median_r2": middle, "no_better_than_mean": worse})
    gap = median(behind)
    side = f"{gap:.2f} below" if gap >= 0 else f"{-gap:.2f} above"
    return Sentence(
        f"The reconstruction's R2 is {middle:.2f} (median), {side} that of as many principal components as live units "
        f"(median of {len(behind)}); {mean}.",
        {"median_r2": middle, "no_better_than_mean": worse, "median_gap_to_pca": gap},
    )


def _verdict(members: Sequence[MemberRecord], judged: Sequence[MemberRecord]) -> Sentence:
    unjudged = len(members) - len(judged)
    remainder = f"; {unjudged} more diverged, failed or could not be judged" if unjudged else ""
    if not judged:
        errors = [record.error for record in members if record.error]
        return Sentence(
            f"No member has a verdict{': ' + _stop(errors[0]) if errors else '.'}", {"members": len(members)}
        )
    collapsed, failed = (sum(bool(getattr(record, name)) for record in judged) for name in ("collapsed", "failed"))
    idle = (
        f", and {failed - collapsed} more have a constant output or one no better than the mean"
        if failed > collapsed
        else ""
    )
    numbers = {"collapsed": float(collapsed), "failed": float(failed), "judged": float(len(judged))}
    numbers["lost"] = float(unjudged)
    if len({record.seed for record in judged}) < len(judged):  # a group of variants: its members share seeds
        return Sentence(
            f"At the end of training {collapsed} of {len(judged)} members collapsed{idle}{remainder}.", numbers
        )
    low, high = (float(bound) for bound in wilson(collapsed, len(judged)))
    interval = f"95 % interval {low:.2f} to {high:.2f}"
    text = f"At the end of training {collapsed} of {len(judged)} seeds collapsed ({interval}){idle}{remainder}."
    return Sentence(text, {**numbers, "low": low, "high": high})


def _stop(text: Any) -> str:
    return f"{str(text).rstrip('.')}."


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


CHAIN: tuple[Callable[[Sequence[MemberRecord]], Sentence | None], ...] = (
    _born_dead,
    _died_later,
    _gradients,
    _used,
    _reconstruction,
)
