"""Rules on the optimizer: parameters that it misses, parameters of another model, tensors that are no parameters."""

from collections.abc import Iterable

from torch import Tensor, nn

from harness.auditing.findings import make_finding
from harness.auditing.isolation import isolated, preserved_rng
from harness.auditing.loss_state import loss_arguments, preserved_loss
from harness.case import Case, build_optimizer
from harness.diagnosis.finding import Finding


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


def unregistered_parameters(case: Case, model: nn.Module, batch: Tensor) -> list[Finding]:
    """Find tensors that the loss differentiates and keeps between calls, but that no module has as a parameter.

    Layers in a plain list, or tensors with `requires_grad` as plain attributes: `model.parameters()` has none of them.
    """
    optimizer = build_optimizer(case, model)
    optimized = [] if optimizer is None else [value for group in optimizer.param_groups for value in group["params"]]
    registered = {id(value) for value in (*model.parameters(), *optimized)}
    with isolated(model), preserved_rng(0), preserved_loss(case.losses):
        leaves = [_leaves(case.losses(model, batch.clone(), **loss_arguments(case)).values()) for _ in range(2)]
    # a leaf that the loss makes anew at each call, for the slope of a critic, is meant to be no parameter
    hidden = [leaf for leaf in leaves[0].values() if id(leaf) in leaves[1] and id(leaf) not in registered]
    if not hidden:
        return []
    shapes = ", ".join(str(list(leaf.shape)) for leaf in hidden[:6])
    return [
        make_finding(
            "optimizer_misses_parameters",
            None,
            f"{len(hidden)} tensors with a gradient are no parameters of the model, and in no optimizer: shapes {shapes}",
            "they keep their initial values, and are neither saved nor moved with the model",
            "keep layers in `nn.ModuleList` or `nn.Sequential`, not in a list, and tensors in `nn.Parameter`",
            {"missed": float(len(hidden))},
        )
    ]


def _leaves(terms: Iterable[object]) -> dict[int, Tensor]:
    """Return the leaves of the autograd graphs of terms, by identity."""
    queue = [term.grad_fn for term in terms if isinstance(term, Tensor) and term.grad_fn is not None]
    leaves: dict[int, Tensor] = {}
    nodes = set(queue)
    while queue:
        node = queue.pop()
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            leaves[id(variable)] = variable
        for child, _ in node.next_functions:
            if child is not None and child not in nodes:
                nodes.add(child)
                queue.append(child)
    return leaves
