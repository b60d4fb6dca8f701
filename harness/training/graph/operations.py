"""Graph of the operations of a step: built from recorded calls, simplified, and run.

A graph runs in Python, or on a GPU as a CUDA graph.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate

from harness.training.graph.cuda_graph import to_cuda_graph
from harness.training.graph.nested import bitwise_equal, iter_tensors, replace_tensors, restore_nesting
from harness.training.graph.passes import simplify

Run = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class RecordedOp:
    """One call of an operation."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class StepGraph:
    """Operations of a step in order.

    Args:
        graph: the operations; returns a flat tuple of tensors.
        result: nested result of the recorded call.
        inputs: indices of the inputs that the operations change in place.
        reached: other tensors that they change in place.
    """

    def __init__(self, graph: GraphModule, result: Any, inputs: Sequence[int], reached: Sequence[Tensor]) -> None:
        self.graph, self._inputs, self._reached = graph, inputs, reached
        self._run: Run = graph.forward
        self._nesting = replace_tensors(result, repeat(torch.empty(0)))  # without references to its tensors

    @property
    def changes_nothing(self) -> bool:
        """True if the operations change no tensor in place."""
        return not self._inputs and not self._reached

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """Run the operations and return their nested results."""
        return self._by(self._run, inputs)

    def compared(self, function: Callable[[], Any], inputs: Sequence[Tensor]) -> tuple[bool, Any]:
        """Run list and function; return their bitwise equality and the function's result."""
        changing = self._changing(inputs)
        try:
            with restore_nesting(changing):
                # copies: a result may be a view of what is restored
                results = [result.clone() for result in (*iter_tensors(self(inputs)), *changing)]
        except Exception:  # the function took another branch this time
            results = []
        result = function()
        return bitwise_equal(results, [*iter_tensors(result), *changing]), result

    def use_cuda_graph(self, inputs: Sequence[Tensor]) -> Any:
        """Return the results, and switch to a CUDA graph if the inputs are on a GPU and its results are bitwise equal."""
        # a CUDA graph works on copies of its inputs, so it cannot change them
        if self._inputs or not _on_gpu(inputs):
            return self(inputs)
        in_python = self._run
        try:
            self._run = to_cuda_graph(self.graph, inputs)
        except Exception:  # an operation that waits for the GPU keeps the list in Python
            return self(inputs)
        same, result = self.compared(lambda: self._by(in_python, inputs), inputs)
        self._run = self._run if same else in_python
        return result

    def _by(self, run: Run, inputs: Sequence[Tensor]) -> Any:
        with torch.no_grad():
            return replace_tensors(self._nesting, iter(run(*inputs)))

    def _changing(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [*(inputs[index] for index in self._inputs), *self._reached]


def _on_gpu(inputs: Sequence[Tensor]) -> bool:
    return any(tensor.is_cuda for tensor in inputs)


def build_step_graph(calls: Sequence[RecordedOp], inputs: Sequence[Tensor], result: Any) -> StepGraph | None:
    """Return the graph of these calls, or None if Python read a value, which may differ in another step.

    Args:
        calls: the recorded calls, in order.
        inputs: the tensors that differ from step to step.
        result: nested result.
    """
    if any(_reads_values(call.result) for call in calls):
        return None
    written = [_written_to(call) for call in calls]
    builder = _Builder(inputs, {_storage(tensor) for tensors in written for tensor in tensors})
    for call, tensors in zip(calls, written, strict=True):
        builder.add(call, writes=bool(tensors))
    builder.graph.output(tuple(builder.node_of(tensor) for tensor in iter_tensors(result)))
    simplify(builder.graph, builder.changed)
    changed = [index for index, tensor in enumerate(inputs) if _storage(tensor) in builder.changed]
    reached = [buffer for buffer in builder.constants.buffers() if _storage(buffer) in builder.changed]
    return StepGraph(GraphModule(builder.constants, builder.graph), result, changed, reached)


class _Builder:
    """Builder of nodes from calls; a tensor that is neither input nor result is a constant."""

    def __init__(self, inputs: Sequence[Tensor], changed: set[int]) -> None:
        self.graph, self.constants, self.changed = Graph(), torch.nn.Module(), changed
        self._nodes: dict[int, Node] = {}
        self._kept: list[Tensor] = []
        self._fixed: set[int] = set()
        for index, tensor in enumerate(inputs):
            self._note(self.graph.placeholder(f"input_{index}"), tensor)

    def add(self, call: RecordedOp, writes: bool) -> None:
        """Add one call with its results."""
        if self._is_fixed(call):
            self._fixed |= {id(tensor) for tensor in iter_tensors(call.result)}
            return
        args, kwargs = map_aggregate((call.args, call.kwargs), self.node_of)
        node = self.graph.call_function(call.operation, args, kwargs)
        node.meta["writes"] = writes
        if isinstance(call.result, Tensor):
            self._note(node, call.result)
        elif isinstance(call.result, tuple | list):
            for index, item in enumerate(call.result):
                if isinstance(item, Tensor):
                    self._note(self.graph.call_function(operator.getitem, (node, index)), item)

    def _is_fixed(self, call: RecordedOp) -> bool:
        """Return True if the call gives the same values at every step, because it depends on constants alone."""
        arguments = list(iter_tensors((call.args, call.kwargs)))
        if any(_storage(tensor) in self.changed for tensor in (*arguments, *iter_tensors(call.result))):
            return False
        if call.operation is torch.ops.aten.lift_fresh.default:  # the last operation of `torch.tensor`
            return True
        random = torch.Tag.nondeterministic_seeded in call.operation.tags
        return all(id(tensor) in self._fixed for tensor in arguments) and not random

    def node_of(self, value: Any) -> Any:
        """Return the node of a tensor, and any other value unchanged."""
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._nodes:
            name = f"constant_{len(self._kept)}"
            self.constants.register_buffer(name, value)
            self._note(self.graph.get_attr(name), value)
            self._kept.append(value)
        return self._nodes[id(value)]

    def _note(self, node: Node, value: Tensor) -> None:
        node.meta["form"] = (tuple(value.shape), tuple(value.stride()), value.dtype)
        node.meta["place"] = (_storage(value), value.storage_offset())
        node.meta["dense"] = value.is_contiguous()
        self._nodes[id(value)] = node


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _written_to(call: RecordedOp) -> list[Tensor]:
    """Return the tensors that an operation changes, by its schema or by `UNDECLARED_WRITES`."""
    undeclared = [call.args[position] for position in UNDECLARED_WRITES.get(call.operation, ())]
    positional = zip(call.operation._schema.arguments, call.args, strict=False)
    arguments = [
        *positional,
        *((argument, call.kwargs.get(argument.name)) for argument in call.operation._schema.arguments),
    ]
    declared = [
        value for argument, value in arguments if argument.alias_info is not None and argument.alias_info.is_write
    ]
    return list(iter_tensors([declared, undeclared]))


def _reads_values(result: Any) -> bool:
    items = result if isinstance(result, tuple | list) else [result]
    return any(value is not None and not isinstance(value, Tensor) for value in items)


# running mean and variance, which these operations change although their schemas are pure
UNDECLARED_WRITES: dict[Any, tuple[int, ...]] = {
    torch.ops.aten.native_batch_norm.default: (3, 4),
    torch.ops.aten.cudnn_batch_norm.default: (3, 4),
    torch.ops.aten.miopen_batch_norm.default: (3, 4),
}
