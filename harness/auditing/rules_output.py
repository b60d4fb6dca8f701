"""Rules on the output of the model: its range, and a sigmoid that is applied twice."""

import math

import torch
from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.findings import loss_source, make_finding
from harness.auditing.isolation import preserved_rng
from harness.auditing.probe import LossProbe
from harness.auditing.probe_values import RANGES
from harness.capture import BottleneckTap, eval_mode, outputs_of, reconstruction_of
from harness.data.rows import Rows
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.user_code import guarded

ERRORS = (0.1, 10.0, 100.0)  # of the output, in standard deviations of the rows


def output_range(probe: LossProbe, rows: Tensor, bounds: AuditThresholds) -> list[Finding]:
    """Find data outside the range of the output activation that the loss asks the model to reproduce."""
    with (
        BottleneckTap(probe.model, probe.case.bottleneck) as tap,
        preserved_rng(0),
        eval_mode(probe.model),
        torch.no_grad(),
    ):
        probe.model(probe.batch.clone())
    view = tap.passes[0]
    output = reconstruction_of(view.outputs, probe.batch, probe.case.reconstruction)
    if not rows.is_floating_point() or probe.case.objective != "reconstruction":
        return []  # tokens have no range, and other objectives do not ask for the rows
    if _has_other_target(probe, rows):
        return []
    index = next((i for i, tensor in enumerate(view.outputs) if tensor is output), None)
    maker = None if index is None else view.makers[index]
    if output is None or maker is None or maker.name not in RANGES:
        return []
    low, high = RANGES[maker.name]
    slack = 1e-6 * float(rows.abs().max())
    outside = (rows < low - slack) | (rows > high + slack)
    share = float(outside.float().mean())
    if share == 0:
        return _squashed_twice(probe, output, maker.name)
    if not _loss_pulls_outward(probe, output, low, high):
        return []
    return [
        make_finding(
            "output_range",
            probe.case.objective,
            f"{share:.1%} of the data's entries lie outside {low:g} to {high:g}, the range of the output's {maker.name}"
            f" (the data run from {float(rows.min()):.3g} to {float(rows.max()):.3g})",
            "these entries cannot be reconstructed; their gradient drives the output activation into saturation",
            "make the output linear (drop the last activation), or scale the data into its range",
            {"share": share, "low": float(rows.min()), "high": float(rows.max())},
            severity=None if share > bounds.output_share else Severity.RISK,
        )
    ]


def _has_other_target(probe: LossProbe, rows: Tensor) -> bool:
    """True if an output in the shape of the rows is compared with targets, and not with the rows."""
    target = getattr(probe.case.losses, "target", None)
    if target is None:
        return False
    count = min(len(rows), len(target))
    paired = Rows(rows[:count], targets=target[:count])
    return paired.reference is not paired.inputs


def _squashed_twice(probe: LossProbe, output: Tensor, activation: str) -> list[Finding]:
    """Find a loss that takes logits of an output that is a probability already.

    The loss is smaller at the logits of the rows than at the rows themselves, and least there among their multiples; or
    far smaller, and the same at larger logits, as where the rows are 0 and 1.
    """
    batch = probe.batch
    if activation not in ("sigmoid", "softmax") or output.numel() != batch.numel():
        return []
    rows = batch.clamp(1e-4, 1 - 1e-4)
    values: list[float] = []
    for candidate in (batch, *(factor * torch.logit(rows) for factor in (0.5, 1.0, 2.0))):

        def hook(module: nn.Module, args: object, result: object, candidate: Tensor = candidate) -> object:
            return _with_output(result, output, candidate.reshape(output.shape))

        handle = probe.model.register_forward_hook(hook)
        try:
            with guarded():
                values.append(probe.evaluate().value(probe.case.objective))
        except Exception:  # the loss takes probabilities, and logits are none
            return []
        finally:
            handle.remove()
    at_rows, before, at_logits, beyond = values
    least = at_logits < at_rows and at_logits < min(before, beyond)
    level = at_logits < 0.5 * at_rows and abs(beyond - at_logits) <= 0.1 * abs(at_rows)
    if not all(map(math.isfinite, values)) or not (least or level):
        return []
    return [
        make_finding(
            "output_range",
            probe.case.objective,
            f"{probe.case.objective} is {at_rows:.3g} if the output equals the rows, and {at_logits:.3g} at their logits,"
            f" which the output's {activation} cannot give",
            "the loss applies a sigmoid of its own, so it sees 0.5 to 0.73 instead of 0 to 1",
            f"drop the last {activation}, or take a loss of probabilities (`binary_cross_entropy`)",
            {"at_rows": at_rows, "at_logits": at_logits},
        )
    ]


