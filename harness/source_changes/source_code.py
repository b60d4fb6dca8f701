"""Remedies as lines for the user's own model: what to write after it is built, in its code, and in the loss."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from harness.capture import CODE_SITE, BottleneckTap, eval_mode, submodule
from harness.case import Case
from harness.data.rows import Split
from harness.errors import HarnessError
from harness.factors import Level
from harness.loss_terms import bind_losses, loss_terms
from harness.models import build_model, own_precision
from harness.remedies.apply import treatment_of, weight_by_name
from harness.remedies.layout import ModelLayout, inspect_model
from harness.remedies.wrapper import Treatment
from harness.source_changes.call_sites import CallSite, call_sites
from harness.source_changes.general_lines import remedy_code
from harness.source_changes.source_edits import FUNCTIONS, Change, NotPrintable, changed_lines, changed_module
from harness.user_code import guarded

ROWS = 4
NORMALIZATIONS = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}  # by the axes of the code


@dataclass(frozen=True)
class _Subject:
    """A model and what its lines depend on.

    Args:
        sites: the places of its activations.
        axes: number of axes of the code.
        direct: True if the output of the bottleneck's module is what enters the code's activation.
        calls: calls of the bottleneck by the loss itself, outside the model's forward pass.
        batch: rows of a training step.
    """

    case: Case
    model: nn.Module
    layout: ModelLayout
    sites: Mapping[int, CallSite]
    axes: int
    direct: bool
    calls: int
    batch: Tensor


@dataclass
class _Lines:
    """Lines of a remedy by the part of the user's code that they belong to."""

    settings: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    loss: list[str] = field(default_factory=list)

    def text(self) -> str:
        built = ["# after the model is built, before its optimizer", *self.built] if self.built else []
        return "\n\n".join("\n".join(block) for block in (self.settings, built, self.source, self.loss) if block)


def source_code(case: Case, levels: Mapping[str, Level], split: Split) -> str:
    """Return the changes of a remedy as lines of Python for the case's own model, `model`.

    With these lines the model computes what the treated model computes. A change that cannot be written so for this
    model is a comment with the reason.
    """
    levels = weight_by_name(case, levels)
    subject = _subject(bind_losses(case, split.train.targets), split)
    treatment = treatment_of(case, levels, subject.layout)
    lines = _Lines()
    try:
        _write_model(subject, treatment, lines)
    except NotPrintable as reason:
        names = ", ".join(f"{name} {level}" for name, level in levels.items())
        return f"# {names}: no lines can be given for this model: {reason}"
    _write_settings(treatment, levels, case.bottleneck, lines)
    _write_loss(subject, treatment, str(levels.get("penalty", "")), lines)
    return lines.text()


def _subject(case: Case, split: Split) -> _Subject:
    batch = split.train.inputs[:ROWS]
    layout, model = inspect_model(case, batch), build_model(case, 0, batch)
    with guarded(), eval_mode(model), BottleneckTap(model, case.bottleneck) as tap:
        model(batch)
    forward = tap.passes[0]
    assert forward.code is not None
    return _Subject(
        case,
        model,
        layout,
        call_sites(model, batch, case.bottleneck, len(layout.names)),
        forward.code.dim(),
        layout.by_module and forward.raw is not None and forward.raw is forward.preactivation,
        _calls_in_loss(case, model, split),
        split.train.inputs[: case.training()["batch_size"]],
    )


def _calls_in_loss(case: Case, model: nn.Module, split: Split) -> int:
    """Count the calls of the bottleneck's module that do not come from the model's forward pass."""
    if not case.has_losses or case.bottleneck.startswith("out:"):
        return 0
    calls: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, module in (("model", model), ("bottleneck", submodule(model, case.bottleneck)))
    ]
    try:
        loss_terms(case, model, split.train.inputs[: case.training()["batch_size"]])
    finally:
        for handle in handles:
            handle.remove()
    return calls.count("bottleneck") - calls.count("model")


