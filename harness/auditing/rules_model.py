"""Rules on the model and its data, independent of penalties: optimizer, output range, bypass."""

import torch
from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import make_finding
from harness.auditing.isolation import preserved_rng
from harness.auditing.probe import Code, LossProbe, differs, replace_with
from harness.auditing.probe_values import RANGES, random_values
from harness.auditing.rules_reach import MOVES, moved
from harness.auditing.trace import Change, TensorSite
from harness.capture import BottleneckTap, eval_mode, reconstruction_of
from harness.case import Case, build_optimizer
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity


def optimizer_parameters(case: Case, model: nn.Module) -> list[Finding]:
    """Find trainable parameters missing in the case's optimizer, and parameters of another model in it."""
    case_optimizer = build_optimizer(case, model)
    if case_optimizer is None:
        return []
    optimized = [parameter for group in case_optimizer.param_groups for parameter in group["params"]]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    missed = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in {*map(id, optimized)}
    ]
    extra = sum(1 for parameter in optimized if id(parameter) not in names)
    findings = []
    if missed:
        findings.append(
            make_finding(
                "optimizer_misses_parameters",
                None,
                f"{len(missed)} of {len(names)} trainable parameters are not in the optimizer: {', '.join(missed[:6])}",
                "they keep their initial values",
                "pass all parameters: `optimizer=lambda parameters: Adam(parameters)`",
                {"missed": len(missed)},
            )
        )
    if extra:
        text = f"{extra} parameters in the optimizer do not belong to the model"
        findings.append(
            make_finding(
                "optimizer_extra_parameters",
                None,
                text,
                "the optimizer also trains another model",
                "use the parameters that the function receives",
                {"extra": extra},
            )
        )
    return findings


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
    index = next((i for i, tensor in enumerate(view.outputs) if tensor is output), None)
    maker = None if index is None else view.makers[index]
    if output is None or maker is None or maker.name not in RANGES:
        return []
    low, high = RANGES[maker.name]
    slack = 1e-6 * float(rows.abs().max())
    outside = (rows < low - slack) | (rows > high + slack)
    share = float(outside.float().mean())
    if share == 0 or not _loss_pulls_outward(probe, output, low, high):
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
        if isinstance(result, Tensor):
            return leaf
        if isinstance(result, tuple | list) and not hasattr(result, "_fields"):
            return type(result)(leaf if isinstance(x, Tensor) and x.shape == output.shape else x for x in result)
        return None

    handle = probe.model.register_forward_hook(hook)
    try:
        pull = probe.evaluate().gradient(probe.case.objective, leaves)
    finally:
        handle.remove()
    if not pull or not any(bool((gradient != 0).any()) for gradient in pull):
        return True  # the loss calls parts of the model itself, so the output could not be replaced
    outward = pull[-1].reshape(len(batch), -1) * torch.where(batch < low, 1.0, -1.0).reshape(len(batch), -1) > 0
    return float(outward[outside].float().mean()) > 0.5


