"""A program's step written out as one straight list of tensor operations: the same bits in half the time.

What Python did to find out which operations a step needs (the author's loss, `vmap`, the gradient) is done once and
kept. Only for programs that keep no state in Python, since such state would be kept as it was.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

WORTH_IT_AFTER = 20  # steps: writing a step out costs about as much as a hundred of them


class Traced:
    """A function of nested tensors that is written out once it was called often enough with one shape of its batch.

    Args:
        function: called with nested containers of tensors and plain numbers.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._calls: dict[Any, int] = {}
        self._graphs: dict[Any, GraphModule | None] = {}

    def __call__(self, key: Any, *arguments: Any) -> Any:
        """The function of the arguments; `key` tells apart what needs another list of operations."""
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] == WORTH_IT_AFTER:
            self._graphs[key] = written_out(self.function, arguments)
        graph = self._graphs.get(key)
        if graph is None:
            return self.function(*arguments)
        with torch.no_grad():
            return graph(*_tensors(arguments))


def written_out(function: Callable[..., Any], arguments: tuple[Any, ...]) -> GraphModule | None:
    """The operations of one call, or None where they cannot be written out."""
    tensors = _tensors(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            graph = make_fx(lambda *each: function(*_filled(arguments, each)))(*map(_copied, tensors))
        except Exception:
            return None
    _drop_empty_moves(graph)
    return graph


def _drop_empty_moves(graph: GraphModule) -> None:
    """Take out views that change no shape, and what nobody reads."""
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target in EMPTY_MOVES and _same_shape(node):
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _same_shape(node: Node) -> bool:
    source = node.args[0]
    if not isinstance(source, Node) or "val" not in source.meta or "val" not in node.meta:
        return False
    before, after = source.meta["val"], node.meta["val"]
    return bool(before.shape == after.shape and before.stride() == after.stride())


def _copied(tensor: Tensor) -> Tensor:
    """A copy with the same strides, since a step may change its buffers in place; slices (parameters) never are."""
    return tensor.clone() if tensor.is_contiguous() else tensor


def _tensors(arguments: Any) -> list[Tensor]:
    """The tensors of nested tuples and mappings, in their order."""
    if isinstance(arguments, Tensor):
        return [arguments]
    if isinstance(arguments, dict):
        return [tensor for each in arguments.values() for tensor in _tensors(each)]
    return [tensor for each in arguments for tensor in _tensors(each)] if isinstance(arguments, tuple) else []


def _filled(arguments: Any, tensors: tuple[Tensor, ...]) -> Any:
    """The same nesting with other tensors."""
    return _fill(arguments, iter(tensors))


def _fill(arguments: Any, tensors: Any) -> Any:
    if isinstance(arguments, Tensor):
        return next(tensors)
    if isinstance(arguments, dict):
        return {name: _fill(each, tensors) for name, each in arguments.items()}
    return tuple(_fill(each, tensors) for each in arguments) if isinstance(arguments, tuple) else arguments


EMPTY_MOVES = {torch.ops.aten.view.default, torch.ops.aten.expand.default, torch.ops.aten._unsafe_view.default}
