"""A remedy with its effect on fresh seeds, its side effects, and the change to make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from harness.case import Case
from harness.factors import Level
from harness.prescription.trial import name_of

if TYPE_CHECKING:
    from harness.data.rows import Split

WORKS = ("works", "helps")
STORED = (
    *("word", "seeds", "failed_before", "failed_after", "collapsed_before", "collapsed_after", "low", "high", "p"),
    *("p_adjusted", "r2_before", "r2_after", "seeds_needed", "live_before", "live_after", "frequency_before"),
    *("frequency_after", "seconds_before", "seconds_after", "parameters_before", "parameters_after", "code"),
)


@dataclass(frozen=True)
class Remedy:
    """A change with its effect on seeds that screening never saw.

    Args:
        remedy: factor -> level.
        word: `works`, `helps`, `live_not_better_than_mean`, `no_effect_seen`, `equal`, `worse` or `undecided`.
        seeds: number of paired seeds.
        failed_before, failed_after: failed members of `seeds`, untreated and treated.
        collapsed_before, collapsed_after: collapsed members of `seeds`.
        low, high: 95 % interval of the change of the failed share, after minus before, from -1 to 1.
        p, p_adjusted: mid-p McNemar, and adjusted over the proved changes (Benjamini-Hochberg).
        r2_before, r2_after: mean R2; None where there is no reconstruction.
        seconds_before, seconds_after: median training seconds of a member.
        parameters_before, parameters_after: number of parameters.
        seeds_needed: seeds that would decide an undecided word in 4 of 5 repetitions; None where unknown.
        live_before, live_after: mean number of units that vary with the input.
        frequency_before, frequency_after: mean activation frequency of the units, from 0 to 1; None for an activation
            without an off state.
        new_state: entries of the treated model's state dict that an untreated state dict lacks, such as the
            statistics of a normalization.
        code: the change as a unified diff of the user's source, or lines to write where its place is not known.
    """

    remedy: Mapping[str, Level]
    word: str
    seeds: int
    failed_before: int
    failed_after: int
    collapsed_before: int
    collapsed_after: int
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    r2_before: float | None
    r2_after: float | None
    seeds_needed: int | None = None
    live_before: float | None = None
    live_after: float | None = None
    frequency_before: float | None = None
    frequency_after: float | None = None
    seconds_before: float = 0.0
    seconds_after: float = 0.0
    parameters_before: int = 0
    parameters_after: int = 0
    new_state: tuple[str, ...] = ()
    code: str = ""
    treat: Callable[[Case], Case] = field(default=lambda case: case, repr=False, compare=False)
    case: Case | None = field(default=None, repr=False, compare=False)
    split: "Split | None" = field(default=None, repr=False, compare=False)

    def model(self, seed: int = 0) -> nn.Module:
        """Return the treated model, freshly initialized with the seed."""
        from harness.models import build_model

        assert self.case is not None
        assert self.split is not None
        return build_model(self.treat(self.case), seed, self.split.train.inputs[:4])

    def apply(self, model: nn.Module) -> nn.Module:
        """Return `model` under the change; its parameters are those of `model`, which is not copied.

        A change of the initial values (zero bias) is made in place; a change of the loss, of a number or of
        the rows (centered inputs) changes no model, and `model` comes back as it is.
        """
        assert self.case is not None
        return self.treat(replace(self.case, model=lambda: model)).model()

    @property
    def name(self) -> str:
        """Name of the change."""
        return name_of(self.remedy)

    @property
    def is_diff(self) -> bool:
        """True if `code` is a unified diff, False for lines to write."""
        return self.code.startswith("--- ")

    @property
    def state_dict_loads(self) -> bool:
        """True if a state dict from before the change has every entry that the model needs after it."""
        return not self.new_state

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the names of the attributes."""
        values = {name: getattr(self, name) for name in STORED}
        return {"remedy": dict(self.remedy), **values, "state_dict_loads": self.state_dict_loads}

    @property
    def side_effects(self) -> str:
        """The other changes in a line; empty where there is none."""
        parts = []
        if self.live_before is not None and self.live_after is not None:
            parts += _changed("live units {} -> {}", f"{self.live_before:.1f}", f"{self.live_after:.1f}")
        if self.frequency_before is not None and self.frequency_after is not None:
            before, after = f"{self.frequency_before:.0%}", f"{self.frequency_after:.0%}"
            parts += _changed("units fire on {} -> {} of the rows", before, after)
        if self.seconds_before and self.seconds_after:
            ratio = f"{self.seconds_after / self.seconds_before:.1f}"
            parts += [f"training time x {ratio}"] if ratio != "1.0" else []
        if self.parameters_before != self.parameters_after:
            parts.append(f"parameters {self.parameters_before} -> {self.parameters_after}")
        if self.new_state:
            parts.append(f"an earlier state dict lacks {len(self.new_state)} entries of the new model")
        return "; ".join(parts)

    def __str__(self) -> str:
        change = f"failed {self.failed_before} -> {self.failed_after} of {self.seeds}"
        quality = "" if self.r2_after is None else f", R2 {r2_text(self.r2_before)} -> {r2_text(self.r2_after)}"
        # where no seed fails, R2 decides the word, and p is of no difference
        probability = _p(self.p_adjusted) if self.failed_before or self.failed_after else ""
        return f"{self.name}: {self.word.replace('_', ' ')} ({change}{quality}{probability})"


def _changed(text: str, before: str, after: str) -> list[str]:
    return [] if before == after else [text.format(before, after)]


def code_heading(remedy: Remedy) -> str:
    """Return the heading of the code of a remedy."""
    return "Change (a diff for patch -p0)" if remedy.is_diff else "Write"


def r2_text(value: float | None) -> str:
    """Return an R2 with two digits, never as -0.00; a dash for None.

    >>> r2_text(-0.001), r2_text(0.5), r2_text(None)
    ('0.00', '0.50', '-')
    """
    return "-" if value is None else f"{value:z.2f}"


def _p(value: float | None) -> str:
    return "" if value is None else f", p {value:.2g}"
