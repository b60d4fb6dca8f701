"""Passes that remove redundant operations from a list and make others in-place.

Every pass keeps all results bitwise equal and skips storages that the program itself changes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Graph, Node

aten = torch.ops.aten
Changed = set[int]


def simplify(graph: Graph, changed: Changed) -> None:
    """Apply all passes, in the order in which each helps the next.

    Args:
        graph: its nodes carry the form and the storage of their results.
        changed: storages that the program changes.
    """
    for simplification in PASSES:
        simplification(graph, changed)
    graph.eliminate_dead_code(_mutates)
    work_in_place(graph, changed)
    for node in graph.nodes:
        node.meta["operation"] = node.target
        node.target = SHORTER.get(node.target, node.target)


def merge_views(graph: Graph, changed: Changed) -> None:
    """Merge views of the same values in the same form."""
    first: dict[Any, Node] = {}
    for node in graph.nodes:
        if "form" not in node.meta or _mutates(node):
            continue
        original = first.setdefault((node.meta["place"], node.meta["form"]), node)
        if original is not node and node.op == "call_function":
            node.replace_all_uses_with(original)


def drop_ones(graph: Graph, changed: Changed) -> None:
    """Replace a product with one by its other factor."""
    ones: set[Node] = set()
    for node in graph.nodes:
        source = node.args[0] if node.args else None
        if node.target is aten.ones_like.default or (node.target in VIEWS and source in ones):
            ones.add(node)
        elif node.target in PRODUCTS and _storage(node.args[0]) not in changed:
            for factor, second in (node.args[:2], node.args[1::-1]):
                if (second in ones or second == 1) and (_same_form(node, factor) or _only_viewed(node, factor)):
                    _replace(graph, node, factor)
                    break


def _only_viewed(product: Node, factor: Any) -> bool:
    """Try to turn the views of the product into views of the factor, which has another memory layout."""
    shape, stride, dtype = factor.meta["form"]
    if shape != product.meta["form"][0] or dtype != product.meta["form"][2]:
        return False
    if any(user.target is not aten.view.default for user in product.users):
        return False
    sizes: dict[Node, Any] = {user: user.args[1] for user in product.users}
    laid_out = torch.empty_strided(shape, stride, device="meta")
    try:
        views = {user: laid_out.view(size) for user, size in sizes.items()}
    except RuntimeError:
        return False
    for user, view in views.items():
        user.meta["form"] = (tuple(view.shape), tuple(view.stride()), dtype)
        user.meta["place"] = factor.meta["place"]
    return True


def merge_repeats(graph: Graph, changed: Changed) -> None:
    """Merge equal operations on the same values."""
    first: dict[Any, Node] = {}
    for node in graph.nodes:
        if node.op == "call_function" and "form" in node.meta and _is_pure(node, changed):
            original = first.setdefault((node.target, repr(node.args), repr(node.kwargs)), node)
            if original is not node:
                _replace(graph, node, original)


def pick_slices(graph: Graph, changed: Changed) -> None:
    """Replace a gather whose index is constant along the other axes by `index_select`, which copies whole slices."""
    for node in list(graph.nodes):
        if node.target is aten.gather.default and not node.kwargs:
            source, axis, index = node.args
            line = _line_of(index, axis)
            if line is not None and _same_but(node, source, axis):
                with graph.inserting_before(node):
                    picked = graph.call_function(aten.index_select.default, (source, axis, line))
                picked.meta = dict(node.meta)
                node.replace_all_uses_with(picked)
                graph.erase_node(node)


def _line_of(index: Node, axis: int) -> Node | None:
    """Return the one-dimensional index behind an expanded one; None if there is none."""
    shape, stride, _ = index.meta["form"]
    if any(
        step and size > 1 for position, (size, step) in enumerate(zip(shape, stride, strict=True)) if position != axis
    ):
        return None
    form = ((shape[axis],), (stride[axis],), torch.int64)
    while index.target in VIEWS and index.meta["form"] != form:
        index = index.args[0]  # type: ignore[assignment]
    return index if index.meta["form"] == form else None


def _same_but(node: Node, source: Any, axis: int) -> bool:
    """Return True if two shapes are equal except along this axis."""
    (shape, *_), (source_shape, *_) = node.meta["form"], source.meta["form"]
    return bool(shape[:axis] == source_shape[:axis] and shape[axis + 1 :] == source_shape[axis + 1 :])


def work_in_place(graph: Graph, changed: Changed) -> None:
    """Let elementwise operations overwrite inputs that are not read again, which saves cache."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    tenants: dict[int, list[Node]] = {}
    for node in order:
        if "form" in node.meta:
            tenants.setdefault(_storage(node), []).append(node)
    for node in list(order):
        for position in IN_PLACE.get(node.target, ((), None))[0]:
            if _may_write_over(node, node.args[position], tenants, order, changed):
                _write_over(graph, node, position, tenants, order)
                break


def _may_write_over(node: Node, target: Any, tenants: Any, order: Any, changed: Changed) -> bool:
    if not isinstance(target, Node) or not _same_form(node, target) or not target.meta["dense"] or node.kwargs:
        return False
    sharers = tenants[_storage(target)]
    external = any(sharer.op in ("placeholder", "get_attr") for sharer in sharers)
    read_later = any(order[user] > order[node] for sharer in sharers for user in sharer.users)
    overlapping = any(operand in sharers and operand is not target for operand in node.all_input_nodes)
    return not (external or read_later or overlapping or _storage(target) in changed)


