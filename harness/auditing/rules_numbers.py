"""Rule on numbers of a loss without an effect, with the evaluations that it compares."""

import dis
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from numbers import Real
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn

from harness.auditing.dependencies import Undecided
from harness.auditing.findings import loss_source, make_finding
from harness.auditing.gradient_ratios import ProbeLoop
from harness.auditing.isolation import preserved_rng, preserved_state
from harness.auditing.loss_state import preserved_loss
from harness.auditing.probe import Evaluation, LossProbe, replace_with_leaves
from harness.auditing.probe_values import random_values
from harness.auditing.rules_reach import Terms, values_of
from harness.auditing.trace import Change, TensorSite
from harness.auditing.weight_keywords import SUPPLIED
from harness.case import Case
from harness.diagnosis.finding import Finding
from harness.remedies.apply import TreatedLosses

SPREADS = (0.1, 3.0, 30.0)  # of random layer outputs at which a number is looked for
READS = ("LOAD_FAST", "LOAD_DEREF", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_CLASSDEREF")


def numbers_without_effect(probe: LossProbe) -> list[str]:
    """Return the keywords of `losses` that change no term and no gradient, on the data and at random layer outputs."""
    case = probe.case
    names = [name for name in _number_keywords(case) if not has_effect(case, name, _differentiated(probe))]
    for scale in SPREADS:

        def spread(values: Tensor, index: int, scale: float = scale) -> Tensor:
            return random_values(values, "none", scale, 11 + index)

        changes: dict[TensorSite, Change] = {
            TensorSite(name): replace_with_leaves(spread, []) for name, _ in probe.natural
        }
        names = [name for name in names if not has_effect(case, name, _differentiated(probe, changes))]
    return names


def changes_state(probe: LossProbe, name: str) -> bool:
    """Return True if another value of the number changes what the loss writes into the model, for a later step."""
    case, number = probe.case, _default(probe.case, name)
    base = _state_after(probe, case)
    return any(
        _state_after(probe, replace(case, numbers={**case.numbers, name: trial})) != base for trial in _trials(number)
    )


def _state_after(probe: LossProbe, case: Case) -> list[str]:
    """Return the parameters, buffers, and number and tensor attributes of the model after an evaluation, as text."""
    model = probe.model
    loop = ProbeLoop(case, model, probe.batch, 0, {})
    parameters = [(value, value.detach().clone()) for value in model.parameters()]
    with preserved_rng(0), preserved_state(model), preserved_loss(case.losses):
        loop.terms(probe.batch)
        attributes = [value for module in model.modules() for value in vars(module).values()]
        tensors = [*model.parameters(), *model.buffers(), *(v for v in attributes if isinstance(v, Tensor))]
        state = [repr(value.detach().tolist()) for value in tensors]
        state += [repr(value) for value in attributes if isinstance(value, int | float)]
    for value, copy in parameters:
        value.data = copy
    return state


def _differentiated(
    probe: LossProbe, changes: Mapping[TensorSite, Change] | None = None
) -> Callable[[Case], tuple[Terms, Callable[[], list[Tensor]]]]:
    def evaluate(case: Case) -> tuple[Terms, Callable[[], list[Tensor]]]:
        evaluation: Evaluation = replace(probe, case=case).evaluate(changes)
        return evaluation.terms, lambda: gradients_of(probe.model, evaluation.terms)

    return evaluate


def gradients_of(model: nn.Module, terms: Terms) -> list[Tensor]:
    """Return the gradients of all terms at all trainable parameters, zero where there is none."""
    parameters = [value for value in model.parameters() if value.requires_grad]
    gradients: list[Tensor] = []
    for term in terms.values():
        if isinstance(term, Tensor) and term.requires_grad and parameters:
            slopes = torch.autograd.grad(term.sum(), parameters, allow_unused=True, retain_graph=True)
            gradients += [
                torch.zeros_like(value) if slope is None else slope
                for value, slope in zip(parameters, slopes, strict=True)
            ]
    return gradients


def has_effect(case: Case, name: str, evaluate: Callable[[Case], tuple[Terms, Callable[[], list[Tensor]]]]) -> bool:
    """Return True if another value of the number changes a term or a gradient, or makes the loss fail.

    Raises:
        Undecided: if two equal evaluations differ.
    """
    number = _default(case, name)
    assert isinstance(number, Real)
    terms, slopes = evaluate(case)
    base, again = values_of(terms), values_of(evaluate(case)[0])
    if repr(base) != repr(again):
        raise Undecided(f"two equal evaluations differ, so the effect of {name} cannot be measured")
    gradients: list[Tensor] | None = None
    for trial in _trials(number):
        try:
            other_terms, other_slopes = evaluate(replace(case, numbers={**case.numbers, name: trial}))
            if repr(values_of(other_terms)) != repr(base):
                return True
            gradients = slopes() if gradients is None else gradients
            other_gradients = other_slopes()
        except Exception:  # the loss refuses the number, so it reads it
            return True
        if len(gradients) != len(other_gradients) or not all(
            torch.equal(first.nan_to_num(), second.nan_to_num())
            for first, second in zip(gradients, other_gradients, strict=True)
        ):
            return True
    return False


def _trials(number: Any) -> list[Any]:
    """Return other values of a number; a whole number stays whole.

    >>> _trials(2), _trials(0.5)
    ([3, 4, 1, 0], [1.0, 0.25, 1.5, 0.0, -0.5])
    """
    if isinstance(number, int):
        trials: list[Any] = [number + 1, 2 * number, number - 1, 0]
    else:
        number = float(number)
        trials = [2 * number, 0.5 * number, number + 1.0, 0.0, -number]
    return [trial for trial in trials if trial != number]


def _number_keywords(case: Case) -> list[str]:
    """Return the numbers that the signature of `losses` names."""
    if isinstance(case.losses, TreatedLosses):
        return []  # a remedy may have replaced the penalty that reads them
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(case.losses).parameters
    names = [name for name, parameter in list(parameters.items())[2:] if parameter.kind in kinds]
    return [name for name in names if name not in SUPPLIED and _is_number(_default(case, name))]


def _default(case: Case, name: str) -> Any:
    return case.numbers[name] if name in case.numbers else inspect.signature(case.losses).parameters[name].default


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def unused_number(case: Case, names: list[str], inert: set[str], unmet: set[str], looks: str) -> list[Finding]:
    """Report the keywords of `losses` that change nothing.

    Args:
        case: any case. names: keywords without an effect at every probe.
        inert: terms without a gradient; a number may be the weight of one of them.
        unmet: keywords that the loss reads on a branch that no probe took.
        looks: the probes in words, for the finding.
    """
    if not names:
        return []
    if inert:
        raise Undecided(f"{', '.join(names)} may weigh {', '.join(sorted(inert))}, which has no gradient")
    if branch := [name for name in names if name in unmet]:
        raise Undecided(f"losses reads {', '.join(branch)} on a branch that no probe took")
    return [
        make_finding(
            "unused_number",
            None,
            f"{name} = {float(_default(case, name)):g} is a keyword of losses, and no other value of it changes a term or a"
            f" gradient: on the data, at random layer outputs of {len(SPREADS)} sizes{looks}",
            "a factor over this number would compare equal runs",
            f"use {name} in the loss, or remove the keyword",
            {"value": float(_default(case, name))},
            source=loss_source(case),
        )
        for name in names
    ]


def unmet_reads(case: Case, names: Iterable[str], evaluate: Callable[[], object]) -> set[str]:
    """Return the names that the loss function reads at an instruction that an evaluation does not reach."""
    codes = _code_objects(case.losses)
    reads = {
        name: {(code, step.offset) for code in codes for step in dis.get_instructions(code) if _reads(step, name)}
        for name in names
    }
    reached: set[tuple[CodeType, int]] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            reached.add((frame.f_code, frame.f_lasti))
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        evaluate()
    finally:
        sys.settrace(previous)
    return {name for name, steps in reads.items() if steps - reached}


def _reads(step: dis.Instruction, name: str) -> bool:
    return step.opname.startswith("LOAD_") and step.argval == name and step.opname in READS


def _code_objects(function: Any) -> list[CodeType]:
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    function = inspect.unwrap(function)
    call = vars(type(function)).get("__call__")
    code = getattr(function, "__code__", None) or getattr(call, "__code__", None)
    codes = [code] if isinstance(code, CodeType) else []
    for outer in codes:
        codes += [constant for constant in outer.co_consts if isinstance(constant, CodeType)]
    return codes


def evaluated(case: Case, loop: ProbeLoop, batch: Tensor) -> Terms:
    """Return the loss terms at a loop's step under one fixed random state; buffers, attributes and counters are restored."""
    look = ProbeLoop(case, loop.model, loop.rows, 0, {})
    look.step = loop.step
    with preserved_rng(0), preserved_state(loop.model), preserved_loss(case.losses):
        return look.terms(batch)
