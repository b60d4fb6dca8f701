"""CUDA graph of a list of operations: the GPU receives a whole step at once.

Launching an operation from Python takes longer than most operations of a small network.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule


def to_cuda_graph(module: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Return the graph as one call of the same operations in the same order.

    Args:
        module: returns a flat tuple of tensors and changes none of its inputs.
        inputs: tensors on a GPU with the layout of all later inputs.

    Returns:
        A function whose results are valid until its next call, which reuses their memory.

    Raises:
        RuntimeError: when an operation waits for the GPU, which a graph cannot represent.
    """
    static_inputs = [tensor.clone() for tensor in inputs]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = module(*static_inputs)

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        for target, tensor in zip(static_inputs, tensors, strict=True):
            target.copy_(tensor)
        graph.replay()
        return results

    return run
