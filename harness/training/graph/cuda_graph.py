"""A graph of operations as a CUDA graph: a GPU gets all of a step at once, not one operation after the other.

Launching an operation from Python takes longer than most operations of a small network take on the GPU.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule


def to_cuda_graph(module: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """The graph as one call, of the same operations in the same order.

    Args:
        module: it gives a flat tuple of tensors, and changes none of its inputs.
        inputs: on a GPU, as they will always be laid out.

    Returns:
        A function whose results hold until it is called again: their memory is the same each time.

    Raises:
        RuntimeError: where an operation waits for the GPU, which no graph can hold.
    """
    places = [each.clone() for each in inputs]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = module(*places)

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        for place, each in zip(places, given, strict=True):
            place.copy_(each)
        graph.replay()
        return results

    return run
