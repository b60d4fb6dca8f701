"""SGD, Adam and AdamW on a stack, with one learning rate per member: elementwise, equal to torch's own.

All parameters of a member are one row of a flat `[member, parameter]` buffer, so that the number of passes over memory
in a step does not depend on the number of layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from harness.case import Case

Schedules = Mapping[float, Sequence[float]]
NO_SCHEDULE: Schedules = MappingProxyType({})


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer that a stack can compute: its name and options; `learning_rate` None means the training's."""

    name: str
    options: Mapping[str, Any]
    learning_rate: float | None
    trained: frozenset[str]

    def rate(self, case: Case) -> float:
        """Return the learning rate of a member: that of the case's training numbers, else the optimizer's own."""
        if self.learning_rate is None or "learning_rate" in case.train:
            return float(case.training()["learning_rate"])
        return self.learning_rate


class StackOptimizer(Protocol):
    """Optimizer that changes `parameters` in place, given gradients of the same shape `[member, parameter]`."""

    def step(self, parameters: Tensor, gradients: Tensor) -> None:
        """Update the parameters in place."""

    def averages(self) -> list[Tensor]:
        """Return the running averages of gradients, `[member, parameter]` each; none before the first step."""


def optimizer_spec(case: Case, model: nn.Module) -> OptimizerSpec | None:
    """Return the case's optimizer if it is a plain SGD, Adam or AdamW with one parameter group, else None."""
    names = {id(value): name for name, value in model.named_parameters()}
    if case.optimizer is None:
        trained = frozenset(name for name, value in model.named_parameters() if value.requires_grad)
        return OptimizerSpec("Adam", ADAM, None, trained)
    optimizer = case.optimizer(list(model.parameters()))
    if not _is_plain(optimizer):
        return None
    group = optimizer.param_groups[0]
    if isinstance(group["lr"], Tensor) or not all(id(parameter) in names for parameter in group["params"]):
        return None
    name = "AdamW" if group.get("decoupled_weight_decay") else type(optimizer).__name__
    trained = frozenset(names[id(parameter)] for parameter in group["params"] if parameter.requires_grad)
    return OptimizerSpec(name, {name: group[name] for name in KINDS[type(optimizer)]}, float(group["lr"]), trained)


