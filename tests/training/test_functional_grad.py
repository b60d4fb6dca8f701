"""A member's gradient is torch's own."""

import pytest
import torch
from torch.func import grad_and_value, jacrev, vmap

from harness.training.functional_grad import gradient_and_value, gradients_of


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(parameters, rows):
    made = torch.tanh(rows @ parameters["weight"]) + parameters["bias"]
    with torch.no_grad():
        share = (made > 0).float().mean()
    return ((made - rows) ** 2).mean() + made.detach().sum() * share, {"made": made, "share": share}


def inert(parameters, rows):
    return rows.sum(), {}


def of_a_gradient(parameters, rows):
    """A penalty on the slope of the code, which the loss takes itself."""
    slope = torch.func.grad(lambda x: torch.tanh(x @ parameters["weight"]).sum())(rows)
    return slope.pow(2).sum() + parameters["bias"].sum(), {}


@pytest.mark.parametrize("function", [fitted, inert, of_a_gradient])
def test_gradients_of_members_are_those_of_torch_bit_for_bit(function):
    parameters = {"weight": numbers(3, 4, 4), "bias": numbers(3, 4, seed=1), "unused": numbers(3, 2, seed=2)}
    rows = numbers(3, 8, 4, seed=3)
    found = vmap(gradient_and_value(function))(parameters, rows)
    wanted = vmap(grad_and_value(function, has_aux=True))(parameters, rows)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_gradients_of_several_terms_are_the_jacobian():
    def terms(x):
        return {"size": x.pow(2).sum(), "first": x[0].exp(), "none": torch.ones(())}

    points = numbers(3, 5)
    found = {name: at for name, (at,) in vmap(gradients_of(lambda x: (terms(x), [x])))(points).items()}
    torch.testing.assert_close(found, vmap(jacrev(terms))(points), rtol=0, atol=0)


def test_gradients_at_what_is_met_on_the_way_are_those_of_the_way_from_there():
    def bent(x):
        met = torch.tanh(x)
        return {"size": met.pow(2).sum() + met.detach().sum()}, [met]

    points = numbers(3, 5)
    (found,) = vmap(gradients_of(bent))(points)["size"]
    torch.testing.assert_close(found, 2 * torch.tanh(points))


def test_a_loss_that_is_no_scalar_is_refused():
    with pytest.raises(RuntimeError, match="scalar"):
        gradient_and_value(lambda p: (p["a"] * 2, {}))({"a": numbers(3)})
