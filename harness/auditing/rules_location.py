"""Rules on where a penalty reads the model: the right layer, the right axis, the code in use, by name."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided
from harness.auditing.findings import loss_source, make_finding, source_line
from harness.auditing.optima import set_point
from harness.auditing.probe import Evaluation, differs
from harness.auditing.probe_values import RANGES, activation_of, random_values
from harness.auditing.recorder import TensorSite, TracedOperation
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.user_code import guarded

INJECTIVE = ("sigmoid", "tanh", "leaky_relu", "elu", "softplus")
INVERSES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.logit, "tanh": torch.atanh}


def misses_bottleneck(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """The penalty does not change under any replacement of the activation in use."""
    code = subject.probe.code
    if code.site is None:
        raise Undecided("no layer's output leads to the code")
    if (
        subject.follows
        or (subject.direct and not subject.astray)
        or _on_parameters(subject)
        or _same_information(subject)
        or _heads_of_the_code(subject)
    ):
        return []
    if not math.isfinite(subject.base):
        raise Undecided(f"{subject.term} is {subject.base} on the data, whatever is put at the code")
    place = source_line(operations, [TensorSite(name) for name in subject.layers])
    return [
        make_finding(
            "misses_bottleneck",
            subject.term,
            f"{subject.term} stays {subject.base:.4g} when {code.site} is replaced, scaled, silenced or shuffled,"
            " later layers following",
            f"whatever it constrains, it is not the code of {subject.probe.case.bottleneck}",
            f"apply it to the values that the decoder reads: {code.site}",
            {"value": subject.base},
            place=place,
        )
    ]


def wrong_layer(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """It depends directly on another layer, and not on the bottleneck."""
    code = subject.probe.code
    if code.site is None:
        raise Undecided("no layer's output leads to the code")
    own = {code.site.layer, *subject.beside}
    if not subject.layers or subject.direct or own & set(subject.layers) or _compares_with_the_data(subject):
        return []
    names = ", ".join(subject.layers)
    return [
        make_finding(
            "wrong_layer",
            subject.term,
            f"with every other layer's output held, {subject.term} depends on {names}, not on {code.site.layer}",
            f"it constrains {names}",
            f"apply it to {code.site}, the values that the decoder reads",
            place=source_line(operations, [TensorSite(name) for name in subject.layers]),
        )
    ]


def not_the_code_in_use(
    subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds
) -> list[Finding]:
    """It changes with the bottleneck's output while the activation in use is held."""
    code = subject.probe.code
    before = list(subject.astray)
    same = _same_information(subject)
    if not before or (same and _reads_means_of_the_code(subject, before[0])):
        return []
    return [
        make_finding(
            "not_the_code_in_use",
            subject.term,
            f"{subject.term} changes with {before[0]} while {code.site}, the code that the decoder reads, is held",
            f"{code.activation} maps one to the other without loss, but their means and zeros differ"
            if same
            else "the penalised values and the code in use are two different things: one can be at its target while the other is dead",
            f"penalise {code.site} itself",
            severity=Severity.RISK if same else None,
            place=source_line(operations, before),
        )
    ]