def clipped_errors(probe: LossProbe) -> list[Finding]:
    """Find a main term without a gradient at outputs far from the rows, although it has one near them.

    The rows are moved by a tenth of their standard deviation, and by 10 and 100 of them.
    """
    batch, term = probe.batch, probe.case.objective
    if term != "reconstruction" or not batch.is_floating_point():
        return []
    spread = batch.std(correction=0)
    signs = torch.randint(0, 2, batch.shape, generator=torch.Generator().manual_seed(0)).to(batch) * 2 - 1
    shares = [_share_with_gradient(probe, batch + size * spread * signs) for size in ERRORS]
    near, *far = shares
    if any(share is None for share in shares) or near < 0.9 or max(far) > 0.1:  # type: ignore[operator, type-var]
        return []
    return [
        make_finding(
            "escape",
            term,
            f"{term} has a gradient at {near:.0%} of the outputs that are {ERRORS[0]:g} standard deviations off, and at"
            f" {max(far):.0%} of those that are {ERRORS[1]:g} or {ERRORS[2]:g} off",  # type: ignore[type-var]
            "large errors are not corrected: an output that starts far away stays there",
            "clip the gradient instead of the error, or use a loss that is linear for large errors (F.smooth_l1_loss)",
            {"near": float(near), "far": float(max(far))},  # type: ignore[arg-type, type-var]
            source=loss_source(probe.case),
        )
    ]


def _share_with_gradient(probe: LossProbe, candidate: Tensor) -> float | None:
    """Return the share of outputs with a gradient of the main term where the output has these values; None if unknown."""
    leaves: list[Tensor] = []

    def hook(module: nn.Module, args: object, result: object) -> object:
        output = reconstruction_of(outputs_of(result), probe.batch, probe.case.reconstruction)
        if output is None or output.numel() != candidate.numel():
            return None
        leaves.append(candidate.reshape(output.shape).detach().clone().requires_grad_(True))
        return _with_output(result, output, leaves[-1])

    handle = probe.model.register_forward_hook(hook)
    try:
        with guarded():
            slopes = probe.evaluate().gradient(probe.case.objective, leaves)
    except Exception:  # such outputs are outside of the domain of the loss
        return None
    finally:
        handle.remove()
    if not slopes or not all(bool(slope.isfinite().all()) for slope in slopes):
        return None
    return float((slopes[-1] != 0).double().mean())


def _with_output(result: object, output: Tensor, replacement: Tensor) -> object:
    """Return a model's result with the output of one shape replaced; None where it cannot be."""
    if isinstance(result, Tensor):
        return replacement
    if isinstance(result, tuple | list) and not hasattr(result, "_fields"):
        return type(result)(replacement if isinstance(x, Tensor) and x.shape == output.shape else x for x in result)
    return None


def _loss_pulls_outward(probe: LossProbe, output: Tensor, low: float, high: float) -> bool:
    """True if the loss still pulls outward at the nearest possible output; False if it rescales its target."""
    batch = probe.batch
    outside = ((batch < low) | (batch > high)).reshape(len(batch), -1)
    if not bool(outside.any()) or output.numel() != batch.numel():
        return True
    leaves: list[Tensor] = []

    def hook(module: nn.Module, args: object, result: object) -> object:
        leaf = batch.clamp(low, high).reshape(output.shape).detach().clone().requires_grad_(True)
        leaves.append(leaf)
        return _with_output(result, output, leaf)

    handle = probe.model.register_forward_hook(hook)
    try:
        pull = probe.evaluate().gradient(probe.case.objective, leaves)
    finally:
        handle.remove()
    if not pull or not any(bool((gradient != 0).any()) for gradient in pull):
        return True  # the loss calls parts of the model itself, so the output could not be replaced
    outward = pull[-1].reshape(len(batch), -1) * torch.where(batch < low, 1.0, -1.0).reshape(len(batch), -1) > 0
    return float(outward[outside].float().mean()) > 0.5
