"""The KL of a mean sigmoid, from its logits, against arithmetic of 60 digits."""

import math

import mpmath
import pytest
import torch
from torch.func import grad, vmap

from harness.errors import HarnessError
from harness.penalties import bernoulli_kl, bernoulli_kl_of_logits

mpmath.mp.dps = 60
NORMAL = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LOGITS = {
    "moderate": NORMAL,
    "spread": 20 * NORMAL,
    "both ends": 1e4 * NORMAL.sign(),
    "on, on every row": torch.full((9, 3), 20.0),
    "far on": torch.full((9, 3), 1e4),
    "far off": torch.full((9, 3), -1e4),
    "a ReLU's": torch.relu(30 * NORMAL),
    "one row": 50 * NORMAL[:1],
    "far on, one row": torch.full((1, 3), 1e4),
}


def in_60_digits(rho, logits):
    """The divergence and its gradient from the definition, one unit after the other."""
    rho, rows, total = mpmath.mpf(rho), len(logits), mpmath.mpf(0)
    slopes = torch.zeros(logits.shape, dtype=torch.float64)
    for unit in range(logits.shape[1]):
        column = [mpmath.mpf(value) for value in logits[:, unit].tolist()]
        on, off = ([1 / (1 + mpmath.exp(sign * value)) for value in column] for sign in (-1, 1))
        mean, complement = sum(on) / rows, sum(off) / rows
        total += rho * mpmath.log(rho / mean)
        total += (1 - rho) * mpmath.log((1 - rho) / complement) if rho < 1 else 0
        for row in range(rows):
            slopes[row, unit] = float(((1 - rho) / complement - rho / mean) * on[row] * off[row] / rows)
    return float(total), slopes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rho", [0.05, 0.5, 1e-6, 1e-12, 1 - 1e-4, 1 - 1e-12])
@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS)
def test_value_and_gradient_are_those_of_exact_arithmetic(logits, rho, dtype):
    logits = logits.to(dtype).requires_grad_()
    term = bernoulli_kl_of_logits(rho, logits)
    (slope,) = torch.autograd.grad(term, logits)
    held = torch.tensor(rho, dtype=term.dtype).item()  # rho as the precision holds it
    value, slopes = in_60_digits(held, logits.detach())
    assert term.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # a few roundings of numbers up to the largest logit, or of logarithms up to 30
    precision = torch.finfo(term.dtype).eps
    assert term.item() == pytest.approx(value, rel=8 * precision, abs=60 * precision)
    # a gradient, at most 1, is a difference of two such numbers, and is rounded to the logits' own precision
    own = torch.finfo(dtype)
    torch.testing.assert_close(slope.double(), slopes, rtol=64 * own.eps, atol=max(own.tiny, precision))


def test_four_codes_of_20_have_the_value_and_the_gradient_of_the_closed_form():
    logits = torch.full((64, 4), 20.0, requires_grad=True)
    term = bernoulli_kl_of_logits(0.05, logits)
    assert round(term.item(), 4) == 75.2059
    # d/da of (1 - rho) log(1 / (1 - sigmoid)) is (1 - rho) sigmoid, shared by the 64 rows
    (slope,) = torch.autograd.grad(term, logits)
    torch.testing.assert_close(slope, torch.full((64, 4), 0.95 / 64))
    naive = bernoulli_kl(0.05, torch.sigmoid(logits).mean(-2))
    assert naive.item() == math.inf


def test_the_gradient_is_that_of_the_naive_form_where_that_is_accurate():
    logits = (3 * NORMAL).requires_grad_()
    (exact,) = torch.autograd.grad(bernoulli_kl_of_logits(0.05, logits), logits)
    (naive,) = torch.autograd.grad(bernoulli_kl(0.05, torch.sigmoid(logits).mean(-2)), logits)
    torch.testing.assert_close(exact, naive, rtol=1e-12, atol=1e-15)


def test_in_float32_the_naive_form_has_twice_the_gradient_at_16():
    logits = torch.full((64, 1), 16.0, requires_grad=True)
    (naive,) = torch.autograd.grad(bernoulli_kl(0.05, torch.sigmoid(logits).mean(-2)), logits)
    (exact,) = torch.autograd.grad(bernoulli_kl_of_logits(0.05, logits), logits)
    assert exact[0, 0].item() == pytest.approx(0.95 / 64, rel=1e-5)
    assert naive[0, 0].item() != pytest.approx(0.95 / 64, rel=0.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("value", [100.0, 1e4, -1e4, 0.0])
def test_a_mean_over_many_rows_does_not_overflow(dtype, value):
    # 100,000 rows: their number alone is above the largest float16, 65,504
    logits = torch.full((100_000, 2), value, dtype=dtype)
    expected = in_60_digits(float(torch.tensor(0.05)), logits[:1].double())[0]
    assert bernoulli_kl_of_logits(0.05, logits).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("column", "mean"),
    [
        ([torch.inf, 1.0], (1 + 1 / (1 + math.exp(-1))) / 2),
        ([-torch.inf, 2.0], 1 / (1 + math.exp(-2)) / 2),
        ([-torch.inf, torch.inf, 0.0], 0.5),
    ],
)
def test_a_row_at_infinity_counts_as_fully_on_or_off_and_pulls_no_other(column, mean):
    logits = torch.tensor(column)[:, None].requires_grad_()
    term = bernoulli_kl_of_logits(0.05, logits)
    assert term.item() == pytest.approx(kl_divergence_of(mean), rel=1e-5)
    (slope,) = torch.autograd.grad(term, logits)
    last = torch.sigmoid(logits[-1, 0]).item()
    assert slope[:-1, 0].tolist() == [0.0] * (len(column) - 1)
    expected = (0.95 / (1 - mean) - 0.05 / mean) * last * (1 - last) / len(column)
    assert slope[-1, 0].item() == pytest.approx(expected, rel=1e-4, abs=1e-7)


def kl_divergence_of(mean):
    return 0.05 * math.log(0.05 / mean) + 0.95 * math.log(0.95 / (1 - mean))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf])
def test_only_a_unit_that_is_infinite_on_every_row_has_an_infinite_divergence(value):
    assert bernoulli_kl_of_logits(0.05, torch.full((5, 1), value)).item() == math.inf
    assert math.isnan(bernoulli_kl_of_logits(0.05, torch.tensor([[0.0], [torch.nan]])).item())


@pytest.mark.parametrize("units", [1, 4])
def test_a_stack_with_a_rho_for_each_member_is_its_members_alone(units):
    logits = 30 * torch.randn(5, 64, units, generator=torch.Generator().manual_seed(3))
    rhos = torch.tensor([0.05, 0.1, 0.5, 1e-6, 0.9])
    stacked = vmap(grad(lambda rows, rho: bernoulli_kl_of_logits(rho, rows)))(logits, rhos)
    alone = torch.stack(
        [
            grad(lambda rows, rho=rho: bernoulli_kl_of_logits(float(rho), rows))(each)
            for each, rho in zip(logits, rhos, strict=True)
        ]
    )
    torch.testing.assert_close(stacked, alone, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(
        bernoulli_kl_of_logits(rhos[:, None], logits),
        torch.stack([bernoulli_kl_of_logits(rho, each) for each, rho in zip(logits, rhos, strict=True)]),
    )


@pytest.mark.parametrize("shape", [(4,), (0, 4), (3, 0, 4), ()])
def test_logits_without_a_row_are_refused(shape):
    with pytest.raises(HarnessError, match=r"bernoulli_kl_of_logits: expected logits of shape .* got \["):
        bernoulli_kl_of_logits(0.05, torch.zeros(shape))
