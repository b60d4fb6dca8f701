"""The bounds of the audit's rules, and how grave each rule is: printed by every audit that rests on them."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Bounds:
    """What the rules compare with; all of them are this project's.

    Args:
        dominates_fault: ratio of gradient norms, penalty to reconstruction, at birth.
        dominates_birth: the same, a risk at birth.
        dominates_always: the same, a risk at every probe.
        negligible_fault: the ratio below which a penalty does nothing at any probe.
        negligible_risk: the ratio below which it hardly does.
        batch_slope: |d log term / d log batch size|.
        unreachable_share: share of the way from the least value anywhere to a typical one that cannot be gone.
        escape: gradient at a large activation, relative to the largest at smaller ones.
        output_share: share of the data's entries outside the output's range.
        dead_share: share of units dead at birth, mean over the initialisations.
        offset: ||mean|| / ||sd|| of the inputs.
        offset_dead: how many more dead units (share) the offset brings, against centred inputs.
        bypass: change of the reconstruction with the input, the code held, relative to its own spread.
    """

    dominates_fault: float = 1e3
    dominates_birth: float = 10.0
    dominates_always: float = 3.0
    negligible_fault: float = 1e-6
    negligible_risk: float = 5e-3
    batch_slope: float = 0.25
    unreachable_share: float = 0.1
    escape: float = 1e-6
    output_share: float = 0.01
    dead_share: float = 0.1
    offset: float = 1.0
    offset_dead: float = 0.02
    bypass: float = 1e-6

    def to_dict(self) -> dict[str, float]:
        """Name and value of each."""
        return asdict(self)


BOUNDS = Bounds()

SEVERITY: dict[str, str] = {
    "no_gradient": "fault",
    "zero_gradient": "fault",
    "misses_bottleneck": "fault",
    "wrong_layer": "fault",
    "wrong_axis": "fault",
    "not_the_code_in_use": "fault",
    "unreachable_target": "fault",
    "collapse_optimum": "risk",
    "pushes_active_units_down": "risk",
    "unbounded": "fault",
    "escape": "risk",
    "outside_domain": "fault",
    "dominates": "risk",
    "negligible": "risk",
    "depends_on_batch_size": "risk",
    "edits_in_place": "fault",
    "optimizer_misses_parameters": "fault",
    "optimizer_extra_parameters": "risk",
    "output_range": "fault",
    "symmetric_init": "fault",
    "dead_at_birth": "risk",
    "input_offset": "risk",
    "bypass": "fault",
    "index_addressing": "risk",
}
