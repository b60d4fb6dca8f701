"""SGD, Adam and AdamW on a stack, with one learning rate a member: elementwise, equal to torch's own.

All parameters of a member are one row of a flat `[member, parameter]` buffer, so that a step is a handful of passes
over memory whatever the number of layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.case import Case


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimiser that the stack can take over: its kind and numbers; `learning_rate` None means the training's."""

    kind: str
    options: Mapping[str, Any]
    learning_rate: float | None
    trained: frozenset[str]

    def rate(self, case: Case) -> float:
        """The learning rate of a member: what the case's training names, else the optimiser's own."""
        if self.learning_rate is None or "learning_rate" in case.train:
            return float(case.training()["learning_rate"])
        return self.learning_rate


class StackOptimizer(Protocol):
    """Changes `parameters` in place, given gradients of the same shape `[member, parameter]`."""

    def step(self, parameters: Tensor, gradients: Tensor) -> None: ...


def optimizer_spec(case: Case, model: nn.Module) -> OptimizerSpec | None:
    """The case's optimiser, if it is a plain SGD, Adam or AdamW over one group; None when the model trains alone."""
    names = {id(value): name for name, value in model.named_parameters()}
    if case.optimizer is None:
        trained = frozenset(name for name, value in model.named_parameters() if value.requires_grad)
        return OptimizerSpec("Adam", ADAM, None, trained)
    optimiser = case.optimizer(list(model.parameters()))
    if not _is_plain(optimiser):
        return None
    group = optimiser.param_groups[0]
    if isinstance(group["lr"], Tensor) or not all(id(each) in names for each in group["params"]):
        return None
    kind = "AdamW" if group.get("decoupled_weight_decay") else type(optimiser).__name__
    trained = frozenset(names[id(each)] for each in group["params"] if each.requires_grad)
    return OptimizerSpec(kind, {name: group[name] for name in KINDS[type(optimiser)]}, float(group["lr"]), trained)


def _is_plain(optimiser: Any) -> bool:
    """Whether it does what its class does, in its first step and all later ones, and nothing besides."""
    if type(optimiser) not in KINDS or len(optimiser.param_groups) != 1:
        return False
    # a hook clips gradients, say; a schedule puts another `step` there; a state is that of earlier steps
    hooks = (optimiser._optimizer_step_pre_hooks, optimiser._optimizer_step_post_hooks)
    if any(hooks) or optimiser.state or "step" in vars(optimiser):
        return False
    group = optimiser.param_groups[0]
    known = {"params", "lr", *KINDS[type(optimiser)], *SAME_NUMBERS}
    others = {name: value for name, value in group.items() if name not in known}
    usual = type(optimiser)([nn.Parameter(torch.zeros(1))], lr=1e-3).param_groups[0]
    return all(name in usual and value == usual[name] for name, value in others.items())


def stack_optimizer(rule: OptimizerSpec, rates: Tensor) -> StackOptimizer:
    """The stack's optimiser; `rates` is one learning rate a member, `[member]`."""
    return MAKERS[rule.kind](rule.options, rates[:, None])


class Adam:
    """Adam, and AdamW with `decoupled` weight decay, by torch's fused kernel: one pass over memory a step.

    Members that share a rate are stepped together. Source: Kingma & Ba 2015; Loshchilov & Hutter 2019.
    """

    def __init__(self, options: Mapping[str, Any], rates: Tensor, decoupled: bool = False) -> None:
        self.options = {"beta1": options["betas"][0], "beta2": options["betas"][1], "eps": options["eps"]}
        self.options |= {"weight_decay": options["weight_decay"], "amsgrad": False, "maximize": False}
        self._update = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self._rates: list[float] = rates[:, 0].tolist()
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._groups: list[tuple[float, list[list[Tensor]]]] = []

    def step(self, parameters: Tensor, gradients: Tensor) -> None:
        """One update, in place; always the same two buffers."""
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(parameters), torch.zeros_like(parameters)
            self._groups = self._by_rate([parameters, gradients, self._first, self._second])
            self._steps = parameters.new_zeros((), dtype=torch.float32)
        self._steps += 1
        for rate, (parameter, gradient, first, second) in self._groups:
            steps = [self._steps] * len(parameter)
            self._update(parameter, gradient, first, second, [], steps, lr=rate, **self.options)

    def _by_rate(self, buffers: list[Tensor]) -> list[tuple[float, list[list[Tensor]]]]:
        if len(set(self._rates)) == 1:
            return [(self._rates[0], [[each] for each in buffers])]
        members = {
            rate: [i for i, each in enumerate(self._rates) if each == rate] for rate in dict.fromkeys(self._rates)
        }
        return [(rate, [[each[i] for i in rows] for each in buffers]) for rate, rows in members.items()]


class SGD:
    """Stochastic gradient descent with momentum, dampening, Nesterov and weight decay, as torch defines them."""

    def __init__(self, options: Mapping[str, Any], rates: Tensor) -> None:
        self.rates = rates
        self.momentum, self.dampening = options["momentum"], options["dampening"]
        self.decay, self.nesterov = options["weight_decay"], options["nesterov"]
        self._velocity: Tensor | None = None

    def step(self, parameters: Tensor, gradients: Tensor) -> None:
        """One update, in place."""
        if self.decay:
            gradients = gradients + self.decay * parameters
        if self.momentum:
            gradients = self._accelerate(gradients)
        parameters.sub_(gradients * self.rates)

    def _accelerate(self, gradients: Tensor) -> Tensor:
        if self._velocity is None:
            self._velocity = gradients.clone()
        else:
            self._velocity.mul_(self.momentum).add_(gradients, alpha=1 - self.dampening)
        return gradients + self.momentum * self._velocity if self.nesterov else self._velocity


def adamw(options: Mapping[str, Any], rates: Tensor) -> Adam:
    """Adam with decoupled weight decay."""
    return Adam(options, rates, decoupled=True)


ADAM: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}

KINDS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.Adam: ("betas", "eps", "weight_decay"),
    torch.optim.AdamW: ("betas", "eps", "weight_decay"),
    torch.optim.SGD: ("momentum", "dampening", "weight_decay", "nesterov"),
}

# how torch does it, or what is read beside it
SAME_NUMBERS = ("foreach", "fused", "capturable", "decoupled_weight_decay")

MAKERS: dict[str, Any] = {"Adam": Adam, "AdamW": adamw, "SGD": SGD}
