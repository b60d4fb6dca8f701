"""The answer of an experiment: one sentence and one row per remedy, the source of every place that shows it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.effects.analysis import Effects
from harness.effects.remedy_effects import BaselineOutcome, RemedyEffect
from harness.measures.statistics import wilson
from harness.report.averaged_answer import averaged_lines
from harness.report.format import DASH
from harness.report.style import shown_verdict, verdict_style
from harness.report.summary_tables import SeedMark
from harness.results.records import Level, MemberRecord
from harness.text import plural

MOST_NAMES = 6
MOST_ROWS = 24
FEW_TIMES = 4


@dataclass(frozen=True)
class AnswerRow:
    """One row of the first table, as text.

    Args:
        name: the change in words. setting: the same as levels, "penalty=l1", as in the names of variants. marks: every seed. failed, collapsed: "8 → 0 of 24". change: change of the failed
            share in percentage points with its 95 % interval. r2: mean before and after. word: what is claimed.
        css: `better`, `worse` or empty.
    """

    name: str
    marks: Sequence[SeedMark]
    failed: str
    collapsed: str
    change: str
    p: str
    r2: str
    word: str
    css: str
    setting: str = ""


def answer_document(effects: Effects) -> dict[str, Any]:
    """The answer as plain JSON: `headline` and `remedies`, best first."""
    return {"headline": headline(effects), "remedies": [remedy.to_dict() for remedy in effects.remedies]}


def summarize(effects: Effects) -> list[str]:
    """The answer as lines of text: the headline, one line per remedy, then the averaged effects."""
    averaged = averaged_lines(effects)
    label = ["Averaged over the other factors:"] if averaged else []
    return [headline(effects), *(remedy_line(remedy) for remedy in effects.remedies[:MOST_ROWS]), *label, *averaged]


def headline(effects: Effects) -> str:
    """The answer in one sentence."""
    baseline = effects.at_baseline
    if baseline is None or baseline.lost == baseline.seeds:
        return "No member of the baseline has a result, so no remedy can be compared with it."
    clauses = _clauses(effects.remedies, baseline)
    first = _baseline_clause(baseline)
    return f"{first}; {'; '.join(clauses)}." if clauses else f"{first}."


def remedy_line(remedy: RemedyEffect) -> str:
    """One remedy as a line of text."""
    unjudged = f", {remedy.lost_before + remedy.lost_after} lost" if remedy.lost_before or remedy.lost_after else ""
    return (
        f"  {remedy_name(remedy.remedy)}: failed {remedy.failed_before} -> {remedy.failed_after} of {remedy.seeds}{unjudged} "
        f"({_points(remedy)}), R2 {_r2(remedy.r2_before)} -> {_r2(remedy.r2_after)}: {word_text(remedy)}"
    )


def answer_rows(effects: Effects, records: Sequence[MemberRecord]) -> list[AnswerRow]:
    """Rows of the first table: the baseline, then the remedies, best first."""
    baseline = effects.at_baseline
    if baseline is None:
        return []
    members: dict[str, list[MemberRecord]] = {}
    for record in records:
        members.setdefault(record.variant, []).append(record)
    return [
        _baseline_row(baseline, _marks(members.get(baseline.variant, []))),
        *(_row(remedy, _marks(members.get(remedy.variant, []))) for remedy in effects.remedies[:MOST_ROWS]),
    ]


def remedy_name(remedy: Mapping[str, Level]) -> str:
    """A remedy in words.

    >>> remedy_name({"batchnorm": "on"}), remedy_name({"penalty": "none", "bias_init": "zero"})
    ('BatchNorm', 'no penalty with zero bias')
    """
    return " with ".join(_level_name(factor, level) for factor, level in remedy.items())


def word_text(remedy: RemedyEffect) -> str:
    """The word of a remedy for readers."""
    if remedy.word != "undecided":
        return WORDS[remedy.word]
    seeds = remedy.seeds_needed
    return (
        f"undecided; about {seeds} seeds would decide"
        if seeds
        else "undecided; the difference is too small to plan for"
    )


def _level_name(factor: str, level: Level) -> str:
    phrase = LEVELS.get((factor, str(level)))
    if phrase:
        return phrase
    form = FACTORS.get(factor)
    return form.format(level=level) if form else f"{factor} {level}".replace("_", " ")


def _baseline_clause(baseline: BaselineOutcome) -> str:
    subject = "As posted" if baseline.levels.get("penalty") == "as_posted" else "At the baseline"
    seeds = _replications(baseline)
    unjudged = f" ({baseline.lost} of them without a result)" if baseline.lost else ""
    if not baseline.failed:
        quality = f" (R2 {_r2(baseline.r2)})" if math.isfinite(baseline.r2) else ""
        return f"{subject}, none of {seeds} fails{unjudged}{quality}"
    ends = "ends" if baseline.failed == 1 else "end"
    if len(baseline.symptoms) == 1:
        (first,) = baseline.symptoms
        return f"{subject}, {baseline.failed} of {seeds} {ends} {SYMPTOMS.get(first, first)}{unjudged}"
    causes = ", ".join(_causes(dict(baseline.symptoms)))
    return f"{subject}, {baseline.failed} of {seeds} {'fails' if baseline.failed == 1 else 'fail'}{unjudged}: {causes}"


def _causes(symptoms: dict[str, int]) -> list[str]:
    """Counted symptoms in words.

    >>> _causes({"single_unit_dominance": 4, "full_collapse": 1, "single_live_unit": 4})
    ['8 with one live unit, which in 4 of them always fires', '1 with no unit that varies']
    """
    always = symptoms.get("single_unit_dominance", 0)
    if not always or "single_live_unit" not in symptoms:
        return [f"{number} {SYMPTOMS.get(name, name)}" for name, number in symptoms.items()]
    both = f"{always + symptoms.pop('single_live_unit')} with one live unit, which in {always} of them always fires"
    return [
        both if name == "single_unit_dominance" else f"{number} {SYMPTOMS.get(name, name)}"
        for name, number in symptoms.items()
    ]


def _replications(baseline: BaselineOutcome) -> str:
    """Seeds of the baseline in words; with several splits of the rows, both numbers."""
    if baseline.splits == 1:
        return plural(baseline.seeds, "seed")
    seeds = plural(baseline.seeds // baseline.splits, "seed")
    return f"{baseline.seeds} models ({seeds} x {baseline.splits} splits of the rows)"


def _clauses(remedies: Sequence[RemedyEffect], baseline: BaselineOutcome) -> list[str]:
    groups: dict[str, list[RemedyEffect]] = {}
    for remedy in remedies:
        group = "promising" if _is_promising(remedy) else CLAUSE_OF[remedy.word]
        if group in ("works", "helps", "worse") and not (remedy.failed_before or remedy.failed_after):
            group = "r2_better" if group != "worse" else "r2_worse"
        if group == "worse" and remedy.failed_after == remedy.seeds:
            group = "certain"
        groups.setdefault(group, []).append(remedy)
    return [CLAUSES[group].format(**_parts(groups[group])) for group in CLAUSES if group in groups]


def _is_promising(remedy: RemedyEffect) -> bool:
    """True where fewer seeds fail, and a few times as many seeds would be enough to decide."""
    enough = remedy.seeds_needed and remedy.seeds_needed <= FEW_TIMES * remedy.seeds
    return remedy.word == "undecided" and remedy.failed_after < remedy.failed_before and bool(enough)


def _parts(remedies: Sequence[RemedyEffect]) -> dict[str, str]:
    """Words of a clause: the subjects, the number of failed seeds, R2, and the verbs that agree with the subjects."""
    several = len(remedies) > 1
    fits = f"{_r2(remedies[0].r2_before)} to {_joined([_r2(remedy.r2_after) for remedy in remedies])}"
    return {
        "names": _joined([remedy_name(remedy.remedy) for remedy in remedies]),
        "counts": _range(remedies),
        "fits": fits,
        "seeds": str(max((remedy.seeds_needed or 0) for remedy in remedies)),
        "s": "" if several else "s",
        "do": "do" if several else "does",
        "are": "are" if several else "is",
    }


def _range(remedies: Sequence[RemedyEffect]) -> str:
    """Failed seeds of several remedies: "0 of 24", or "0 to 2 of 24"."""
    failed = [remedy.failed_after for remedy in remedies]
    seeds = max(remedy.seeds for remedy in remedies)
    least = f"{min(failed)} to " if min(failed) < max(failed) else ""
    return f"{least}{max(failed)} of {seeds}"


def _joined(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    listed = [*names[:MOST_NAMES], f"{rest} more"] if rest > 0 else list(names)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"


def _row(remedy: RemedyEffect, marks: Sequence[SeedMark]) -> AnswerRow:
    unjudged = remedy.lost_before + remedy.lost_after
    return AnswerRow(
        name=remedy_name(remedy.remedy),
        marks=marks,
        failed=f"{remedy.failed_before} → {remedy.failed_after} of {remedy.seeds}{f', {unjudged} lost' if unjudged else ''}",
        collapsed=f"{remedy.collapsed_before} → {remedy.collapsed_after}",
        change=_points(remedy),
        p=f"{remedy.p_adjusted:.2g}" if math.isfinite(remedy.p_adjusted) else DASH,
        r2=f"{_r2(remedy.r2_before)} → {_r2(remedy.r2_after)}",
        word=word_text(remedy),
        css={"works": "better", "helps": "better", "worse": "worse"}.get(remedy.word, ""),
        setting=", ".join(
            f"{factor}={level}"
            for factor, level in remedy.remedy.items()
            if str(level) not in _level_name(factor, level)  # said already
        ),
    )


def _baseline_row(baseline: BaselineOutcome, marks: Sequence[SeedMark]) -> AnswerRow:
    judged = baseline.seeds - baseline.lost
    low, high = (100 * float(bound) for bound in wilson(baseline.failed, judged)) if judged else (math.nan, math.nan)
    return AnswerRow(
        name="as it is (baseline)",
        marks=marks,
        failed=f"{baseline.failed} of {baseline.seeds}{f', {baseline.lost} lost' if baseline.lost else ''}",
        collapsed=str(baseline.collapsed),
        change=f"share {low:.0f} to {high:.0f} %" if judged else DASH,
        p=DASH,
        r2=_r2(baseline.r2),
        word="",
        css="baseline",
    )


def _marks(members: Sequence[MemberRecord]) -> list[SeedMark]:
    ordered = sorted(members, key=lambda record: record.seed)
    verdicts = [shown_verdict(record) for record in ordered]
    return [
        SeedMark(verdict_style(verdict).glyph, verdict, record.seed)
        for verdict, record in zip(verdicts, ordered, strict=True)
    ]


def _points(remedy: RemedyEffect) -> str:
    if not math.isfinite(remedy.change):
        return "no complete pair"
    if remedy.word == "equal":
        return "0 points, same results"
    return f"{_signed(remedy.change)} points, {_signed(remedy.low)} to {_signed(remedy.high)}"


def _signed(share: float) -> str:
    points = round(100 * share)
    return f"{points:+d}" if points else "0"


def _r2(value: float) -> str:
    return f"{value:z.2f}" if math.isfinite(value) else DASH


WORDS = {
    "works": "works",
    "helps": "helps",
    "live_not_better_than_mean": "live units, but no better than the mean",
    "no_effect_seen": "no effect on failures seen",
    "equal": "equal bit for bit: is it used?",
    "worse": "worse",
}
CLAUSE_OF = {
    **{word: word for word in ("works", "helps", "live_not_better_than_mean", "equal", "worse")},
    "no_effect_seen": "not_shown",
    "undecided": "not_shown",
}
CLAUSES = {
    "works": "{names} cure{s} it ({counts})",
    "r2_better": "{names} raise{s} R2 (from {fits})",
    "helps": "{names} help{s} ({counts})",
    "live_not_better_than_mean": "{names} keep{s} units live but reconstruct{s} no better than the mean ({counts} fail)",
    "promising": "{names} may help ({counts}): about {seeds} seeds would decide",
    "not_shown": "{names} {are} not shown to help",
    "equal": "{names} change{s} nothing, bit for bit",
    "worse": "{names} make{s} it worse ({counts})",
    "certain": "{names} make{s} it certain ({counts})",
    "r2_worse": "{names} lower{s} R2 (from {fits})",
}
SYMPTOMS = {
    "single_unit_dominance": "with one live unit that always fires",
    "full_collapse": "with no unit that varies",
    "single_live_unit": "with one live unit",
    "near_collapse": "with units that hardly vary",
    "mean_output": "with a reconstruction no better than the mean",
    "worse_than_mean": "with a reconstruction no better than the mean",
    "constant_output": "with a constant output",
    "invalid_output": "with an output that is not finite",
    "invalid": "with a code that is not finite",
    "diverged": "with a loss that diverged",
}
LEVELS = {
    ("batchnorm", "on"): "BatchNorm",
    ("batchnorm", "off"): "no BatchNorm",
    ("bias_init", "zero"): "zero bias",
    ("bias_init", "default"): "the default bias",
    ("inputs", "centred"): "centered inputs",
    ("penalty", "none"): "no penalty",
    ("penalty", "none_sigmoid_bottleneck"): "a sigmoid code",
    ("penalty", "as_posted"): "the penalty as posted",
    ("penalty", "kl_sigmoid_bottleneck"): "a sigmoid code with the KL on it",
    ("penalty", "kl_sigmoid_of_relu"): "the KL on the sigmoid of the ReLU code",
    ("penalty", "kl_sigmoid_of_preactivation"): "the KL on the pre-activation",
    ("penalty", "hard_count"): "the count of active units as penalty",
    ("penalty", "l1"): "an L1 penalty",
    ("penalty", "topk"): "a top-k code",
}
FACTORS = {
    "activation": "{level}",
    "dropout": "dropout {level}",
    "output_activation": "a {level} output",
    "units": "{level} units",
    "learning_rate": "learning rate {level}",
    "batch_size": "batch size {level}",
    "resample": "{level} resamplings of dormant units",
    "neuron_resampling": "{level} neuron resamplings",
    "codebook_restart": "{level} restarts of unused codes",
    "auxk": "AuxK {level}",
}
