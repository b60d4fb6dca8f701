"""The record of a member, from which MLflow runs and the report are made. Imports neither torch nor pandas."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from harness.results.packed import PackedArrays, PackedJson, PackedMapping

Level = str | int | float


@dataclass(frozen=True)
class MemberRecord:
    """A member with its verdict. Large fields may be passed as plain dicts; they are packed, and read like dicts.

    Args:
        key: its resume key.
        variant, levels, seed, split: identify the member; `split` is the number of its split of the rows, from 0.
        status: "ok", "diverged" (a loss became NaN or infinite), or "failed" (it could not be run).
        error: the reason if it failed.
        diverged_step: the first step with a loss that is NaN or infinite.
        verdict, flags: of its bottleneck, at the end; empty if it failed.
        units, live_units: width of the bottleneck, and number of units that are not constant.
        r2: of the reconstruction about the mean of the held-out rows; None if there is no reconstruction.
        pca_r2: R2 of the first 1, 2, ... principal components, up to the number of live units (times their positions),
            for comparison.
        losses: term -> final loss on the held-out rows, with "total".
        history: name -> one value per snapshot: "step", "epoch", "loss/<term>", "r2", "live_units", "effective_rank",
            "gradient/<term>"; R2 and gradients are NaN at snapshots where they are not computed.
        unit_history: measure -> [snapshot][unit].
        died_at: per unit: None = alive at the end, 0 = dead at initialization, else the step of the first
            snapshot since which it never varied.
        diagnosis: `Diagnosis.to_dict()`.
        examples: a few held-out rows ("inputs", "reconstruction", "shape"), for the first seed of a variant.
        seconds: training time of its stack, divided by its members.
        logged_at: milliseconds since 1970, stored so that logging again writes the same rows.
        alone: why it trained alone although the plan batches it; None if it trained as planned.
        gpu: the GPU on which it trained; None for a CPU, whose results differ in the last digits.
        weights: safetensors of its model on the way to a file of its own; never part of the stored record.
    """

    key: str
    variant: str
    levels: Mapping[str, Level]
    seed: int
    status: str = "ok"
    error: str | None = None
    diverged_step: int | None = None
    verdict: str = ""
    flags: list[str] = field(default_factory=list)
    units: int = 0
    live_units: int = 0
    r2: float | None = None
    pca_r2: list[float] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    history: PackedArrays = field(default_factory=PackedArrays)
    unit_history: PackedArrays = field(default_factory=PackedArrays)
    died_at: list[int | None] = field(default_factory=list)
    diagnosis: PackedJson = field(default_factory=PackedJson)
    examples: PackedJson = field(default_factory=PackedJson)
    seconds: float = 0.0
    logged_at: int = 0
    alone: str | None = None
    gpu: str | None = None
    split: int = 0
    weights: bytes = field(default=b"", repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("history", "unit_history"):
            object.__setattr__(self, name, PackedArrays.of(getattr(self, name)))
        for name in ("diagnosis", "examples"):
            object.__setattr__(self, name, PackedJson.of(getattr(self, name)))

    @property
    def name(self) -> str:
        """Variant and seed, and the split of the rows if it is not the first one."""
        return f"{self.variant} s{self.seed}{f' split{self.split}' if self.split else ''}"

    @property
    def block(self) -> tuple[int, int]:
        """Split and seed: members of several variants are compared within these blocks."""
        return self.split, self.seed

    @property
    def collapsed(self) -> bool | None:
        """True for a collapsed bottleneck; None where the member has no verdict to count."""
        return None if self.status != "ok" or self.verdict in UNJUDGED else self.verdict in COLLAPSED

    @property
    def failed(self) -> bool | None:
        """True for a model that cannot be used: collapsed, an output no better than the mean, not finite, or diverged.

        None for a member without a result.
        """
        if self.status == "diverged" or (self.status == "ok" and self.verdict == "invalid"):
            return True
        return None if self.collapsed is None else self.collapsed or bool(self.output_fault)

    @property
    def reported_verdict(self) -> str:
        """The verdict; `healthy` gives way to what makes the model unusable: its output's flag, or "diverged".

        >>> MemberRecord("k", "v", {}, 0, verdict="healthy", flags=["mean_output"]).reported_verdict
        'mean_output'
        """
        if self.verdict != "healthy":
            return self.verdict
        return self.output_fault or (self.verdict if self.status == "ok" else self.status)

    @property
    def output_fault(self) -> str:
        """The flag, or verdict, of an output that is constant or no better than the mean; "" for any other output."""
        return next((name for name in (*self.flags, self.verdict) if name in NO_BETTER_THAN_MEAN), "")

    def to_dict(self) -> dict[str, Any]:
        """All fields, as plain containers."""
        values = {attribute.name: getattr(self, attribute.name) for attribute in fields(self) if attribute.compare}
        return {name: value.plain() if isinstance(value, PackedMapping) else value for name, value in values.items()}


PACKED_FIELDS: dict[str, type[PackedJson] | type[PackedArrays]] = {
    "diagnosis": PackedJson,
    "examples": PackedJson,
    "history": PackedArrays,
    "unit_history": PackedArrays,
}
UNJUDGED = frozenset({"", "invalid", "not_testable"})
COLLAPSED = frozenset({"full_collapse", "single_live_unit", "near_collapse"})
NO_BETTER_THAN_MEAN = frozenset({"constant_output", "mean_output", "worse_than_mean", "invalid_output"})
