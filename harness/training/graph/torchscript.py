"""A graph of operations for TorchScript's interpreter: it needs a microsecond an operation where Python needs several.

The graph is written node by node, not traced: a trace refuses lists of flags, which every backward pass of a
convolution has. What a graph reaches besides its inputs becomes an input, so nothing is ever taken for a constant.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


def to_torchscript(module: GraphModule) -> Callable[..., tuple[Tensor, ...]]:
    """The graph as one call, of the same operations in the same order.

    Args:
        module: its nodes know their operation (`meta["operation"]`); it gives a flat tuple of tensors.

    Raises:
        RuntimeError: where an argument or an operation is not known to TorchScript.
    """
    script = _Script()
    for node in module.graph.nodes:
        script.add(node)
    run = torch._C._create_function_from_graph("step", script.graph)
    reached = [module.get_buffer(name) for name in script.reached]
    return lambda *inputs: run(*inputs, *reached)


class _Script:
    """TorchScript's graph as it grows, with the value that stands for each node."""

    def __init__(self) -> None:
        self.graph: Any = torch._C.Graph()
        self.reached: list[str] = []
        self._values: dict[Node, Any] = {}

    def add(self, node: Node) -> None:
        """One node of any kind."""
        if node.op == "output":
            self._give([self._values[each] for each in node.args[0]])  # type: ignore[union-attr, index]
        elif node.target is operator.getitem:
            self._values[node] = self._values[node.args[0]][node.args[1]]  # type: ignore[index]
        elif node.op == "call_function":
            self._values[node] = self._call(node)
        else:
            self._values[node] = self.graph.addInput(node.name)
            self.reached += [str(node.target)] * (node.op == "get_attr")

    def _call(self, node: Node) -> Any:
        schema = node.meta["operation"]._schema
        named = {argument.name: argument.default_value for argument in schema.arguments}
        named |= dict(zip(named, node.args, strict=False)) | node.kwargs
        values = [self._value(each) for each in named.values()]
        if str(schema.arguments[0].type) == "Tensor" and not isinstance(node.args[0], Node):
            values[0] = self.graph.insertConstant(torch.tensor(node.args[0]))  # a plain number in a tensor's place
        call = self.graph.create(schema.name, values, len(schema.returns))
        outputs = list(self.graph.insertNode(call).outputs())
        return outputs[0] if len(outputs) == 1 else outputs

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, Node):
            return self._values[argument]
        if isinstance(argument, Sequence) and any(isinstance(each, Node) for each in argument):
            tensors = self.graph.create("prim::ListConstruct", [self._values[each] for each in argument], 1)
            self.graph.insertNode(tensors).output().setType(torch._C.ListType.ofTensors())
            return tensors.output()
        if isinstance(argument, Sequence) and not isinstance(argument, str):
            argument = list(argument)  # a shape, or a tuple
        if isinstance(argument, torch.memory_format):
            argument = MEMORY_FORMATS[argument]
        return self.graph.insertConstant(argument)

    def _give(self, outputs: Sequence[Any]) -> None:
        together = self.graph.insertNode(self.graph.create("prim::TupleConstruct", list(outputs), 1)).output()
        together.setType(torch._C.TupleType([each.type() for each in outputs]))
        self.graph.registerOutput(together)


# as TorchScript numbers them
MEMORY_FORMATS = {
    torch.contiguous_format: 0,
    torch.preserve_format: 1,
    torch.channels_last: 2,
    torch.channels_last_3d: 3,
}