def wrong_axis(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """A set point for each row's statistic over units, where one for each unit's statistic over rows was meant."""
    for site in subject.direct or _elsewhere(subject):
        like = subject.shape(site)
        axis = _unit_axis(subject, site, like)
        if like.dim() < 2 or like.shape[axis] < 2 or len(like) < 2 or set_point(subject, site) is None:
            continue
        values = _finite(subject, site, like, axis)
        if values is None:
            continue
        base = subject.value(site, values)
        units, rows = subject.value(site, _units_shuffled(values, axis)), subject.value(site, _rows_shuffled(values))
        if not subject.differs(units, base) and subject.differs(rows, base):
            return [_axis_finding(subject, site, operations, base, units, rows)]
    return []


def _elsewhere(subject: TermProbe) -> tuple[TensorSite, ...]:
    """Sites at the layers that the term reads: their outputs, and what the first activations make of them."""
    sites = list(subject.probe.evaluate().record.sites)
    found: list[TensorSite] = []
    for name in subject.layers[:3]:
        activated = [s for s in sites if s.layer == name and len(s.chain) in (1, 2) and s.chain[-1] in RANGES]
        found += [TensorSite(name), *activated[:2]]
    return tuple(found)


def _axis_finding(
    subject: TermProbe, site: TensorSite, operations: list[TracedOperation], base: float, units: float, rows: float
) -> Finding:
    place = source_line(operations, [site], ("mean", "sum", "norm", "std", "var")) or source_line(operations, [site])
    return make_finding(
        "wrong_axis",
        subject.term,
        f"at {site}, {subject.term} stays {base:.4g} when units are shuffled within rows ({units:.4g}),"
        f" and becomes {rows:.4g} when rows are shuffled within units",
        "it holds each row's mean over units at a target, and says nothing of any unit: a unit may be on, or off, on every row",
        "take the statistic over the batch (dim 0), one value per unit",
        {"value": base, "units_shuffled": units, "rows_shuffled": rows},
        place=place,
    )


def index_addressing(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """An inserted layer that does nothing changes the term: the loss addresses modules by position."""
    model = subject.probe.model
    for name, container in [("", model), *_sequences(model)]:
        outputs, moved = _with_inserted(subject, container)
        if outputs and moved:
            return [
                make_finding(
                    "index_addressing",
                    subject.term,
                    f"inserting a layer that does nothing at the front of {name or 'the model'} leaves the model's output as"
                    f" it was and {moved}",
                    "the penalty follows a position, so the next change of the architecture moves it to another layer",
                    "name the layer (`model.enc3`), or use what the model's forward pass returns",
                    place=loss_source(subject.probe.case),
                )
            ]
    return []


def _sequences(model: nn.Module) -> Sequence[tuple[str, nn.Module]]:
    return [(name, each) for name, each in model.named_modules() if name and isinstance(each, nn.Sequential)][:8]


def _with_inserted(subject: TermProbe, container: nn.Module) -> tuple[bool, str]:
    probe, children = subject.probe, container._modules
    kept = OrderedDict(children)
    before = probe.forward(probe.batch).outputs
    try:
        children.clear()
        children.update({"inserted": nn.Identity(), **kept})
        with guarded():
            same = _alike(before, probe.forward(probe.batch).outputs)
            value = probe.evaluate().value(subject.term) if same else subject.base
        moved = (
            f"moves {subject.term} from {subject.base:.4g} to {value:.4g}"
            if subject.differs(value, subject.base)
            else ""
        )
    except Exception as error:  # the user's own indexing met the inserted layer
        same, moved = _forward_works(subject, before), f"breaks the loss ({type(error).__name__}: {error})"
    finally:
        children.clear()
        children.update(kept)
    return same, moved


def _forward_works(subject: TermProbe, before: list[tuple[object, ...]]) -> bool:
    try:
        with guarded():
            return _alike(before, subject.probe.forward(subject.probe.batch).outputs)
    except Exception:
        return False


def _alike(first: list[tuple[object, ...]], second: list[tuple[object, ...]]) -> bool:
    pairs = [(a, b) for x, y in zip(first, second, strict=False) for a, b in zip(x, y, strict=False)]
    return all(
        torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    )


def _on_parameters(subject: TermProbe) -> bool:
    """A weight decay, an orthogonality of weights: it reads no activation at all."""
    if subject.layers:
        return False
    other = subject.probe.evaluate(batch=differs(subject.probe.batch, lambda rows: rows.flip(0) * 2 + 1)).value(
        subject.term
    )
    return not subject.differs(other, subject.base)


def _same_information(subject: TermProbe) -> bool:
    """Whether it reads values that the code determines: what enters an activation that can be undone, or the code."""
    code = subject.probe.code
    if code.site is None or code.activation not in INJECTIVE or code.site.chain[-1:] != (code.activation,):
        return False
    return bool(subject.direct) and set(subject.direct) <= {
        code.site,
        TensorSite(code.site.layer, code.site.chain[:-1]),
    }


def _reads_means_of_the_code(subject: TermProbe, before: TensorSite) -> bool:
    """Whether it is a function of the code's means, over rows or over units, though it is computed from logits.

    Values of the code are drawn together around their means, and what enters the activation follows them: an exact form
    of a penalty on the means (a divergence computed from `logsigmoid`) stays as it is, a penalty on the logits does not.
    """
    activation = subject.probe.code.activation
    if activation not in INVERSES:
        return False
    code = random_values(subject.shape(before), activation, 1.0, 51)
    base, inverse = subject.value(before, INVERSES[activation](code)), INVERSES[activation]
    means = [code.mean(dim=axis, keepdim=True) for axis in (0, *range(1, code.dim()))]
    return math.isfinite(base) and any(
        not subject.differs(subject.value(before, inverse((code + mean) / 2)), base) for mean in means
    )


def _heads_of_the_code(subject: TermProbe) -> bool:
    """A VAE's penalty on mu and logvar, where the code is what was drawn from them."""
    code = subject.probe.code
    if code.site is None or code.activation != "none":
        return False
    return bool({code.site.layer, *subject.beside} & set(subject.layers))


def _compares_with_the_data(subject: TermProbe) -> bool:
    """Another reconstruction term: it reads the output layer and the batch."""
    if subject.probe.evaluate().terms.get("reconstruction") is None:
        return False
    reconstruction = subject.cache.get("reconstruction_layers", ())
    if not set(subject.layers) <= set(reconstruction):  # type: ignore[call-overload]
        return False
    moved: Callable[[Tensor], Evaluation] = lambda rows: subject.probe.evaluate(hold=True, batch=rows)  # noqa: E731
    return subject.differs(
        moved(differs(subject.probe.batch, lambda rows: rows.flip(0) * 2)).value(subject.term),
        moved(subject.probe.batch).value(subject.term),
    )


def _unit_axis(subject: TermProbe, site: TensorSite, like: Tensor) -> int:
    kinds = [type(module).__name__ for module, name in subject.probe.layers.items() if name == site.layer]
    return 1 if like.dim() > 2 and any("Conv" in kind for kind in kinds) else like.dim() - 1


def _finite(subject: TermProbe, site: TensorSite, like: Tensor, axis: int) -> Tensor | None:
    for scale in (1.0, 0.3, 0.1, 0.03):
        values = random_values(like, activation_of(site), scale, 11, axis)
        for tried in (values, values.abs() + 0.01 * scale):  # a logarithm of a mean bears no row of zeros
            if abs(subject.value(site, tried)) < float("inf"):
                return tried
    return None


def _units_shuffled(values: Tensor, axis: int) -> Tensor:
    draw = torch.Generator().manual_seed(12)
    return values.gather(axis, torch.rand(values.shape, generator=draw).argsort(axis).to(values.device))


def _rows_shuffled(values: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(13)
    return values.gather(0, torch.rand(values.shape, generator=draw).argsort(0).to(values.device))