def _reads_attributes(case: Case, batch: Tensor) -> bool:
    """True if the loss fails on a model whose bottleneck is the only module of an `nn.Sequential`."""
    if not case.has_losses:
        return False
    wrapped = build_model(case, 0, batch[:ROWS])
    wrapped.set_submodule(case.bottleneck, nn.Sequential(submodule(wrapped, case.bottleneck)))
    try:
        loss_terms(case, wrapped, batch)
    except HarnessError:
        return True
    return False


def _write_model(subject: _Subject, treatment: Treatment, lines: _Lines) -> None:
    """Write the changes of initial values and forward pass."""
    changes: dict[int, Change] = {position: Change(activation=name) for position, name in treatment.activations.items()}
    for position in treatment.dropped:
        changes[position] = Change(
            changes.get(position, Change()).activation, dropout=float(treatment.numbers["dropout"])
        )
    code = CODE_SITE if subject.layout.code is None else subject.layout.code
    if treatment.top_k:
        changes[code] = Change(changes.get(code, Change()).activation, top_k=treatment.top_k)
    if treatment.normalized is not None:
        _write_normalization(subject, treatment.normalized, changes, lines)
    if CODE_SITE in changes:
        path = module_path(subject.model, subject.case.bottleneck)
        lines.built.append(changed_module(path, changes.pop(CODE_SITE), ""))
    if treatment.output is not None:
        raise NotPrintable(f"apply torch.{treatment.output} to the reconstruction where `forward` returns it")
    _write_changes(subject, changes, lines)
    if treatment.zero_bias:
        lines.built += ZERO_BIAS


def _write_normalization(subject: _Subject, position: int, changes: dict[int, Change], lines: _Lines) -> None:
    if (subject.axes > 2 and subject.layout.channel_axis != 1) or subject.axes not in NORMALIZATIONS:
        raise NotPrintable(
            "torch's BatchNorm takes the units on the second axis, and this code has them on another one"
        )
    precision = str(own_precision(subject.model))
    dtype = "" if precision == "torch.float32" else f", dtype={precision}"
    layer = f"nn.{NORMALIZATIONS[subject.axes]}({subject.layout.channels}, affine=False{dtype})"
    if subject.direct or position == CODE_SITE:
        path = module_path(subject.model, subject.case.bottleneck)
        lines.built.append(f"{path} = nn.Sequential({path}, {layer})")
        if _reads_attributes(subject.case, subject.batch):
            lines.built.append(f"# the layer itself is {path}[0] now: read its weight and other attributes from there")
        if subject.calls > 0:
            lines.built += [
                f"# the loss calls {subject.case.bottleneck} outside the forward pass too: that call has to skip the",
                "# normalization, or its rows enter the running statistics",
            ]
        return
    change = changes.get(position, Change())
    if _site(subject, position).module:
        changes[position] = Change(change.activation, change.dropout, change.top_k, layer)
        return
    lines.built.append(f"model.code_norm = {layer}")
    changes[position] = Change(change.activation, change.dropout, change.top_k, "self.code_norm")


def _write_changes(subject: _Subject, changes: Mapping[int, Change], lines: _Lines) -> None:
    in_code: dict[CallSite, Change] = {}
    shared = [subject.sites[position] for position in subject.sites]
    for position, change in sorted(changes.items()):
        site = _site(subject, position)
        unequal = [at for at, candidate in subject.sites.items() if candidate == site and changes.get(at) != change]
        if unequal:
            raise NotPrintable("one activation of the code serves several layers, and not all of them change")
        if not site.module:
            in_code[site] = change
        elif shared.count(site) == 1 or change == Change(change.activation):
            path = module_path(subject.model, site.module)
            line = changed_module(path, change, subject.layout.names[position])
            lines.built += [] if line in lines.built else [line]
        else:
            raise NotPrintable(f"the module {site.module} serves several layers")
    lines.source += changed_lines(in_code)


def _site(subject: _Subject, position: int) -> CallSite:
    if position not in subject.sites:
        raise NotPrintable("the source line of an activation is not known")
    return subject.sites[position]


