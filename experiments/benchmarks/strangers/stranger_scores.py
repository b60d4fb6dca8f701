"""Scores of a tool: recall and precision of symptom and cause, with Wilson intervals."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from answers import Answer
from scipy.stats import binomtest
from stranger import Stranger, Symptom


@dataclass(frozen=True)
class Share:
    """A share with its Wilson interval."""

    hits: int
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "none"
        interval = binomtest(self.hits, self.count).proportion_ci(method="wilson")
        return f"{self.hits} of {self.count} [{interval.low:.2f}, {interval.high:.2f}]"


@dataclass
class Judged:
    """One case or twin with its truth and a tool's answer.

    Args:
        stranger: the case. sick: True for the faulty one.
        truth: its symptom in plain torch. answer: of the tool.
        undeclared: differences of the truth from the table, over all seeds.
    """

    stranger: Stranger
    sick: bool
    truth: Symptom
    answer: Answer
    undeclared: list[str] = field(default_factory=list)

    @property
    def symptom_right(self) -> bool:
        """True if lost units and output agree with the truth."""
        said = self.answer.symptom
        if said is None:
            return False
        return said.lost == self.truth.lost and (not self.truth.output or said.output == self.truth.output)

    @property
    def nameable(self) -> bool:
        """True for a fault that model and loss tell."""
        return self.sick and bool(self.stranger.causes)

    @property
    def cause_right(self) -> bool:
        """True if a fault or risk has one of the right names."""
        return bool(set(self.stranger.causes) & {*self.answer.causes, *self.answer.maybe})

    @property
    def false_faults(self) -> tuple[str, ...]:
        """Faults that are not true of this model."""
        true = {*self.stranger.causes, *self.stranger.also} if self.sick else set()
        return tuple(cause for cause in self.answer.causes if cause not in true)

    @property
    def ill(self) -> bool:
        """True if something is wrong with the model: a fault of the table, lost units, or a useless output."""
        broken = self.truth.share != "none" or self.truth.output in ("mean", "constant", "invalid")
        return (self.sick and not self.stranger.harmless) or broken


def summary(judged: Iterable[Judged], cause: bool = True) -> dict[str, Share]:
    """Return the scores by name."""
    judged = list(judged)
    sick = [each for each in judged if each.ill]
    well = [each for each in judged if not each.ill]
    complaints = [each for each in judged if each.answer.complains]
    shares = {
        "something is wrong: recall": Share(sum(each.answer.complains for each in sick), len(sick)),
        "something is wrong: precision": Share(sum(each.ill for each in complaints), len(complaints)),
        "healthy ones left alone": Share(sum(not each.answer.complains for each in well), len(well)),
    }
    if any(each.answer.symptom for each in judged):
        pairs = [(each.truth.lost, each.answer.symptom.lost) for each in judged if each.answer.symptom]
        both = sum(len(true & said) for true, said in pairs)
        shares["symptom right"] = Share(sum(each.symptom_right for each in judged), len(judged))
        shares["lost units: recall"] = Share(both, sum(len(true) for true, _ in pairs))
        shares["lost units: precision"] = Share(both, sum(len(said) for _, said in pairs))
    if cause:
        nameable = [each for each in judged if each.nameable]
        shares["cause named"] = Share(sum(each.cause_right for each in nameable), len(nameable))
        shares["no false fault"] = Share(sum(not each.false_faults for each in judged), len(judged))
        faults = [(each, name) for each in judged for name in each.answer.causes]
        right = sum(name not in each.false_faults for each, name in faults)
        shares["faults: precision"] = Share(right, len(faults))
    return shares