def _is_plain(optimizer: Any) -> bool:
    """Return True if every step of the optimizer does exactly what its class does."""
    if type(optimizer) not in KINDS or len(optimizer.param_groups) != 1:
        return False
    # a hook may clip gradients; a scheduler replaces `step`; a state is that of earlier steps
    hooks = (optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    if any(hooks) or optimizer.state or "step" in vars(optimizer):
        return False
    group = optimizer.param_groups[0]
    standard = {"params", "lr", *KINDS[type(optimizer)], *SAME_NUMBERS}
    extra = {name: value for name, value in group.items() if name not in standard}
    default = type(optimizer)([nn.Parameter(torch.zeros(1))], lr=1e-3).param_groups[0]
    return all(name in default and value == default[name] for name, value in extra.items())


def stack_optimizer(rule: OptimizerSpec, rates: Tensor, schedules: Schedules = NO_SCHEDULE) -> StackOptimizer:
    """Return the stack's optimizer.

    Args:
        rule: the optimizer of all members.
        rates: one learning rate per member, `[member]`.
        schedules: learning rate -> the rate of each step; empty for constant rates.
    """
    return STACK_OPTIMIZERS[rule.name](rule.options, rates[:, None], schedules)


def clip_gradients(gradients: Tensor, clip: float) -> None:
    """Scale each member's gradient, a row of `[member, parameter]`, in place to a norm of at most `clip`.

    The same formula as `torch.nn.utils.clip_grad_norm_`, member by member.

    >>> gradients = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    >>> clip_gradients(gradients, 1.0)
    >>> gradients
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    norms = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
    gradients.mul_((clip / (norms + 1e-6)).clamp(max=1.0))


class Adam:
    """Adam, or AdamW with `decoupled` weight decay, by torch's fused kernel: one pass over memory per step.

    Members with the same rate are stepped together. Source: Kingma & Ba 2015; Loshchilov & Hutter 2019.
    """

    def __init__(
        self, options: Mapping[str, Any], rates: Tensor, schedules: Schedules = NO_SCHEDULE, decoupled: bool = False
    ) -> None:
        self.options = {"beta1": options["betas"][0], "beta2": options["betas"][1], "eps": options["eps"]}
        self.options |= {"weight_decay": options["weight_decay"], "amsgrad": False, "maximize": False}
        self._update = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self._rates: list[float] = rates[:, 0].tolist()
        self._schedules, self._done = schedules, 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        self._groups: list[tuple[float, list[list[Tensor]]]] = []

    def step(self, parameters: Tensor, gradients: Tensor) -> None:
        """Update the parameters in place; every call has to pass the same two buffers."""
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(parameters), torch.zeros_like(parameters)
            self._groups = self._by_rate([parameters, gradients, self._first, self._second])
            self._steps = parameters.new_zeros((), dtype=torch.float32)
        self._steps += 1
        for rate, (parameter, gradient, first, second) in self._groups:
            steps = [self._steps] * len(parameter)
            scheduled = _rate(self._schedules, rate, self._done)
            self._update(parameter, gradient, first, second, [], steps, lr=scheduled, **self.options)
        self._done += 1

    def averages(self) -> list[Tensor]:
        """Return the first and the second moments."""
        return [] if self._first is None or self._second is None else [self._first, self._second]

    def _by_rate(self, buffers: list[Tensor]) -> list[tuple[float, list[list[Tensor]]]]:
        if len(set(self._rates)) == 1:
            return [(self._rates[0], [[buffer] for buffer in buffers])]
        members = {
            rate: [i for i, member_rate in enumerate(self._rates) if member_rate == rate]
            for rate in dict.fromkeys(self._rates)
        }
        return [(rate, [[buffer[i] for i in rows] for buffer in buffers]) for rate, rows in members.items()]


class SGD:
    """Stochastic gradient descent with momentum, dampening, Nesterov and weight decay, as torch defines them."""

    def __init__(self, options: Mapping[str, Any], rates: Tensor, schedules: Schedules = NO_SCHEDULE) -> None:
        self.rates, self._schedules, self._done = rates, schedules, 0
        self._plain_rates: list[float] = rates[:, 0].tolist()
        self.momentum, self.dampening = options["momentum"], options["dampening"]
        self.decay, self.nesterov = options["weight_decay"], options["nesterov"]
        self._velocity: Tensor | None = None

    def step(self, parameters: Tensor, gradients: Tensor) -> None:
        """Update the parameters in place."""
        if self.decay:
            gradients = gradients + self.decay * parameters
        if self.momentum:
            gradients = self._accelerate(gradients)
        parameters.sub_(gradients * self._scheduled_rates())
        self._done += 1

    def averages(self) -> list[Tensor]:
        """Return the velocity, if there is one."""
        return [] if self._velocity is None else [self._velocity]

    def _scheduled_rates(self) -> Tensor:
        if not self._schedules:
            return self.rates
        return self.rates.new_tensor([[_rate(self._schedules, rate, self._done)] for rate in self._plain_rates])

    def _accelerate(self, gradients: Tensor) -> Tensor:
        if self._velocity is None:
            self._velocity = gradients.clone()
        else:
            self._velocity.mul_(self.momentum).add_(gradients, alpha=1 - self.dampening)
        return gradients + self.momentum * self._velocity if self.nesterov else self._velocity


def adamw(options: Mapping[str, Any], rates: Tensor, schedules: Schedules = NO_SCHEDULE) -> Adam:
    """Return Adam with decoupled weight decay."""
    return Adam(options, rates, schedules, decoupled=True)


def _rate(schedules: Schedules, rate: float, step: int) -> float:
    """Return the learning rate of a step; after the end of the schedule, that of its last step."""
    schedule = schedules.get(rate)
    return schedule[min(step, len(schedule) - 1)] if schedule else rate


ADAM: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}

KINDS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.Adam: ("betas", "eps", "weight_decay"),
    torch.optim.AdamW: ("betas", "eps", "weight_decay"),
    torch.optim.SGD: ("momentum", "dampening", "weight_decay", "nesterov"),
}

# options that select an implementation, or that another option already expresses
SAME_NUMBERS = ("foreach", "fused", "capturable", "decoupled_weight_decay")

STACK_OPTIMIZERS: dict[str, Any] = {"Adam": Adam, "AdamW": adamw, "SGD": SGD}
