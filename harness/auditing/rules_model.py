"""Rules on the model and its data, whatever the penalty: optimiser, output range, bypass."""

import torch
from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import make_finding
from harness.auditing.isolation import preserved_rng
from harness.auditing.probe import LossProbe, differs, replace_with
from harness.auditing.probe_values import RANGES, random_values
from harness.auditing.recorder import Change, TensorSite
from harness.capture import BottleneckTap, eval_mode, reconstruction_of
from harness.case import Case, build_optimizer
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity


def optimizer(case: Case, model: nn.Module) -> list[Finding]:
    """Parameters that the case's optimizer misses, or that do not belong to the model."""
    made = build_optimizer(case, model)
    if made is None:
        return []
    held = [each for group in made.param_groups for each in group["params"]]
    names = {id(each): name for name, each in model.named_parameters()}
    missed = [
        name for name, each in model.named_parameters() if each.requires_grad and id(each) not in {*map(id, held)}
    ]
    extra = sum(1 for each in held if id(each) not in names)
    found = []
    if missed:
        found.append(
            make_finding(
                "optimizer_misses_parameters",
                None,
                f"{len(missed)} of {len(names)} trainable parameters are not in the optimizer: {', '.join(missed[:6])}",
                "they keep their initial values for ever",
                "hand the optimizer everything: `optimizer=lambda parameters: Adam(parameters)`",
                {"missed": len(missed)},
            )
        )
    if extra:
        text = f"{extra} parameters in the optimizer do not belong to the model"
        found.append(
            make_finding(
                "optimizer_extra_parameters",
                None,
                text,
                "another model is trained beside this one",
                "use the parameters that the function is given",
                {"extra": extra},
            )
        )
    return found


def output_range(probe: LossProbe, rows: Tensor, bounds: AuditThresholds) -> list[Finding]:
    """The data leave the range that the output activation can produce, and the loss asks for them there."""
    with (
        BottleneckTap(probe.model, probe.case.bottleneck) as tap,
        preserved_rng(0),
        eval_mode(probe.model),
        torch.no_grad(),
    ):
        probe.model(probe.batch.clone())
    seen = tap.passes[0]
    output = reconstruction_of(seen.outputs, probe.batch, probe.case.reconstruction)
    if not rows.is_floating_point():
        return []  # tokens have no range that an output could reach
    index = next((i for i, each in enumerate(seen.outputs) if each is output), None)
    maker = None if index is None else seen.makers[index]
    if output is None or maker is None or maker.name not in RANGES:
        return []
    low, high = RANGES[maker.name]
    slack = 1e-6 * float(rows.abs().max())
    outside = (rows < low - slack) | (rows > high + slack)
    share = float(outside.float().mean())
    if share == 0 or not _asked_for(probe, output, low, high):
        return []
    return [
        make_finding(
            "output_range",
            "reconstruction",
            f"{share:.1%} of the data's entries leave {low:g} to {high:g}, the range of the output's {maker.name}"
            f" (the data run from {float(rows.min()):.3g} to {float(rows.max()):.3g})",
            "these entries can never be reconstructed, and their gradient pushes the output into its flat end",
            "a linear output (drop the last activation), or data scaled into its range",
            {"share": share, "low": float(rows.min()), "high": float(rows.max())},
            severity=None if share > bounds.output_share else Severity.RISK,
        )
    ]


def _asked_for(probe: LossProbe, output: Tensor, low: float, high: float) -> bool:
    """Whether, at the nearest output that can be produced, the loss still pulls outwards: it may rescale its target."""
    batch = probe.batch
    outside = ((batch < low) | (batch > high)).reshape(len(batch), -1)
    if not bool(outside.any()) or output.numel() != batch.numel():
        return True
    leaves: list[Tensor] = []

    def hook(module: nn.Module, args: object, made: object) -> object:
        leaf = batch.clamp(low, high).reshape(output.shape).detach().clone().requires_grad_(True)
        leaves.append(leaf)
        if isinstance(made, Tensor):
            return leaf
        if isinstance(made, tuple | list) and not hasattr(made, "_fields"):
            return type(made)(leaf if isinstance(x, Tensor) and x.shape == output.shape else x for x in made)
        return None

    handle = probe.model.register_forward_hook(hook)
    try:
        pull = probe.evaluate().gradient("reconstruction", leaves)
    finally:
        handle.remove()
    if not pull or not any(bool((each != 0).any()) for each in pull):
        return True  # the loss calls the parts of the model itself, so its output could not be set
    outward = pull[-1].reshape(len(batch), -1) * torch.where(batch < low, 1.0, -1.0).reshape(len(batch), -1) > 0
    return float(outward[outside].float().mean()) > 0.5


def bypass(subject: TermProbe, bounds: AuditThresholds) -> list[Finding]:
    """With the bottleneck held the reconstruction still follows the input, or it never depends on the bottleneck."""
    probe, code = subject.probe, subject.probe.code
    if code.site is None:
        raise Undecided("no layer's output leads to the code")
    first = _output(probe, probe.batch, {})
    if first is None:
        raise Undecided("no output of the model is its reconstruction")
    record = probe.forward(probe.batch)
    # the layer's own output too: a top-k keeps units by what entered the activation, and that is no way around
    own = {code.site.layer, *subject.beside}
    held = {TensorSite(call.name): replace_with(call.before.detach()) for call in record.calls if call.name in own}
    held[code.site] = replace_with(code.values)
    size = float((first - first.mean(0)).norm()) or float(first.norm()) or 1.0
    kept = _output(probe, probe.batch, held)
    other = _output(probe, differs(probe.batch, lambda rows: rows.flip(0) * 0.5 + rows.roll(1, 0)), held)
    moved = _output(probe, probe.batch, {code.site: replace_with(random_values(code.values, code.activation, 2.0, 51))})
    assert kept is not None
    assert other is not None
    assert moved is not None
    followed = float((other - kept).norm()) / size
    if followed > bounds.bypass:
        return [
            _bypass(
                f"with {code.site} held, the reconstruction still moves by {followed:.3g} of its own spread when the input changes",
                "the input reaches the output on another way: the bottleneck need not carry anything",
                "remove the skip connection around the bottleneck",
                followed,
            )
        ]
    if float((moved - first).norm()) / size <= bounds.bypass and not _dead_output(first):
        return [
            _bypass(
                f"the reconstruction does not change when {code.site} is replaced",
                "the decoder does not read the bottleneck",
                "feed the decoder from the bottleneck",
                0.0,
            )
        ]
    return []


def _bypass(evidence: str, meaning: str, remedy: str, followed: float) -> Finding:
    return make_finding("bypass", "reconstruction", evidence, meaning, remedy, {"followed": followed})


def _dead_output(output: Tensor) -> bool:
    return bool((output == output[:1]).all()) and bool((output == 0).all())


def _output(probe: LossProbe, batch: Tensor, changes: dict[TensorSite, Change]) -> Tensor | None:
    with torch.no_grad():
        outputs = probe.forward(batch, changes).outputs
    found = reconstruction_of(outputs[0], batch, probe.case.reconstruction)
    return None if found is None else found.detach()
