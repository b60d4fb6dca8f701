"""A step written out as a list of operations is the step: same bits, same changes in place, or it is not used."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap

from harness.training.graph import capture
from harness.training.graph import operations as operations_module
from harness.training.graph.capture import GraphedFunction


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def traced_and_plain(function, arguments, calls=5):
    """The last results of five calls, by the list and by the function, on inputs that change each time."""
    traced, results = GraphedFunction(function), []
    for call in range(calls):
        given = [each + call for each in arguments]
        kept = [each.clone() for each in given]
        results.append((traced("key", *given), given, function(*kept), kept))
    return traced._lists["key"], results


def assert_same_bits(results):
    for found, given, wanted, kept in results:
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(given, kept, rtol=0, atol=0, equal_nan=True)


def two_views_of_what_is_overwritten(x):
    doubled = x * 2
    first = doubled[0]
    return first, doubled + 1, torch.relu(doubled)


def overlapping_operands(x):
    doubled = x * 2
    return doubled + doubled.T


def changes_its_input(x):
    before = x * 3
    x.add_(1)
    x.add_(1)
    return before, x * 3


def ones_and_repeats(x):
    return (x * torch.ones_like(x)) + (x * 1), torch.exp(x) + torch.exp(x), x.T.T.reshape(x.shape) * 1


def broadcast_factors(x):
    return x * torch.ones_like(x[:1]), x[:1] * torch.ones_like(x), x * 1.0


def one_off_in_a_strided_slice(x):
    slice_ = x[:, :3]
    return (slice_ * 1).view(6, 1, 3) + x[:, None, :3], (slice_ * 1).sum(1)


def a_view_of_what_was_merged(x):
    first, second = torch.exp(x), torch.exp(x)
    row, one = second[0], second * 1
    column = one[:, 0]
    return torch.relu(first - 1), row + 1, column + 1


def integers_stay_integers(x):
    return (x > 0).long() * 1, (x > 0).long() + 1, (x > 0) * x


def into_nan(x):
    return torch.log(x - 3).sigmoid(), torch.sqrt(x - 3)


def numbers_of_its_own(x):
    target, steps = torch.tensor([0.05] * 6).double(), torch.arange(6).float()
    return (target * torch.log(target / 0.5)).sum() * x, (1 - steps) @ x, torch.ones(6), target


def numbers_of_its_own_that_change(x):
    canvas, count = torch.zeros(6, 6), torch.full((2,), 3.0)
    canvas[0] = x[0]
    return canvas * 2, count.add_(1) * x[0, 0]


@pytest.mark.parametrize(
    "function",
    [
        numbers_of_its_own,
        numbers_of_its_own_that_change,
        two_views_of_what_is_overwritten,
        overlapping_operands,
        changes_its_input,
        ones_and_repeats,
        broadcast_factors,
        one_off_in_a_strided_slice,
        a_view_of_what_was_merged,
        integers_stay_integers,
        into_nan,
    ],
    ids=lambda function: function.__name__,
)
def test_the_list_gives_what_the_function_gives(function):
    operations, results = traced_and_plain(function, [rows(6, 6)])
    assert operations is not None
    assert_same_bits(results)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(0.1), nn.ELU(), nn.GELU()])
def test_gradients_and_running_averages_are_those_of_the_function(activation):
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, affine=False), activation, nn.Linear(7, 5))
    model[1].num_batches_tracked = None  # a count of calls, which vmap wants as an input
    names = [name for name, _ in model.named_parameters()]

    def loss(parameters, mean, variance, batch):
        state = dict(zip(names, parameters, strict=True)) | {"1.running_mean": mean, "1.running_var": variance}
        return (functional_call(model, state, (batch,)) - batch).pow(2).mean()

    member = vmap(grad_and_value(loss), in_dims=(0, 0, 0, 0))
    shapes = [tuple(value.shape) for value in model.parameters()]

    def function(flat, mean, variance, batch):
        parts = flat.split([torch.Size(shape).numel() for shape in shapes], dim=1)
        parameters = [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]
        return member(parameters, mean, variance, batch)

    size = sum(torch.Size(shape).numel() for shape in shapes)
    given = [rows(8, size), rows(8, 7, seed=1), rows(8, 7, seed=2).abs(), rows(8, 16, 5, seed=3)]
    operations, results = traced_and_plain(function, given)
    assert operations is not None
    assert_same_bits(results)


def test_a_function_that_remembers_is_never_replaced():
    calls = []

    def counting(x):
        calls.append(1)
        return x * len(calls)

    traced = GraphedFunction(counting)
    found = [float(traced("key", torch.tensor(1.0))) for _ in range(5)]
    assert traced._lists["key"] is None
    assert found == sorted(set(found))


def test_a_function_that_looks_at_a_number_is_never_replaced():
    def branching(x):
        return x * 2 if float(x.sum()) > 3 else x * 5

    traced = GraphedFunction(branching)
    found = [float(traced("key", torch.tensor([value]))[0]) for value in (1.0, 2.0, 1.0, 4.0, 5.0)]
    assert traced._lists["key"] is None
    assert found == [5.0, 10.0, 5.0, 8.0, 10.0]


def test_a_list_that_cannot_run_is_never_used():
    traced = GraphedFunction(lambda x: x.view(x.numel() // 2, 2) * 2)
    for size in (
        6,
        6,
        8,
        8,
    ):  # under one key, as no caller would: the list is written at the second and fails at the third
        x = rows(size)
        assert torch.equal(traced("key", x), x.view(-1, 2) * 2)
    assert traced._lists["key"] is None


def test_what_no_graph_can_hold_stays_a_function():
    def drawing(x):
        return x + torch.rand(x.shape, generator=torch.Generator().manual_seed(0)), {1: x}

    traced = GraphedFunction(drawing)
    for _ in range(5):
        x = rows(4)
        assert torch.equal(traced("key", x)[0], drawing(x)[0])


def test_another_shape_has_a_list_of_its_own():
    traced = GraphedFunction(lambda x: x.mean() * x)
    for _ in range(4):
        for size in (3, 5):
            x = rows(size)
            assert torch.equal(traced(size, x), x.mean() * x)


def test_what_changes_nothing_is_gone_and_the_rest_is_done_in_place():
    operations, _ = traced_and_plain(lambda x: torch.relu((x + x.sum()) * torch.ones_like(x) + x.sum()), [rows(4, 4)])
    names = [node.name for node in operations.graph.graph.nodes if node.op == "call_function"]
    assert len([name for name in names if name.startswith("sum")]) == 1
    assert not [name for name in names if name.startswith(("mul", "ones"))]
    assert [name for name in names if name.startswith("relu")] == ["relu__default"]


def test_what_comes_of_numbers_in_the_code_alone_is_kept_but_never_what_is_drawn():
    operations, _ = traced_and_plain(numbers_of_its_own, [rows(6, 6)])
    names = [node.name.split("_")[0] for node in operations.graph.graph.nodes if node.op == "call_function"]
    assert "mul" in names
    assert not {"log", "div", "sum", "rsub", "sub", "arange", "ones", "to"} & set(names)
    drawn = GraphedFunction(lambda x: x * torch.rand(3))
    assert len({float(drawn("key", torch.ones(3)).sum()) for _ in range(6)}) == 6


def convolved(x):
    kernel = torch.linspace(-1, 1, 9).reshape(1, 1, 3, 3)
    with torch.enable_grad():
        image = x[None, None].detach().requires_grad_()
        made = torch.nn.functional.conv2d(image, kernel, padding=1).clone(memory_format=torch.contiguous_format)
        (slope,) = torch.autograd.grad(torch.relu(made).sum(), image)
    return made.detach(), slope


def sums_of_several(x):
    together = torch.cat([x, x * 2, x[:1]])
    return together.sum(), together.double().mean(0), {"half": together.to(torch.float16), "also": 3}


def adds_into_what_it_reaches():
    kept = torch.zeros(6, 6)

    def function(x):
        kept.add_(x)
        return kept * 2

    return function


@pytest.mark.parametrize(
    "function",
    [
        numbers_of_its_own,
        numbers_of_its_own_that_change,
        two_views_of_what_is_overwritten,
        changes_its_input,
        ones_and_repeats,
        integers_stay_integers,
        into_nan,
        convolved,
        sums_of_several,
    ],
    ids=lambda function: function.__name__,
)
def test_a_list_called_often_gives_what_the_function_gives(function, monkeypatch):
    monkeypatch.setattr(capture, "CUDA_GRAPH_AT", 4)
    operations, results = traced_and_plain(function, [rows(6, 6)], calls=7)
    assert operations._run == operations.graph.forward
    assert_same_bits(results)


def test_what_a_function_reaches_is_changed_once_a_call():
    traced, sum_of_all, x = GraphedFunction(adds_into_what_it_reaches()), torch.zeros(6, 6), rows(6, 6)
    for call in range(8):
        sum_of_all += x + call
        torch.testing.assert_close(traced("key", x + call), sum_of_all * 2, rtol=0, atol=0)
    assert traced._lists["key"] is not None


@pytest.fixture
def a_gpu(monkeypatch):
    """Inputs count as a GPU's from the fourth call on; the test says what the CUDA graph is."""
    monkeypatch.setattr(capture, "CUDA_GRAPH_AT", 4)
    monkeypatch.setattr(operations_module, "_on_gpu", lambda inputs: True)
    return lambda run: monkeypatch.setattr(operations_module, "to_cuda_graph", lambda graph, inputs: run(graph))


