"""Graph of operations for TorchScript's interpreter, which needs one microsecond per operation where Python needs several.

The graph is built node by node, not traced: a trace refuses lists of flags, which every backward pass of a convolution
has. Tensors that a graph uses besides its inputs become inputs, so that none is treated as a constant.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


def to_torchscript(module: GraphModule) -> Callable[..., tuple[Tensor, ...]]:
    """Return the graph as one call of the same operations in the same order.

    Args:
        module: returns a flat tuple of tensors; the operation of a node is `meta["operation"]`.

    Raises:
        RuntimeError: when TorchScript lacks an argument type or an operation.
    """
    script = _Script()
    for node in module.graph.nodes:
        script.add(node)
    run = torch._C._create_function_from_graph("step", script.graph)
    reached = [module.get_buffer(name) for name in script.reached]
    return lambda *inputs: run(*inputs, *reached)


class _Script:
    """Builder of a TorchScript graph, with the value of each node."""

    def __init__(self) -> None:
        self.graph: Any = torch._C.Graph()
        self.reached: list[str] = []
        self._values: dict[Node, Any] = {}

    def add(self, node: Node) -> None:
        """Add a node of any kind."""
        if node.op == "output":
            self._give([self._values[value] for value in node.args[0]])  # type: ignore[union-attr, index]
        elif node.target is operator.getitem:
            self._values[node] = self._values[node.args[0]][node.args[1]]  # type: ignore[index]
        elif node.op == "call_function":
            self._values[node] = self._call(node)
        else:
            self._values[node] = self.graph.addInput(node.name)
            self.reached += [str(node.target)] * (node.op == "get_attr")

    def _call(self, node: Node) -> Any:
        schema = node.meta["operation"]._schema
        arguments = {argument.name: argument.default_value for argument in schema.arguments}
        arguments |= dict(zip(arguments, node.args, strict=False)) | node.kwargs
        values = [self._value(value) for value in arguments.values()]
        if str(schema.arguments[0].type) == "Tensor" and not isinstance(node.args[0], Node):
            values[0] = self.graph.insertConstant(torch.tensor(node.args[0]))  # a plain number passed as a tensor
        call = self.graph.create(schema.name, values, len(schema.returns))
        outputs = list(self.graph.insertNode(call).outputs())
        return outputs[0] if len(outputs) == 1 else outputs

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, Node):
            return self._values[argument]
        if isinstance(argument, Sequence) and any(isinstance(item, Node) for item in argument):
            tensors = self.graph.create("prim::ListConstruct", [self._values[item] for item in argument], 1)
            self.graph.insertNode(tensors).output().setType(torch._C.ListType.ofTensors())
            return tensors.output()
        if isinstance(argument, Sequence) and not isinstance(argument, str):
            argument = list(argument)  # a shape, or a tuple
        if isinstance(argument, torch.memory_format):
            argument = MEMORY_FORMATS[argument]
        return self.graph.insertConstant(argument)

    def _give(self, outputs: Sequence[Any]) -> None:
        together = self.graph.insertNode(self.graph.create("prim::TupleConstruct", list(outputs), 1)).output()
        together.setType(torch._C.TupleType([output.type() for output in outputs]))
        self.graph.registerOutput(together)


# TorchScript's numbers of the memory formats
MEMORY_FORMATS = {
    torch.contiguous_format: 0,
    torch.preserve_format: 1,
    torch.channels_last: 2,
    torch.channels_last_3d: 3,
}
