"""Convolutions as matrix products against torch's own."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

import harness
from harness.capture import observe
from harness.remedies.layout import build_model
from harness.training import check_vmap_support
from harness.training.convolution import OWN, all_products, convolution, transposed_convolution
from harness.training.kernels import StackKernels
from harness.training.optimizers import optimizer_spec
from harness.training.sequential import SequentialEngine
from harness.training.stacked import StackedEngine

pytestmark = pytest.mark.many

SIZES = {1: (11,), 2: (9, 12)}
SETTINGS = [
    {},
    {"stride": 2},
    {"stride": 3, "padding": 1},
    {"padding": "same"},
    {"padding": "valid"},
    {"padding": (2,)},
    {"dilation": 2, "padding": 2},
    {"dilation": 2, "padding": "same"},
    {"stride": 2, "dilation": 3, "padding": 4},
]
TRANSPOSED = [
    {},
    {"stride": 2},
    {"stride": 3, "padding": 1, "output_padding": 2},
    {"dilation": 2, "padding": 2},
    {"stride": 2, "dilation": 3, "padding": 4, "output_padding": 1},
]
FUNCTIONS = {
    (1, False): torch.conv1d,
    (2, False): torch.conv2d,
    (1, True): torch.conv_transpose1d,
    (2, True): torch.conv_transpose2d,
}


def factors(dimensions, transposed, kernel, dtype):
    generator = torch.Generator().manual_seed(kernel)
    inputs = torch.randn(4, 3, *SIZES[dimensions], generator=generator, dtype=dtype)
    channels = (3, 2) if transposed else (2, 3)
    weight = torch.randn(*channels, *(kernel,) * dimensions, generator=generator, dtype=dtype)
    return inputs, weight, torch.randn(2, generator=generator, dtype=dtype)


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize(
    ("transposed", "setting"), [*((False, each) for each in SETTINGS), *((True, each) for each in TRANSPOSED)], ids=str
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_values_and_gradients_are_torchs(transposed, setting, dimensions, kernel):
    function = FUNCTIONS[dimensions, transposed]
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        given = factors(dimensions, transposed, kernel, dtype)
        results = []
        for compute in (function, OWN[function]):
            leaves = [each.clone().requires_grad_() for each in given]
            made = compute(*leaves, **setting)
            slopes = torch.autograd.grad(made.square().sum(), leaves, create_graph=True)
            curvature = torch.autograd.grad(slopes[0].square().sum(), leaves[1])
            results.append([made, *slopes, *curvature])
        for found, wanted in zip(*reversed(results), strict=True):
            torch.testing.assert_close(
                found, wanted, rtol=tolerance, atol=tolerance * float(wanted.detach().abs().max())
            )


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("own", [convolution, transposed_convolution])
def test_one_sample_and_no_bias_are_taken_as_torch_takes_them(own, dimensions):
    transposed = own is transposed_convolution
    inputs, weight, _ = factors(dimensions, transposed, 3, torch.float64)
    torch.testing.assert_close(own(inputs[0], weight), FUNCTIONS[dimensions, transposed](inputs[0], weight))


@pytest.mark.parametrize("transposed", [False, True])
def test_arguments_by_name_are_understood_and_windows_counted(transposed):
    inputs, weight, _ = factors(2, transposed, 3, torch.float64)
    function = FUNCTIONS[2, transposed]
    with StackKernels() as seen:
        found = function(input=inputs, weight=weight, stride=2)
    torch.testing.assert_close(found, function(inputs, weight, stride=2))
    # 4 samples; 4 x 5 windows on 3 channels, or one of 2 channels from each of 9 x 12 places
    assert seen.picked == 4 * 9 * (2 * 9 * 12 if transposed else 3 * 4 * 5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(3, 4, 3, padding="same", padding_mode="circular"),
        nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(0, 1)),
        nn.ConvTranspose2d(3, 4, (2, 3), stride=(2, 1)),
        nn.Conv2d(3, 6, 3, groups=3),
        nn.ConvTranspose1d(3, 6, 3, groups=3),
        nn.Conv3d(3, 4, 2),
    ],
    ids=str,
)
def test_layers_under_vmap_are_torchs_layers_one_by_one(layer):
    rows = torch.randn(5, 3, *SIZES[2][: layer.weight.dim() - 2], *(4,) * (layer.weight.dim() - 4), dtype=torch.float64)
    layers = [type(layer)(*arguments_of(layer)).double() for _ in range(3)]
    parameters, buffers = stack_module_state(layers)

    def squares(state):
        return functional_call(layer.double(), state, (rows,)).square().mean()

    with StackKernels():
        found = vmap(grad(squares))({**parameters, **buffers})
    for member, each in enumerate(layers):
        wanted = torch.autograd.grad(each(rows).square().mean(), list(each.parameters()))
        for (name, _), value in zip(each.named_parameters(), wanted, strict=True):
            torch.testing.assert_close(found[name][member], value)


def arguments_of(layer):
    given = [layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding]
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d):
        return [*given, layer.output_padding, layer.groups]
    return [*given, layer.dilation, layer.groups, True, layer.padding_mode]


def test_what_is_in_groups_or_of_three_dimensions_stays_torchs():
    inputs, weight, bias = factors(2, False, 3, torch.float64)
    assert convolution(inputs, weight, bias, groups=3) is None
    assert transposed_convolution(inputs, weight, bias, groups=3) is None
    assert torch.conv3d not in OWN


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Linear(3, 4), True),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 4)), True),
        (nn.Sequential(nn.ConvTranspose1d(1, 2, 3), nn.Conv1d(1, 2, 1)), True),
        (nn.Conv2d(2, 2, 3, groups=2), False),
        (nn.Conv3d(1, 2, 3), False),
        (nn.ParameterList([torch.zeros(2, 2, 2)]), False),
    ],
    ids=str,
)
def test_a_model_is_all_products_where_every_weight_is_a_factor_of_one(model, expected):
    assert all_products(model) is expected


def small_case(activation, batch_size):
    def build():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1),
            activation(),
            nn.Flatten(),
            nn.Linear(80, 5),
            activation(),
            nn.Linear(5, 80),
            nn.Unflatten(1, (4, 4, 5)),
            nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1),
        )

    def losses(model, batch):
        return {"reconstruction": F.mse_loss(model(batch), batch)}

    rows = torch.randn(150, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    train = {"epochs": 1, "batch_size": batch_size, "learning_rate": 2e-3}
    return harness.Case(build, lambda: rows, losses, "3", train=train), rows


@pytest.mark.parametrize("batch_size", [22, 33, 7])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.ELU, nn.Sigmoid])
def test_a_convolutional_member_has_the_same_bits_in_any_stack(activation, batch_size):
    """As a function (steps 1 and 2) and as a list (from 3 on)."""
    case, rows = small_case(activation, batch_size)
    stacking = check_vmap_support(case, rows)
    assert (stacking.single, stacking.multiple) == (2, 8)
    found = []
    for size in (stacking.single, stacking.multiple, 32):
        stack = StackedEngine([case] * size, range(size), stacking.rule, rows)
        for step in range(8):
            orders = [
                torch.randperm(150, generator=torch.Generator().manual_seed(9 * seed + step)) for seed in range(size)
            ]
            stack.step(rows[torch.stack(orders)[:, :batch_size]])
        found.append({**stack.state_of(0), "code": stack.observe(rows[:33]).code[0]})
    for other in found[1:]:
        for name, value in found[0].items():
            assert torch.equal(value, other[name]), name


def test_windows_are_picked_as_slices_once_the_step_is_a_list():
    case, rows = small_case(nn.ReLU, 20)
    stack = StackedEngine([case] * 8, range(8), check_vmap_support(case, rows).rule, rows)
    for _ in range(3):
        stack.step(rows[:20].expand(8, 20, 3, 7, 9))
    (operations,) = stack._descent._lists.values()
    assert operations is not None
    code = operations.graph.code
    assert "index_select" in code
    assert "gather" not in code
    assert "convolution" not in code


def test_windows_that_leave_the_cache_stay_torchs_and_their_models_alone():
    def build():
        return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 1))

    def losses(model, batch):
        return {"reconstruction": F.mse_loss(model(batch), batch)}

    rows = torch.randn(64, 3, 32, 32)
    # 27 numbers in each window of the first, 3 of the second, at 1024 places
    for batch_size, shares in ((34, True), (35, False)):
        train = {"epochs": 1, "batch_size": batch_size, "learning_rate": 1e-3}
        case = harness.Case(build, lambda: rows, losses, "0", train=train)
        assert check_vmap_support(case, rows).shares is shares


@pytest.mark.parametrize(("bottleneck", "activation"), [("0", "elu"), ("3", "elu"), ("5", "none")])
def test_a_bottleneck_among_convolutions_is_seen_as_in_the_model_itself(bottleneck, activation):
    """What a convolution does inside, a padding or a view, is no part of the way from the bottleneck to its code."""
    case, rows = small_case(nn.ELU, 22)
    case = replace(case, bottleneck=bottleneck)
    seen = StackedEngine([case] * 2, range(2), check_vmap_support(case, rows).rule, rows).observe(rows[:20])
    for member in range(2):
        with torch.no_grad():
            wanted = observe(build_model(case, member, rows[:4]).eval(), rows[:20], bottleneck)
        assert seen.activation == wanted.activation == activation
        # float32: what is left is the order of additions
        torch.testing.assert_close(seen.code[member], wanted.code, rtol=1e-4, atol=1e-6)


def slopes_of(scalar, model):
    return torch.autograd.grad(scalar, [model[0].weight, model[7].weight], create_graph=True)


def test_a_loss_that_takes_gradients_inside_equals_a_plain_loop():
    def losses(model, batch):
        made = model(batch)
        slopes = torch.cat([each.flatten() for each in slopes_of(made.square().mean(), model)])
        return {"reconstruction": F.mse_loss(made, batch), "slope": slopes.square().mean()}

    case, rows = small_case(nn.Sigmoid, 22)
    case, rows = replace(case, losses=losses), rows.double()
    stack, alone = (
        StackedEngine([case] * 2, range(2), optimizer_spec(case, case.model()), rows),
        SequentialEngine([case] * 2, [0, 1], rows),
    )
    for start in range(0, 110, 22):  # as a function, and then as a list
        batch = rows[start : start + 22].expand(2, 22, 3, 7, 9)
        for engine in (stack, alone):
            engine.step(batch)
    for member in range(2):
        for name, value in alone.state_of(member).items():
            # float64 over a few steps: what is left is the order of additions
            torch.testing.assert_close(stack.state_of(member)[name], value, rtol=1e-6, atol=1e-9)