def test_a_cuda_graph_with_the_same_bits_is_used(a_gpu):
    a_gpu(lambda graph: lambda *inputs: graph(*inputs))
    operations, results = traced_and_plain(lambda x: x * 2, [rows(3)], calls=6)
    assert operations._run != operations.graph.forward
    assert_same_bits(results)


def test_a_cuda_graph_with_other_bits_is_not_used(a_gpu):
    a_gpu(lambda graph: lambda *inputs: (inputs[0] * 2 + 1e-6,))
    operations, results = traced_and_plain(lambda x: x * 2, [rows(3)], calls=6)
    assert operations._run == operations.graph.forward
    assert_same_bits(results)


def test_a_list_that_no_cuda_graph_can_represent_stays_in_python(a_gpu):
    def waits_for_the_gpu(graph):
        raise RuntimeError("operation not permitted when stream is capturing")

    a_gpu(waits_for_the_gpu)
    operations, results = traced_and_plain(lambda x: x * 2, [rows(3)], calls=6)
    assert operations._run == operations.graph.forward
    assert_same_bits(results)


def test_a_list_that_changes_its_inputs_stays_in_python(a_gpu):
    a_gpu(lambda graph: lambda *inputs: graph(*inputs))
    operations, results = traced_and_plain(changes_its_input, [rows(6, 6)], calls=6)
    assert operations._run == operations.graph.forward
    assert_same_bits(results)


def test_a_function_called_too_rarely_stays_in_python(a_gpu):
    a_gpu(lambda graph: lambda *inputs: graph(*inputs))
    traced = GraphedFunction(lambda x: x * 2, cuda_graph=False)
    assert all(torch.equal(traced("key", rows(3) + call), (rows(3) + call) * 2) for call in range(6))
    assert traced._lists["key"]._run == traced._lists["key"].graph.forward
