"""Thresholds and severities of the audit's rules; every audit stores the thresholds it used."""

from dataclasses import asdict, dataclass

from harness.diagnosis.severity import Severity


@dataclass(frozen=True)
class AuditThresholds:
    """Thresholds of the rules; all of them are this project's choice.

    Args:
        dominates_fault: ratio of gradient norms, penalty to main term, at initialization; a fault above.
        dominates_birth: the same ratio; a risk above.
        dominates_always: the same ratio at every probe; a risk above.
        negligible_fault: the same ratio at every probe; a fault below.
        negligible_risk: the same ratio at every probe; a risk below.
        batch_slope: |d log term / d log batch size|.
        unreachable_share: (reachable minimum - minimum) / (typical value - minimum); a fault above.
        escape: gradient at a large activation, relative to the largest gradient at smaller activations.
        output_share: share of the data's entries outside the output's range; a fault above.
        dead_share: share of dead units at initialization, mean over seeds.
        offset: ||mean|| / ||sd|| of the inputs.
        offset_dead: share of units that are dead with the inputs and alive with centered inputs.
        bypass: change of the reconstruction with the input while the code is fixed, relative to its own spread.
        unused_gain: rise of the main term when codes are exchanged, by its value; below, the training is repeated.
        used_gain: the same without the penalty; the code is used above.
        silenced: rise with the penalty, relative to that without it; the penalty dominates below.
        recovered: the same for a lower weight; it is advised above.
    """

    dominates_fault: float = 1e3
    dominates_birth: float = 10.0
    dominates_always: float = 3.0
    negligible_fault: float = 1e-6
    negligible_risk: float = 5e-3
    batch_slope: float = 0.25
    unreachable_share: float = 0.1
    escape: float = 1e-12
    output_share: float = 0.01
    dead_share: float = 0.1
    offset: float = 1.0
    offset_dead: float = 0.02
    bypass: float = 1e-6
    unused_gain: float = 0.05
    used_gain: float = 0.2
    silenced: float = 0.02
    recovered: float = 0.3

    def to_dict(self) -> dict[str, float]:
        """Return the thresholds by name."""
        return asdict(self)


AUDIT_THRESHOLDS = AuditThresholds()

SEVERITY: dict[str, Severity] = {
    "no_gradient": Severity.FAULT,
    "zero_gradient": Severity.FAULT,
    "misses_bottleneck": Severity.FAULT,
    "wrong_layer": Severity.FAULT,
    "wrong_axis": Severity.FAULT,
    "not_the_code_in_use": Severity.FAULT,
    "unreachable_target": Severity.FAULT,
    "collapse_optimum": Severity.RISK,
    "pushes_active_units_down": Severity.RISK,
    "unbounded": Severity.FAULT,
    "escape": Severity.RISK,
    "outside_domain": Severity.FAULT,
    "dominates": Severity.RISK,
    "negligible": Severity.RISK,
    "depends_on_batch_size": Severity.RISK,
    "edits_in_place": Severity.FAULT,
    "optimizer_misses_parameters": Severity.FAULT,
    "optimizer_extra_parameters": Severity.RISK,
    "output_range": Severity.FAULT,
    "symmetric_init": Severity.FAULT,
    "dead_at_birth": Severity.RISK,
    "input_offset": Severity.RISK,
    "bypass": Severity.FAULT,
    "index_addressing": Severity.RISK,
    "undeclared_posterior": Severity.RISK,
    "mixed_rows": Severity.FAULT,
    "unpaired_rows": Severity.FAULT,
    "cut_encoder": Severity.FAULT,
    "unreached_parameter": Severity.FAULT,
    "unused_number": Severity.FAULT,
    "constant_at_birth": Severity.FAULT,
    "diverges": Severity.FAULT,
}
