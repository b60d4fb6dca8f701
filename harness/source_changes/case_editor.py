"""Edits of a case's source that make a treatment, at the places where its model's parts are written."""

import ast
import inspect
from pathlib import Path
from typing import Any

from torch import nn

from harness.case import Case
from harness.data.rows import Split
from harness.factors import TRAINED
from harness.remedies.initial_values import DEFAULT
from harness.remedies.layout import ModelLayout
from harness.remedies.wrapper import Treatment
from harness.source_changes.general_lines import INITIALIZERS
from harness.source_changes.source_edits import CLASSES
from harness.source_changes.source_sites import Application, Site, source_sites
from harness.source_changes.text_edits import NotEditable, SourceFile, set_keyword, set_number

IN_TORCH = ("sigmoid", "tanh")  # the functional forms are deprecated
NORM = "code_norm"
MATRIX = 'name.endswith("weight") and parameter.dim() > 1 and parameter.requires_grad'
BIAS = 'name.endswith("bias") and parameter.requires_grad'


class SourceEditor:
    """Edits of the sources of one case."""

    def __init__(
        self, case: Case, treatment: Treatment, layout: ModelLayout, split: Split, as_child: bool, in_factory: bool
    ) -> None:
        self.as_child, self.in_factory = as_child, in_factory
        self.case, self.treatment, self.layout = case, treatment, layout
        self.sites = source_sites(case, split.train.inputs[:4], split.train.targets, layout.scope)
        self.files: dict[Path, SourceFile] = {}

    def edit(self) -> None:
        """Add all edits.

        Raises:
            NotEditable: when a part of the treatment has no place in the source.
        """
        treatment = self.treatment
        unsupported = (
            treatment.centered
            or treatment.floor
            or treatment.top_k
            or treatment.output
            or treatment.resamples
            or treatment.auxk
        )
        if unsupported or not (treatment.own_penalty or treatment.penalty[1] is None):
            raise NotEditable("this change has no single place in the source")
        for position in sorted({*treatment.activations, *treatment.dropped, *self._normalized()}):
            self._edit_activation(position)
        if not treatment.own_penalty:
            self._remove_penalties()
        blocks = [(MATRIX, INITIALIZERS[treatment.weights])] if treatment.weights != DEFAULT else []
        blocks += [(BIAS, "zeros_")] if treatment.zero_bias else []
        if blocks:
            self._initialize(blocks)
        if treatment.units is not None:
            self._set_units(treatment.units)
        self._set_numbers()

    def _normalized(self) -> set[int]:
        return set() if self.treatment.normalized is None else {self.treatment.normalized}

    def file(self, path: str | Path) -> SourceFile:
        """Return the file, read once."""
        resolved = Path(path).resolve()
        if resolved not in self.files:
            self.files[resolved] = SourceFile(resolved)
        return self.files[resolved]

    def _edit_activation(self, position: int) -> None:
        applications = self.sites.bottleneck if position < 0 else self.sites.activations.get(position, [])
        if not applications or (self.layout.scope == "loss" and len(applications) < 2):
            raise NotEditable(f"the activation {position} has no place in the source")
        for application in applications:
            if application.contained:
                self._edit_construction(position, application)
            else:
                self._edit_call(position, application)

    def _edit_construction(self, position: int, application: Application) -> None:
        """Change the expression that constructs a module of a container."""
        assert application.module is not None
        site = self.sites.constructions.get(id(application.module))
        if site is None:
            raise NotEditable("the construction of a module has no place in the source")
        source = self.file(site.file)
        call = source.call_ending(site.end_line, site.end_column)
        if not _constructs(call, type(application.module)):
            raise NotEditable(
                f"{source.path.name}:{site.end_line}: no construction of {type(application.module).__name__}"
            )
        treatment, prefix = self.treatment, source.name("torch.nn")
        norm = f"{prefix}.BatchNorm1d({self.layout.channels}, affine=False)"
        name = treatment.activations.get(position)
        if position < 0:  # no activation follows the bottleneck
            additions = [norm] if position == treatment.normalized else []
            additions += [f"{prefix}.{CLASSES[name]}()"] if name else []
            source.after(call, "".join(f", {addition}" for addition in additions))
            return
        parts = [norm] if position == treatment.normalized else []
        parts.append(f"{prefix}.{CLASSES[name]}()" if name else source.source(call))
        parts += [f"{prefix}.Dropout({self._rate()})"] if position in treatment.dropped else []
        text = parts[0] if len(parts) == 1 else f"{prefix}.Sequential({', '.join(parts)})"
        source.replace(source.start(call), source.end(call), text)

    def _edit_call(self, position: int, application: Application) -> None:
        """Change the call of an activation, or the call of a layer that no activation follows."""
        site = application.call
        if site is None:
            raise NotEditable("a call has no place in the source")
        source, treatment = self.file(site.file), self.treatment
        call = source.call_ending(site.end_line, site.end_column)
        value = call if position < 0 else _argument(call, application.module is not None)
        if position == treatment.normalized:
            self._normalize(source, site, value)
        if position in treatment.dropped:
            source.before(call, f"{source.name('torch.nn.functional')}.dropout(")
            source.after(call, f", p={self._rate()}, training={_required(site.owner)}.training)")
        if position in treatment.activations:
            self._swap(source, call, value, treatment.activations[position])

    def _swap(self, source: SourceFile, call: ast.Call, value: ast.expr, name: str) -> None:
        """Apply another function to `value` in place of the call."""
        function = (
            f"{source.name('torch' if name in IN_TORCH else 'torch.nn.functional')}.{name}" if name != "none" else ""
        )
        atom = isinstance(value, ast.Name | ast.Call | ast.Attribute | ast.Subscript)
        opening, closing = ("", "") if atom and not function else ("(", ")")
        if value is call:
            source.before(call, function + opening)
            source.after(call, closing)
            return
        if source.start(call) == source.start(value):  # a method of the value
            source.before(call, function + opening)
        else:
            source.replace(source.start(call), source.start(value), function + opening)
        source.replace(source.end(value), source.end(call), closing)

    def _normalize(self, source: SourceFile, site: Site, value: ast.expr) -> None:
        """Normalize `value`, by a layer or buffers of the class whose method calls the activation."""
        owner, name = site.owner_type, site.owner
        if owner is None:
            raise NotEditable("the function that applies the activation has no model")
        definition, channels = self.file(_file_of(owner)), self.layout.channels
        if self.as_child:
            lines = [f"self.{NORM} = {definition.name('torch.nn')}.BatchNorm1d({channels}, affine=False)"]
            source.before(value, f"{name}.{NORM}(")
            source.after(value, ")")
        else:
            torch_name = definition.name("torch")
            lines = [
                f'self.register_buffer("{NORM}_mean", {torch_name}.zeros({channels}))',
                f'self.register_buffer("{NORM}_var", {torch_name}.ones({channels}))',
            ]
            source.before(value, f"{source.name('torch.nn.functional')}.batch_norm(")
            source.after(value, f", {name}.{NORM}_mean, {name}.{NORM}_var, training={name}.training)")
        definition.append_to(_constructor(definition, owner), "\n".join(lines), "; ".join(lines))

    def _rate(self) -> str:
        return repr(self.treatment.numbers["dropout"])

    def _remove_penalties(self) -> None:
        """Return the objective alone from the loss."""
        function: Any = self.case.losses
        if not hasattr(function, "__code__"):
            raise NotEditable("the loss is no plain function")
        source = self.file(function.__code__.co_filename)
        returns = [node for node in ast.walk(source.definition(function)) if isinstance(node, ast.Return)]
        for node in returns:
            if not isinstance(node.value, ast.Dict):
                raise NotEditable("the loss does not return a dict that is written out")
            entries = zip(node.value.keys, node.value.values, strict=True)
            terms = [
                (key, value)
                for key, value in entries
                if isinstance(key, ast.Constant) and key.value == self.case.objective
            ]
            if len(terms) != 1 or terms[0][0] is None:
                raise NotEditable("the loss does not return its objective by name")
            text = f"{{{source.source(terms[0][0])}: {source.source(terms[0][1])}}}"
            source.replace(source.start(node.value), source.end(node.value), text)

    def _initialize(self, blocks: list[tuple[str, str]]) -> None:
        """Set initial values where the model is constructed: (condition on `name` and `parameter`, name in `nn.init`)."""
        owner = type(self.sites.model)
        if _is_torch_type(owner) or self.in_factory:
            self._initialize_in_factory(blocks)
            return
        source = self.file(_file_of(owner))
        texts = [_initialization("self", f"{source.name('torch.nn')}.init.{name}", test) for test, name in blocks]
        block, inline = "\n".join(text for text, _ in texts), "; ".join(line for _, line in texts)
        source.append_to(_constructor(source, owner), block, inline)

    def _initialize_in_factory(self, blocks: list[tuple[str, str]]) -> None:
        function: Any = self.case.model
        if not hasattr(function, "__code__"):
            raise NotEditable("the model has no factory function")
        source = self.file(function.__code__.co_filename)
        statement = _only_return(source, function)
        name = statement.value.id if isinstance(statement.value, ast.Name) else "model"
        texts = [_initialization(name, f"{source.name('torch.nn')}.init.{init}", test)[0] for test, init in blocks]
        lines, indent = "\n".join(texts).splitlines(), " " * statement.col_offset
        if isinstance(statement.value, ast.Name):
            source.before(statement, "".join(f"{line}\n{indent}" for line in lines))
            return
        source.replace(source.start(statement), source.start(statement.value), "model = ")
        source.after(statement, "".join(f"\n{indent}{line}" for line in [*lines, "return model"]))

    def _set_units(self, units: int) -> None:
        """Set the default of the keyword `units` of the model factory."""
        function: Any = _constructor_function(self.case.model)
        source = self.file(_file_of(function))
        arguments = source.definition(function).args
        positional = [*arguments.posonlyargs, *arguments.args]
        pairs = [*zip(reversed(positional), reversed(arguments.defaults), strict=False)]
        pairs += [*zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
        default = next((value for argument, value in pairs if argument.arg == "units" and value is not None), None)
        if default is None:
            raise NotEditable("the keyword `units` has no default")
        source.replace(source.start(default), source.end(default), repr(units))

    def _set_numbers(self) -> None:
        """Set numbers of the case and of its training in its `Case(...)`."""
        treatment, case = self.treatment, self.case
        assert case.source is not None
        taken = {*case.numbers, *case.loss_keywords(), *([case.penalty_weight] if case.penalty_weight else [])}
        if treatment.own_penalty:
            numbers = {name: value for name, value in treatment.numbers.items() if name in taken}
            changed = {name: value for name, value in numbers.items() if case.numbers.get(name) != value}
            if changed:
                set_number(self.file(case.source), "numbers", changed)
        if treatment.clip is not None:
            set_keyword(self.file(case.source), "clip", repr(treatment.clip))
        if treatment.rate_warmup:
            source = self.file(case.source)
            rise = f"{treatment.rate_warmup!r} * steps"
            rate = f"lambda step: min(1.0, (step + 1) / max(1.0, {rise}))"
            schedule = f"{source.name('torch')}.optim.lr_scheduler.LambdaLR(optimizer, {rate})"
            set_keyword(source, "scheduler", f"lambda optimizer, steps: {schedule}")
        train = {name: value for name, value in treatment.train.items() if name in TRAINED}
        if train:
            set_number(self.file(case.source), "train", train)


def _initialization(model: str, initializer: str, condition: str) -> tuple[str, str]:
    """A loop over the parameters, and the same in a line."""
    loop = f"for name, parameter in {model}.named_parameters():"
    block = f"{loop}\n    if {condition}:\n        {initializer}(parameter)"
    return block, f"[{initializer}(parameter) {loop.removesuffix(':')} if {condition}]"


def _argument(call: ast.Call, by_module: bool) -> ast.expr:
    """The value that a call activates: its first argument, or the tensor whose method it is."""
    if call.args:
        return call.args[0]
    if isinstance(call.func, ast.Attribute) and not by_module:
        return call.func.value
    raise NotEditable("the value of an activation is not written as an argument")


def _constructs(call: ast.Call, module: type[nn.Module]) -> bool:
    name = (
        call.func.attr
        if isinstance(call.func, ast.Attribute)
        else call.func.id
        if isinstance(call.func, ast.Name)
        else ""
    )
    return name == module.__name__


def _required(owner: str) -> str:
    if not owner:
        raise NotEditable("the function that applies the activation has no model")
    return owner


def _is_torch_type(module: type[nn.Module]) -> bool:
    return module.__module__.split(".")[0] == "torch"


def _constructor_function(factory: Any) -> Any:
    return vars(factory).get("__init__", factory) if isinstance(factory, type) else factory


def _file_of(function: Any) -> str:
    """File of a function, or of the constructor of a class."""
    try:
        return inspect.getfile(_constructor_function(function))
    except (OSError, TypeError) as error:
        raise NotEditable(f"the source of {function} is not available") from error


def _constructor(source: SourceFile, owner: type) -> ast.FunctionDef:
    function = _constructor_function(owner)
    definition = source.definition(function)
    if not isinstance(definition, ast.FunctionDef):
        raise NotEditable(f"{owner.__name__} has no constructor in {source.path.name}")
    return definition


def _only_return(source: SourceFile, function: Any) -> Any:
    returns = [node for node in ast.walk(source.definition(function)) if isinstance(node, ast.Return)]
    if len(returns) != 1 or returns[0].value is None:
        raise NotEditable(f"{function.__name__} does not end in one return of the model")
    return returns[0]