def bypass(subject: TermProbe, bounds: AuditThresholds) -> list[Finding]:
    """Find a reconstruction that follows the input while the bottleneck is fixed, or ignores the bottleneck."""
    probe, code = subject.probe, subject.probe.code
    if code.site is None:
        raise Undecided("no layer's output leads to the code")
    first = _output(probe, probe.batch, {})
    if first is None:
        if probe.case.objective != "reconstruction":
            return []
        raise Undecided("no output of the model is its reconstruction")
    record = probe.forward(probe.batch)
    # the layer's own output too: a top-k selects by pre-activation, which is not a bypass
    own = {code.site.layer, *subject.beside}
    fixed = {TensorSite(call.name): replace_with(call.before.detach()) for call in record.calls if call.name in own}
    fixed[code.site] = replace_with(code.values)
    size = float((first - first.mean(0)).norm()) or float(first.norm()) or 1.0
    reference = _output(probe, probe.batch, fixed)
    changed = _output(probe, differs(probe.batch, lambda rows: rows.flip(0) * 0.5 + rows.roll(1, 0)), fixed)
    replaced = _output(
        probe, probe.batch, {code.site: replace_with(random_values(code.values, code.activation, 2.0, 51))}
    )
    assert reference is not None
    assert changed is not None
    assert replaced is not None
    followed = float((changed - reference).norm()) / size
    if followed > bounds.bypass and _is_gate(probe, fixed, code, size * bounds.bypass):
        return [
            _bypass_finding(
                probe.case.objective,
                f"with {code.site} fixed, the output still changes by {followed:.3g} of its spread when the input changes;"
                f" {code.site} multiplies what is computed from the input",
                "the bottleneck is a gate or router: the input is meant to reach the output beside it",
                "none is needed for a mixture of experts or attention",
                followed,
                Severity.NOTE,
            )
        ]
    severity = None if probe.case.objective == "reconstruction" else Severity.NOTE
    if followed > bounds.bypass:
        return [
            _bypass_finding(
                probe.case.objective,
                f"with {code.site} fixed, the reconstruction still changes by {followed:.3g} of its spread when the input changes",
                "the input reaches the output around the bottleneck, so the bottleneck need not carry information",
                "remove the skip connection around the bottleneck",
                followed,
                severity,
            )
        ]
    if (
        float((replaced - first).norm()) / size <= bounds.bypass
        and not _is_zero(first)
        and not _reads_code_once_moved(probe, code, bounds)
    ):
        return [
            _bypass_finding(
                probe.case.objective,
                f"the reconstruction does not change when {code.site} is replaced",
                "the decoder does not read the bottleneck",
                "feed the decoder from the bottleneck",
                0.0,
                severity,
            )
        ]
    return []


def _reads_code_once_moved(probe: LossProbe, code: Code, bounds: AuditThresholds) -> bool:
    """True if the output follows the code after a random change of all parameters: a decoder that starts at zero."""
    assert code.site is not None
    change = {code.site: replace_with(random_values(code.values, code.activation, 2.0, 51))}
    for seed, size in MOVES:
        with moved(list(probe.model.parameters()), size, seed):
            natural, replaced = _output(probe, probe.batch, {}), _output(probe, probe.batch, change)
        if natural is None or replaced is None:
            return False
        spread = float((natural - natural.mean(0)).norm()) or float(natural.norm()) or 1.0
        if float((replaced - natural).norm()) / spread > bounds.bypass:
            return True
    return False


def _is_gate(probe: LossProbe, fixed: dict[TensorSite, Change], code: Code, tolerance: float) -> bool:
    """True if the code multiplies what is computed from the input, as a router or attention weights do.

    With a gate of 0 the output no longer follows the input. A softmax gate beside a residual connection is recognized
    by the interaction of code and input.
    """
    assert code.site is not None
    sites = probe.forward(probe.batch).sites
    gates = [site for site in sites if site.layer == code.site.layer and site.chain[-1:] in GATES]
    return any(_multiplies(probe, fixed, gate, tolerance) for gate in [code.site, *gates])


def _multiplies(probe: LossProbe, fixed: dict[TensorSite, Change], gate: TensorSite, tolerance: float) -> bool:
    rows, moved = probe.batch, differs(probe.batch, lambda batch: batch.flip(0) * 0.5 + batch.roll(1, 0))
    closed = {**fixed, gate: lambda values, index: values * 0}
    first, second = _output(probe, rows, closed), _output(probe, moved, closed)
    opened = [_output(probe, batch, fixed) for batch in (rows, moved)]
    if first is None or second is None or opened[0] is None or opened[1] is None:
        return False
    if float((first - second).norm()) <= tolerance:
        return True
    return "softmax" in gate.chain and float((opened[0] - opened[1] - first + second).norm()) > tolerance


def _bypass_finding(
    term: str, evidence: str, meaning: str, remedy: str, followed: float, severity: Severity | None = None
) -> Finding:
    return make_finding("bypass", term, evidence, meaning, remedy, {"followed": followed}, severity)


def _is_zero(output: Tensor) -> bool:
    return bool((output == output[:1]).all()) and bool((output == 0).all())


def _output(probe: LossProbe, batch: Tensor, changes: dict[TensorSite, Change]) -> Tensor | None:
    with torch.no_grad():
        outputs = probe.forward(batch, changes).outputs
    reconstruction = reconstruction_of(outputs[0], batch, probe.case.reconstruction)
    return None if reconstruction is None else reconstruction.detach()


GATES = (("softmax",), ("sigmoid",))
