"""Rules on the location of a penalty: layer, axis, code in use, addressing by index."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import TermProbe, Undecided, layers_after, perturbations
from harness.auditing.findings import loss_source, make_finding, source_line
from harness.auditing.optima import set_point
from harness.auditing.probe import Evaluation, LossProbe, differs
from harness.auditing.probe_values import RANGES, activation_of, random_values
from harness.auditing.trace import TensorSite, TracedOperation
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.user_code import guarded

INJECTIVE = ("sigmoid", "tanh", "leaky_relu", "elu", "softplus")
INVERSES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.logit, "tanh": torch.atanh}


def misses_bottleneck(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a penalty that no replacement of the code changes."""
    code = subject.probe.code
    if code.site is None:
        raise Undecided("no layer's output leads to the code")
    if (
        subject.follows
        or (subject.direct and not subject.astray)
        or _reads_parameters_only(subject)
        or _reads_declared_layer(subject)
        or _same_information(subject)
        or _reads_heads_of_the_code(subject)
    ):
        return []
    if not math.isfinite(subject.base):
        raise Undecided(f"{subject.term} is {subject.base} on the data and for every replacement of the code")
    source = source_line(operations, [TensorSite(name) for name in subject.layers])
    return [
        make_finding(
            "misses_bottleneck",
            subject.term,
            f"{subject.term} does not read the bottleneck: it stays {subject.base:.4g} however the output of {code.site}"
            " is changed (replaced, scaled, set to 0, shuffled)",
            f"it does not constrain the code of {subject.probe.case.bottleneck}",
            f"apply it to {code.site}, the values that the decoder reads",
            {"value": subject.base},
            source=source,
        )
    ]