def _write_over(graph: Graph, node: Node, position: int, tenants: Any, order: Any) -> None:
    _, in_place = IN_PLACE[node.target]
    target = node.args[position]
    with graph.inserting_before(node):
        new = in_place(graph, node, position)
    new.meta, order[new] = dict(node.meta), order[node]
    node.replace_all_uses_with(new)
    moved = [new if member is node else member for member in tenants.pop(_storage(node))]
    for member in moved:
        member.meta["place"] = (_storage(target), member.meta["place"][1])
    tenants[_storage(target)].extend(moved)
    graph.erase_node(node)


def _replace(graph: Graph, node: Node, by: Any) -> None:
    """Replace a node, and the storage of its views, by another node with the same values."""
    old, new = node.meta["place"], by.meta["place"]
    if old[0] != new[0]:
        for member in graph.nodes:
            if _storage(member) == old[0]:
                member.meta["place"] = (new[0], member.meta["place"][1] - old[1] + new[1])
    node.replace_all_uses_with(by)


def _mutates(node: Node) -> bool:
    return bool(node.meta.get("writes", False)) or node.op in ("placeholder", "output")


def _is_pure(node: Node, changed: Changed) -> bool:
    random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    touched = [node, *node.all_input_nodes]
    return not (random or _mutates(node) or any("form" in n.meta and _storage(n) in changed for n in touched))


def _storage(node: Any) -> int:
    return int(node.meta["place"][0]) if isinstance(node, Node) and "place" in node.meta else -1


def _same_form(a: Any, b: Any) -> bool:
    return isinstance(b, Node) and bool(a.meta["form"] == b.meta.get("form"))


def _method(operation: Any) -> Callable[[Graph, Node, int], Node]:
    """Return a maker of the in-place operation, overwritten argument first; only commutative operations may be reordered."""
    return lambda graph, node, position: graph.call_function(
        operation, (node.args[position], *node.args[:position], *node.args[position + 1 :])
    )


def _into(operation: Any, name: str) -> Callable[[Graph, Node, int], Node]:
    """Return a maker of the operation with an output argument."""
    return lambda graph, node, position: graph.call_function(operation, node.args, {name: node.args[position]})


VIEWS = {aten.view.default, aten.expand.default, aten._unsafe_view.default, aten.unsqueeze.default}
PRODUCTS = {aten.mul.Tensor, aten.mul.Scalar}

PASSES = (merge_views, drop_ones, merge_repeats, merge_views, pick_slices)

# the same operations with less overhead in Python
SHORTER: dict[Any, Callable[..., Any]] = {
    aten.bmm.default: torch.bmm,
    aten.view.default: torch.Tensor.view,
    aten._unsafe_view.default: torch.Tensor.view,
    aten.transpose.int: torch.transpose,
    aten.expand.default: torch.Tensor.expand,
    aten.permute.default: torch.permute,
    aten.add.Tensor: torch.add,
    aten.add_.Tensor: torch.Tensor.add_,
    aten.mul.Tensor: torch.mul,
    aten.mul_.Tensor: torch.Tensor.mul_,
    aten.div.Tensor: torch.div,
    aten.div_.Tensor: torch.Tensor.div_,
    aten.sub.Tensor: torch.sub,
    aten.neg_.default: torch.Tensor.neg_,
    aten.relu.default: torch.relu,
    aten.relu_.default: torch.relu_,
    aten.sum.dim_IntList: torch.sum,
}

# operation -> indices of the arguments that it may overwrite, and its overwriting form
IN_PLACE: dict[Any, tuple[tuple[int, ...], Callable[[Graph, Node, int], Node]]] = {
    aten.add.Tensor: ((0, 1), _method(aten.add_.Tensor)),
    aten.mul.Tensor: ((0, 1), _method(aten.mul_.Tensor)),
    aten.mul.Scalar: ((0,), _method(aten.mul_.Scalar)),
    aten.sub.Tensor: ((0,), _method(aten.sub_.Tensor)),
    aten.div.Tensor: ((0,), _method(aten.div_.Tensor)),
    aten.div.Scalar: ((0,), _method(aten.div_.Scalar)),
    aten.neg.default: ((0,), _method(aten.neg_.default)),
    aten.log.default: ((0,), _method(aten.log_.default)),
    aten.exp.default: ((0,), _method(aten.exp_.default)),
    aten.relu.default: ((0,), _method(aten.relu_.default)),
    aten.sigmoid.default: ((0,), _method(aten.sigmoid_.default)),
    aten.tanh.default: ((0,), _method(aten.tanh_.default)),
    aten.leaky_relu.default: ((0,), _method(aten.leaky_relu_.default)),
    aten.threshold_backward.default: ((0,), _into(aten.threshold_backward.grad_input, "grad_input")),
    aten.sigmoid_backward.default: ((0,), _into(aten.sigmoid_backward.grad_input, "grad_input")),
    aten.tanh_backward.default: ((0,), _into(aten.tanh_backward.grad_input, "grad_input")),
    aten.leaky_relu_backward.default: ((0,), _into(aten.leaky_relu_backward.grad_input, "grad_input")),
}