def _write_settings(treatment: Treatment, levels: Mapping[str, Level], bottleneck: str, lines: _Lines) -> None:
    """Write numbers, width, inputs, and what belongs to the training loop."""
    unwritten = {name: level for name, level in levels.items() if name not in WRITTEN}
    lines.settings += [remedy_code({name: level}, bottleneck) for name, level in unwritten.items()]
    if treatment.centered:
        lines.settings += [
            "# once, before training; held-out rows lose the same mean",
            "mean = rows.mean(0)",
            "rows = rows - mean",
        ]


def _write_loss(subject: _Subject, treatment: Treatment, site: str, lines: _Lines) -> None:
    """Write the loss under another penalty."""
    if treatment.own_penalty:
        return
    objective = (
        subject.case.objective if subject.case.objective.isidentifier() else f"terms[{subject.case.objective!r}]"
    )
    name, penalty = treatment.penalty
    if penalty is None:
        lines.loss.append(f"loss = {objective}  # no penalty")
        return
    bottleneck, layout = subject.case.bottleneck, subject.layout
    if not subject.direct and layout.code is not None:
        lines.loss.append(
            f"# the penalty {name}: no lines can be given, {bottleneck} is followed by more than an activation"
        )
        return
    weight = subject.case.weight_name
    path = module_path(subject.model, bottleneck)
    activation = "none" if layout.code is None else treatment.activations.get(layout.code, layout.names[layout.code])
    function = FUNCTIONS.get(activation, "").format(functional="F")
    code = f"{function}({PREACTIVATION})" if function else PREACTIVATION
    value = PREACTIVATION if site in ("kl_sigmoid_of_preactivation", "kl_sigmoid_bottleneck") else code
    lines.loss += [
        f"# before training: keep what the module {bottleneck} returns",
        "kept = {}",
        f"{path}.register_forward_hook(lambda module, inputs, output: kept.update(code=output{_copy(subject)}))",
        "",
        "# in the loss, after the call of the model and in place of the penalty",
        *(line.format(value=value, rho=f"{treatment.numbers['rho']:g}") for line in PENALTIES[name]),
        f"loss = {objective} + {treatment.numbers[weight]:g} * penalty",
    ]


def _copy(subject: _Subject) -> str:
    """Return the call of `clone` that the bottleneck's output needs before an activation overwrites it."""
    site = None if subject.layout.code is None else subject.sites.get(subject.layout.code)
    if site is None:
        return ""
    module = subject.model.get_submodule(site.module) if site.module else None
    return ".clone()" if getattr(module, "inplace", "inplace" in site.text or "relu_" in site.text) else ""


def module_path(model: nn.Module, name: str) -> str:
    """Return the expression for a module of `model`.

    >>> module_path(nn.Sequential(nn.Sequential(nn.Linear(2, 2))), "0.0")
    'model[0][0]'

    Raises:
        NotPrintable: for an output of the model.
    """
    if name.startswith("out:"):
        raise NotPrintable("the bottleneck is an output of the model, not a module")
    path, parent = "model", model
    for part in name.split(".") if name else ():
        indexed = isinstance(parent, nn.Sequential | nn.ModuleList)
        keyed = isinstance(parent, nn.ModuleDict)
        path += f"[{part}]" if indexed else f"[{part!r}]" if keyed else f".{part}"
        parent = parent.get_submodule(part)
    return path


WRITTEN = ("penalty", "bias_init", "activation", "batchnorm", "dropout", "output_activation", "inputs")
PREACTIVATION = 'kept["code"].flatten(1)'
ZERO_BIAS = [
    "for name, parameter in model.named_parameters():",
    '    if name.endswith("bias") and parameter.requires_grad:',
    "        nn.init.zeros_(parameter)",
]
PENALTIES = {
    "kl": [
        "rho, rho_hat = {rho}, torch.sigmoid({value}).mean(0)  # a mean over the batch for each unit",
        "penalty = (rho * torch.log(rho / rho_hat) + (1 - rho) * torch.log((1 - rho) / (1 - rho_hat))).sum()",
    ],
    "l1": ["penalty = {value}.abs().mean(0).sum()"],
    "hard_count": ["penalty = ({value} > 0).float().mean(0).sum()  # has no gradient"],
}
