"""The operations of a step as a graph: built from the calls that were noted, freed of what changes nothing, run.

A graph runs in Python, or compiled by TorchScript, whose interpreter needs a microsecond an operation where Python
needs three or four.
"""

import operator
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate

from harness.training.graph.cuda_graph import to_cuda_graph
from harness.training.graph.nested import bitwise_equal, iter_tensors, replace_tensors, restore_nesting
from harness.training.graph.passes import simplify
from harness.training.graph.torchscript import to_torchscript

if TYPE_CHECKING:
    from harness.training.graph.capture import RecordedOp

if TYPE_CHECKING:
    pass

Run = Callable[..., tuple[Tensor, ...]]


class StepGraph:
    """Operations in their order, without Python's part in finding them.

    Args:
        graph: the operations; it gives a flat tuple of tensors.
        result: what the function gave when it was noted, nested.
        inputs: which of the inputs the operations change in place.
        reached: what else they change in place.
    """

    def __init__(self, graph: GraphModule, result: Any, inputs: Sequence[int], reached: Sequence[Tensor]) -> None:
        self.graph, self._inputs, self._reached = graph, inputs, reached
        self._run: Run = graph.forward
        self._nesting = replace_tensors(result, repeat(torch.empty(0)))  # its tensors need not be kept

    @property
    def changes_nothing(self) -> bool:
        """Whether the operations leave every tensor that they reach as it was."""
        return not self._inputs and not self._reached

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        """The results, nested as the function nested them."""
        return self._by(self._run, inputs)

    def compared(self, function: Callable[[], Any], inputs: Sequence[Tensor]) -> tuple[bool, Any]:
        """Whether the list does what the function does, bit for bit; and what the function, which has run, gave."""
        changing = self._changing(inputs)
        try:
            with restore_nesting(changing):
                # copies: a result may be a view of what is restored
                found = [each.clone() for each in (*iter_tensors(self(inputs)), *changing)]
        except Exception:  # the function went another way this time
            found = []
        result = function()
        return bitwise_equal(found, [*iter_tensors(result), *changing]), result

    def compile(self, inputs: Sequence[Tensor]) -> Any:
        """The results; and from now on TorchScript runs the operations, if that gives the same bits."""
        in_python = self._run
        try:
            self._run = self._compiled(inputs)
        except Exception:  # what TorchScript does not know stays in Python
            return self(inputs)
        same, result = self.compared(lambda: self._by(in_python, inputs), inputs)
        self._run = self._run if same else in_python
        return result

    def _by(self, run: Run, inputs: Sequence[Tensor]) -> Any:
        with torch.no_grad():
            return replace_tensors(self._nesting, iter(run(*inputs)))

    def _compiled(self, inputs: Sequence[Tensor]) -> Run:
        if any(each.is_cuda for each in inputs) and not self._inputs:  # a CUDA graph works on copies of them
            return to_cuda_graph(self.graph, inputs)
        run = to_torchscript(self.graph)
        with restore_nesting(self._changing(inputs)), torch.no_grad():
            run(*inputs)  # which profiles: the next call is what all later ones are
        return run

    def _changing(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [*(inputs[place] for place in self._inputs), *self._reached]


def build_step_graph(calls: "Sequence[RecordedOp]", inputs: Sequence[Tensor], result: Any) -> StepGraph | None:
    """The list of these calls, or None where Python looked at a number, which another step may find otherwise.

    Args:
        calls: what was called, in order.
        inputs: the tensors that differ from step to step.
        result: what came out, nested.
    """
    if any(_looks_at_numbers(call.result) for call in calls):
        return None
    written = [_written_to(call) for call in calls]
    builder = _Builder(inputs, {_storage(each) for found in written for each in found})
    for call, found in zip(calls, written, strict=True):
        builder.add(call, writes=bool(found))
    builder.graph.output(tuple(builder.node_of(each) for each in iter_tensors(result)))
    simplify(builder.graph, builder.changed)
    changed = [place for place, each in enumerate(inputs) if _storage(each) in builder.changed]
    reached = [each for each in builder.constants.buffers() if _storage(each) in builder.changed]
    return StepGraph(GraphModule(builder.constants, builder.graph), result, changed, reached)


class _Builder:
    """Calls become nodes; a tensor that is no input and no result is a constant, and so is what constants alone make."""

    def __init__(self, inputs: Sequence[Tensor], changed: set[int]) -> None:
        self.graph, self.constants, self.changed = Graph(), torch.nn.Module(), changed
        self._nodes: dict[int, Node] = {}
        self._kept: list[Tensor] = []
        self._fixed: set[int] = set()
        for index, each in enumerate(inputs):
            self._note(self.graph.placeholder(f"input_{index}"), each)

    def add(self, call: "RecordedOp", writes: bool) -> None:
        """One call, with its results."""
        if self._is_fixed(call):
            self._fixed |= {id(each) for each in iter_tensors(call.result)}
            return
        args, kwargs = map_aggregate((call.args, call.kwargs), self.node_of)
        node = self.graph.call_function(call.operation, args, kwargs)
        node.meta["writes"] = writes
        if isinstance(call.result, Tensor):
            self._note(node, call.result)
        elif isinstance(call.result, tuple | list):
            for index, each in enumerate(call.result):
                if isinstance(each, Tensor):
                    self._note(self.graph.call_function(operator.getitem, (node, index)), each)

    def _is_fixed(self, call: "RecordedOp") -> bool:
        """Whether it makes the same numbers at every step: it begins with numbers in the author's code, and goes on so."""
        given = list(iter_tensors((call.args, call.kwargs)))
        if any(_storage(each) in self.changed for each in (*given, *iter_tensors(call.result))):
            return False
        if call.operation is torch.ops.aten.lift_fresh.default:  # what `torch.tensor` ends with
            return True
        random = torch.Tag.nondeterministic_seeded in call.operation.tags
        return all(id(each) in self._fixed for each in given) and not random

    def node_of(self, value: Any) -> Any:
        """The node of a tensor; anything else as it is."""
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


def _written_to(call: "RecordedOp") -> list[Tensor]:
    """The tensors that an operation changes: by its schema, or by what the schema keeps to itself."""
    unsaid = [call.args[position] for position in UNSAID_WRITES.get(call.operation, ())]
    named = zip(call.operation._schema.arguments, call.args, strict=False)
    given = [*named, *((each, call.kwargs.get(each.name)) for each in call.operation._schema.arguments)]
    said = [value for argument, value in given if argument.alias_info is not None and argument.alias_info.is_write]
    return list(iter_tensors([said, unsaid]))


def _looks_at_numbers(result: Any) -> bool:
    each = result if isinstance(result, tuple | list) else [result]
    return any(value is not None and not isinstance(value, Tensor) for value in each)


# the running mean and variance, which these change though their schemas call them pure
UNSAID_WRITES: dict[Any, tuple[int, ...]] = {
    torch.ops.aten.native_batch_norm.default: (3, 4),
    torch.ops.aten.cudnn_batch_norm.default: (3, 4),
    torch.ops.aten.miopen_batch_norm.default: (3, 4),
}
