"""Share of the data that a reconstruction explains, beside that of principal components. `[*member, sample, feature]`."""

import math

import torch
from jaxtyping import Bool, Float, Num
from scipy.special import ndtri
from torch import Tensor

from harness.errors import HarnessError
from harness.measures.chunks import CHUNK
from harness.measures.constancy import is_constant
from harness.measures.dimensionality import of_size_one
from harness.types import PerMember

Rows = Num[Tensor, "*member sample feature"]


def r2(reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"]) -> PerMember:
    """Share of the data's variance that the reconstruction explains, pooled over rows and features.

    Args:
        reconstruction: `[*member, sample, feature]`. inputs: the same, or `[sample, feature]` shared by all members.

    Returns:
        1 (exact), 0 (as good as the mean of these rows), below 0 (worse), `[*member]`; float64. NaN where the data do
        not vary. Pooled: the squares of all rows are summed first; a mean of the R2 of batches is another number. The
        same at every scale: data of 1e200 and of 1e-200 have the R2 of the same data at 1.

    >>> r2(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [2.0]])).item()
    0.5
    """
    inputs, size = of_size_one(inputs.double())
    return r2_from_sse(sum_squared_error(reconstruction, inputs, size), inputs)


def r2_interval(
    reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"], level: float = 0.95
) -> tuple[PerMember, PerMember]:
    """Interval of `r2` over rows, by the delta method for a ratio of means, `[*member]` each.

    Args:
        reconstruction, inputs: those of `r2`. level: coverage, in (0, 1).

    Returns:
        Lower and upper bound; the upper one is at most 1, which R2 cannot exceed. NaN where the data do not vary.

    >>> inputs = torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])
    >>> low, high = r2_interval(inputs * 0.5, inputs)
    >>> low.item(), high.item()
    (0.75, 0.75)

    Source: Cochran 1977, Sampling Techniques, chapter 6, for the variance of a ratio.
    """
    inputs, size = of_size_one(inputs.double())
    error = ((reconstruction.double() / size) - inputs).square().sum(dim=-1)
    squares = (inputs - inputs.mean(dim=-2, keepdim=True)).square().sum(dim=-1)
    total = _or_nan(squares.sum(dim=-1))
    unexplained = error.sum(dim=-1) / total
    spread = (error - unexplained[..., None] * squares).square().sum(dim=-1).sqrt() / total
    margin = float(ndtri(0.5 + level / 2)) * spread
    return 1 - unexplained - margin, (1 - unexplained + margin).clamp(max=1.0)


def sum_squared_error(
    reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"], size: Tensor | float = 1.0
) -> PerMember:
    """Squared differences, summed over rows and features, `[*member]`; float64. Those of parts of the rows add up.

    Args:
        reconstruction, inputs: those of `r2`.
        size: divides the reconstruction; a power of two in whose unit the inputs are.

    >>> sum_squared_error(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])).item()
    5.0
    """
    if reconstruction.dim() > 2 and reconstruction.numel() > CHUNK:  # a member at a time, in bounded memory
        beside = inputs.expand(reconstruction.shape)
        sizes = torch.as_tensor(size).expand(*reconstruction.shape[:-2], 1, 1)
        parts = zip(reconstruction, beside, sizes, strict=True)
        return torch.stack([sum_squared_error(*part) for part in parts])
    return (reconstruction.double() / size - inputs.double()).flatten(-2).square_().sum(dim=-1)


def r2_from_sse(missed: PerMember, inputs: Num[Tensor, "*#member sample feature"]) -> PerMember:
    """`r2` from the sum of squared errors on these inputs.

    >>> r2_from_sse(torch.tensor(0.5), torch.tensor([[0.0], [2.0]])).item()
    0.75
    """
    return 1 - missed / _or_nan(_scatter(inputs.double()))


def variance_ratio(reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"]) -> PerMember:
    """Variance of the reconstruction / variance of the data, summed over features: 0 is one output for every row.

    >>> variance_ratio(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [2.0]])).item()
    0.25
    """
    inputs, size = of_size_one(inputs.double())
    return _scatter(reconstruction.double() / size) / _or_nan(_scatter(inputs))


def _scatter(values: Float[Tensor, "*member sample feature"]) -> Float[Tensor, "*member"]:
    return (values - values.mean(dim=-2, keepdim=True)).square().sum(dim=(-2, -1))


def _or_nan(scatter: Float[Tensor, "*member"]) -> Float[Tensor, "*member"]:
    return torch.where(scatter > 0, scatter, torch.full_like(scatter, torch.nan))


def constant_features(
    reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"]
) -> Bool[Tensor, "*member feature"]:
    """Features that are constant in the reconstruction while the data vary: the effect of a ReLU on negative features.

    >>> constant_features(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 3.0], [2.0, 4.0]])).tolist()
    [True, False]
    """
    return is_constant(reconstruction) & ~is_constant(inputs)


def pca_r2(
    train_inputs: Num[Tensor, "sample feature"], evaluation_inputs: Num[Tensor, "row feature"], components: int
) -> Float[Tensor, "components"]:
    """R2 of reconstructions from 1, 2, ... principal components, fitted on the training rows.

    The level that a linear code of as many units reaches; a nonlinear one may beat it.

    Args:
        train_inputs, evaluation_inputs: `[sample, feature]`. components: their number, at least 1; more than there
            are features repeat the last value.

    Returns:
        `[components]`, each as `r2` on the evaluation rows, rising to 1 where all features are used.

    >>> rows = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> [round(share, 6) for share in pca_r2(rows, rows, 2).tolist()]
    [0.9, 1.0]

    Raises:
        HarnessError: for fewer than one component.
    """
    if components < 1:
        raise HarnessError(f"components: expected at least 1, got {components}")
    train, evaluation = _on_one_scale(train_inputs.double(), evaluation_inputs.double())
    center = train.mean(dim=0)
    away = evaluation - center
    explained = (away @ _axes(train - center)[:, :components]).square().sum(dim=0).cumsum(dim=0)
    shares = 1 - (away.square().sum() - explained) / _or_nan(_scatter(evaluation))
    return torch.cat([shares, shares[-1:].expand(components - len(shares))])


def _on_one_scale(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Several tensors over one power of two, so that no square is infinite and no digit changes."""
    largest = max((float(tensor.abs().max()) for tensor in tensors if tensor.numel()), default=0.0)
    exponent = min(max(math.frexp(largest)[1], -1000), 1000) if math.isfinite(largest) else 0
    return tuple(tensor * 2.0**-exponent for tensor in tensors)


def _axes(away: Float[Tensor, "sample feature"]) -> Float[Tensor, "feature component"]:
    if away.shape[0] < away.shape[1]:
        return torch.linalg.svd(away, full_matrices=False).Vh.mT
    return torch.linalg.eigh(away.mT @ away).eigenvectors.flip(-1)
