"""Rule on the way from input to output: around the bottleneck, or not through it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import make_finding
from harness.auditing.isolation import copies, preserved_rng, preserved_state
from harness.auditing.probe import Code, LossProbe, differs, replace_with
from harness.auditing.probe_values import random_values
from harness.auditing.rules_reach import MOVES, moved
from harness.auditing.trace import Change, TensorSite
from harness.capture import eval_mode, reconstruction_of
from harness.capture.noise import NoiseDraws
from harness.capture.tap import submodule
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity


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
    replaced = _output(
        probe, probe.batch, {code.site: replace_with(random_values(code.values, code.activation, 2.0, 51))}
    )
    assert replaced is not None
    followed = _change_with_input(probe, fixed) / size
    if followed > bounds.bypass:
        with _fixed_statistics(probe):
            followed = min(followed, _change_with_input(probe, fixed) / size)
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
        and not _reads_code_without_noise(probe, code)
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


def _change_with_input(probe: LossProbe, fixed: dict[TensorSite, Change]) -> float:
    """Return the norm of the change of the output with the input while the values at the fixed sites stay."""
    moved = differs(probe.batch, lambda rows: rows.flip(0) * 0.5 + rows.roll(1, 0))
    reference, changed = (_output(probe, batch, fixed) for batch in (probe.batch, moved))
    assert reference is not None
    assert changed is not None
    return float((changed - reference).norm())


@contextmanager
def _fixed_statistics(probe: LossProbe) -> Iterator[None]:
    """Put the modules whose buffers a forward pass writes into eval mode: running statistics are no path of the input."""
    with preserved_state(probe.model), preserved_rng(0), torch.no_grad():
        before = {module: copies(list(module.buffers(recurse=False))) for module in probe.model.modules()}
        probe.model(probe.batch.clone())
        writers = [
            module
            for module, buffers in before.items()
            if not all(map(torch.equal, buffers, module.buffers(recurse=False)))
        ]
    modes = [module.training for module in writers]
    for module in writers:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(writers, modes, strict=True):
            module.training = mode


def undeclared_posterior(probe: LossProbe) -> list[Finding]:
    """Find noise of the code's shape that the model draws behind the bottleneck, where no posterior was declared."""
    case = probe.case
    if case.posterior is not None or case.bottleneck.startswith("out:"):
        return []
    with NoiseDraws(submodule(probe.model, case.bottleneck)) as noise:
        probe.forward(probe.batch)
    if not noise.drawn:
        return []
    return [
        make_finding(
            "undeclared_posterior",
            None,
            f"the model draws Gaussian noise of the shape of {case.bottleneck}'s output behind it, and the case names no"
            " posterior",
            "the mean of a collapsed posterior still varies a little, so the mean alone cannot show posterior collapse",
            'name the log-variance: Case(posterior="logvar"), a module, or an output such as "out:2"',
        )
    ]


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


def _reads_code_without_noise(probe: LossProbe, code: Code) -> bool:
    """True if the output follows the code in eval mode: noise of a huge variance rounds the code away in training."""
    assert code.site is not None
    change = {code.site: replace_with(random_values(code.values, code.activation, 2.0, 51))}
    with eval_mode(probe.model):
        natural, replaced = _output(probe, probe.batch, {}), _output(probe, probe.batch, change)
    return natural is not None and replaced is not None and not torch.equal(natural, replaced)


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