def wrong_layer(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a penalty that depends directly on another layer and not on the bottleneck."""
    code = subject.probe.code
    if code.site is None:
        raise Undecided("no layer's output leads to the code")
    own = {code.site.layer, *subject.beside}
    if not subject.layers or subject.direct or own & set(subject.layers) or _reads_the_batch(subject):
        return []
    if _reads_declared_layer(subject):
        return []
    heads = [name for name in subject.layers if subject.follows and is_own_head(subject.probe, name)]
    after = layers_after(subject.probe) if heads else set()
    # a head of the code reads the code: what lies before it is what the code is compared with, as in p(z1 | z2)
    compared = [name for name in subject.layers if name not in after] if set(heads) & after else []
    layers = [name for name in subject.layers if name not in (*heads, *compared)]
    if not layers:
        return []
    names = ", ".join(layers)
    return [
        make_finding(
            "wrong_layer",
            subject.term,
            f"{subject.term} reads the output of {names}, not that of {code.site.layer}",
            f"it constrains {names} instead of the bottleneck",
            f"apply it to {code.site}, the values that the decoder reads",
            source=source_line(operations, [TensorSite(name) for name in layers]),
        )
    ]


def is_own_head(probe: LossProbe, layer: str) -> bool:
    """True for a layer that the main term does not use, such as a classifier, projection head, critic or probe."""
    site, objective = TensorSite(layer), TermProbe(probe, probe.case.objective, 0.0)
    first, second = (probe.evaluate().value(objective.term) for _ in range(2))
    objective.noise = abs(first - second) if math.isfinite(first - second) else 0.0
    return not any(
        objective.differs(probe.evaluate({site: change}).value(objective.term), first)
        for change in perturbations(site, "none")
    )


def not_the_code_in_use(
    subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds
) -> list[Finding]:
    """Find a penalty that changes with the bottleneck's output while the code in use is fixed."""
    code = subject.probe.code
    before = list(subject.astray)
    same = _same_information(subject)
    if not before or (same and _reads_means_of_the_code(subject, before[0])):
        return []
    return [
        make_finding(
            "not_the_code_in_use",
            subject.term,
            f"{subject.term} changes with {before[0]} while {code.site}, the code that the decoder reads, is fixed",
            f"{code.activation} is invertible, but means and zeros differ before and after it"
            if same
            else "the penalty constrains other values than the code in use: they can be at the target while the code is dead",
            f"penalize {code.site} itself",
            severity=Severity.RISK if same else None,
            source=source_line(operations, before),
        )
    ]


def wrong_axis(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a set point for the mean of every row over units, in place of the mean of every unit over rows."""
    for site in subject.direct or _layer_sites(subject):
        like = subject.shape(site)
        axis = _unit_axis(subject, site, like)
        if like.dim() < 2 or like.shape[axis] < 2 or len(like) < 2 or set_point(subject, site) is None:
            continue
        values = _finite_values(subject, site, like, axis)
        if values is None:
            continue
        base = subject.value(site, values)
        units, rows = subject.value(site, _units_shuffled(values, axis)), subject.value(site, _rows_shuffled(values))
        if not subject.differs(units, base) and subject.differs(rows, base):
            return [_axis_finding(subject, site, operations, base, units, rows)]
    return []


def _layer_sites(subject: TermProbe) -> tuple[TensorSite, ...]:
    """Return the outputs of the layers that the term reads, and their first activations."""
    sites = list(subject.probe.evaluate().record.sites)
    layer_sites: list[TensorSite] = []
    for name in subject.layers[:3]:
        activated = [
            site for site in sites if site.layer == name and len(site.chain) in (1, 2) and site.chain[-1] in RANGES
        ]
        layer_sites += [TensorSite(name), *activated[:2]]
    return tuple(layer_sites)


def _axis_finding(
    subject: TermProbe, site: TensorSite, operations: list[TracedOperation], base: float, units: float, rows: float
) -> Finding:
    source = source_line(operations, [site], ("mean", "sum", "norm", "std", "var")) or source_line(operations, [site])
    return make_finding(
        "wrong_axis",
        subject.term,
        f"at {site}, {subject.term} stays {base:.4g} when units are shuffled within rows ({units:.4g}),"
        f" and becomes {rows:.4g} when rows are shuffled within units",
        "it constrains the mean of every row over units; a single unit may still be on, or off, on every row",
        "average over the batch (dim 0), one value per unit",
        {"value": base, "units_shuffled": units, "rows_shuffled": rows},
        source=source,
    )


def index_addressing(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a loss that addresses modules by position: an inserted identity layer changes the term."""
    model = subject.probe.model
    for name, container in [("", model), *_sequences(model)]:
        unchanged, effect = _insert_identity(subject, container)
        if unchanged and effect:
            return [
                make_finding(
                    "index_addressing",
                    subject.term,
                    f"inserting nn.Identity at the front of {name or 'the model'} does not change the model's output, but"
                    f" {effect}",
                    "the penalty is tied to a position, so an added layer silently moves it to another layer",
                    "address the layer by name (`model.enc3`), or use the values that forward returns",
                    source=loss_source(subject.probe.case),
                )
            ]
    return []


def _sequences(model: nn.Module) -> Sequence[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if name and isinstance(module, nn.Sequential)][:8]


def _insert_identity(subject: TermProbe, container: nn.Module) -> tuple[bool, str]:
    probe, children = subject.probe, container._modules
    original = OrderedDict(children)
    before = probe.forward(probe.batch).outputs
    try:
        children.clear()
        children.update({"inserted": nn.Identity(), **original})
        with guarded():
            unchanged = _equal_outputs(before, probe.forward(probe.batch).outputs)
            value = probe.evaluate().value(subject.term) if unchanged else subject.base
        effect = (
            f"changes {subject.term} from {subject.base:.4g} to {value:.4g}"
            if subject.differs(value, subject.base)
            else ""
        )
    except Exception as error:  # the user's indexing reached the inserted layer
        unchanged, effect = _forward_works(subject, before), f"breaks the loss ({type(error).__name__}: {error})"
    finally:
        children.clear()
        children.update(original)
    return unchanged, effect


def _forward_works(subject: TermProbe, before: list[tuple[object, ...]]) -> bool:
    try:
        with guarded():
            return _equal_outputs(before, subject.probe.forward(subject.probe.batch).outputs)
    except Exception:
        return False


def _equal_outputs(first: list[tuple[object, ...]], second: list[tuple[object, ...]]) -> bool:
    pairs = [(a, b) for x, y in zip(first, second, strict=False) for a, b in zip(x, y, strict=False)]
    return all(
        torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape
    )


def _reads_parameters_only(subject: TermProbe) -> bool:
    """True for a term that reads no activation, such as weight decay or orthogonality of weights."""
    if subject.layers:
        return False
    value = subject.probe.evaluate(batch=differs(subject.probe.batch, lambda rows: rows.flip(0) * 2 + 1)).value(
        subject.term
    )
    return not subject.differs(value, subject.base)


def _reads_declared_layer(subject: TermProbe) -> bool:
    """True if the code comes out of a later module, such as a quantizer, and the term reads the declared bottleneck."""
    site, declared = subject.probe.code.site, subject.probe.case.bottleneck
    inside = [name for name in subject.layers if name == declared or name.startswith(f"{declared}.")]
    return site is not None and bool(inside) and site.layer not in inside


def _same_information(subject: TermProbe) -> bool:
    """True if the term reads the code or the input of its invertible activation."""
    code = subject.probe.code
    if code.site is None or code.activation not in INJECTIVE or code.site.chain[-1:] != (code.activation,):
        return False
    return bool(subject.direct) and set(subject.direct) <= {
        code.site,
        TensorSite(code.site.layer, code.site.chain[:-1]),
    }


def _reads_means_of_the_code(subject: TermProbe, before: TensorSite) -> bool:
    """True if the term is a function of the code's means, over rows or units, although it is computed from logits.

    The code is contracted around its means, and the logits are computed from it: a penalty on the means (a divergence
    computed from `logsigmoid`) does not change, a penalty on the logits does.
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


def _reads_heads_of_the_code(subject: TermProbe) -> bool:
    """True for a VAE's penalty on mu and logvar where the code is sampled from them."""
    code = subject.probe.code
    if code.site is None or code.activation != "none":
        return False
    return bool({code.site.layer, *subject.beside} & set(subject.layers))


def _reads_the_batch(subject: TermProbe) -> bool:
    """True for another reconstruction term, which reads the output layer and the batch."""
    objective_layers = subject.cache.get("objective_layers", ())
    if not set(subject.layers) <= set(objective_layers):  # type: ignore[call-overload]
        return False
    moved: Callable[[Tensor], Evaluation] = lambda rows: subject.probe.evaluate(hold=True, batch=rows)  # noqa: E731
    return subject.differs(
        moved(differs(subject.probe.batch, lambda rows: rows.flip(0) * 2)).value(subject.term),
        moved(subject.probe.batch).value(subject.term),
    )


def _unit_axis(subject: TermProbe, site: TensorSite, like: Tensor) -> int:
    module_types = [type(module).__name__ for module, name in subject.probe.layers.items() if name == site.layer]
    return 1 if like.dim() > 2 and any("Conv" in module_type for module_type in module_types) else like.dim() - 1


def _finite_values(subject: TermProbe, site: TensorSite, like: Tensor, axis: int) -> Tensor | None:
    for scale in (1.0, 0.3, 0.1, 0.03):
        values = random_values(like, activation_of(site), scale, 11, axis)
        for candidate in (values, values.abs() + 0.01 * scale):  # the logarithm of a mean needs positive rows
            if abs(subject.value(site, candidate)) < float("inf"):
                return candidate
    return None


def _units_shuffled(values: Tensor, axis: int) -> Tensor:
    draw = torch.Generator().manual_seed(12)
    return values.gather(axis, torch.rand(values.shape, generator=draw).argsort(axis).to(values.device))


def _rows_shuffled(values: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(13)
    return values.gather(0, torch.rand(values.shape, generator=draw).argsort(0).to(values.device))
