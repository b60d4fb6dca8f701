"""How much of the data a reconstruction holds, beside what principal components would. `[*member, sample, feature]`."""

import math

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from harness.errors import HarnessError
from harness.measures.chunks import CHUNK
from harness.measures.constancy import is_constant
from harness.types import PerMember

Rows = Num[Tensor, "*member sample feature"]


def r2(reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"]) -> PerMember:
    """Share of the data's variance that the reconstruction explains, pooled over rows and features.

    Args:
        reconstruction: `[*member, sample, feature]`. inputs: the same, or `[sample, feature]` shared by all members.

    Returns:
        1 (exact), 0 (as good as the mean of these rows), below 0 (worse), `[*member]`; float64. NaN where the data do
        not vary. Pooled: the squares of all rows are summed first; a mean of the R2 of batches is another number.

    >>> r2(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [2.0]])).item()
    0.5
    """
    return r2_from_sse(sum_squared_error(reconstruction, inputs), inputs)


def sum_squared_error(reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"]) -> PerMember:
    """Squared differences, summed over rows and features, `[*member]`; float64. Those of parts of the rows add up.

    >>> sum_squared_error(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]])).item()
    5.0
    """
    if reconstruction.dim() > 2 and reconstruction.numel() > CHUNK:  # a member at a time, in bounded memory
        beside = inputs.expand(reconstruction.shape)
        return torch.stack([sum_squared_error(*each) for each in zip(reconstruction, beside, strict=True)])
    return (reconstruction.double() - inputs.double()).flatten(-2).square_().sum(dim=-1)


def r2_from_sse(missed: PerMember, inputs: Num[Tensor, "*#member sample feature"]) -> PerMember:
    """The `r2` of what misses so much of these inputs.

    >>> r2_from_sse(torch.tensor(0.5), torch.tensor([[0.0], [2.0]])).item()
    0.75
    """
    return 1 - missed / _or_nan(_scatter(inputs.double()))


def variance_ratio(reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"]) -> PerMember:
    """Variance of the reconstruction / variance of the data, summed over features: 0 is one output for every row.

    >>> variance_ratio(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [2.0]])).item()
    0.25
    """
    return _scatter(reconstruction.double()) / _or_nan(_scatter(inputs.double()))


def _scatter(values: Float[Tensor, "*member sample feature"]) -> Float[Tensor, "*member"]:
    return (values - values.mean(dim=-2, keepdim=True)).square().sum(dim=(-2, -1))


def _or_nan(scatter: Float[Tensor, "*member"]) -> Float[Tensor, "*member"]:
    return torch.where(scatter > 0, scatter, torch.full_like(scatter, torch.nan))


def constant_features(
    reconstruction: Rows, inputs: Num[Tensor, "*#member sample feature"]
) -> Bool[Tensor, "*member feature"]:
    """Features that the reconstruction holds constant while the data vary: what a ReLU on the output does to negatives.

    >>> constant_features(torch.tensor([[0.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 3.0], [2.0, 4.0]])).tolist()
    [True, False]
    """
    return is_constant(reconstruction) & ~is_constant(inputs)


def pca_r2(
    train_inputs: Num[Tensor, "sample feature"], evaluation_inputs: Num[Tensor, "row feature"], components: int
) -> Float[Tensor, "components"]:
    """R2 of reconstructions from 1, 2, ... principal components, fitted on the training rows.

    The level that a linear code of so many units reaches; a nonlinear one may beat it.

    Args:
        train_inputs, evaluation_inputs: `[sample, feature]`. components: how many, at least 1; more than there are
            features repeat the last value.

    Returns:
        `[components]`, each as `r2` on the evaluation rows, rising to 1 where all features are used.

    >>> rows = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> [round(each, 6) for each in pca_r2(rows, rows, 2).tolist()]
    [0.9, 1.0]

    Raises:
        HarnessError: for fewer than one component.
    """
    if components < 1:
        raise HarnessError(f"components: {components} was asked for; at least 1 is wanted")
    train, evaluation = _of_size_one(train_inputs.double(), evaluation_inputs.double())
    centre = train.mean(dim=0)
    away = evaluation - centre
    explained = (away @ _axes(train - centre)[:, :components]).square().sum(dim=0).cumsum(dim=0)
    found = 1 - (away.square().sum() - explained) / _or_nan(_scatter(evaluation))
    return torch.cat([found, found[-1:].expand(components - len(found))])


def _of_size_one(*values: Tensor) -> tuple[Tensor, ...]:
    """Several tensors over one power of two, so that no square of theirs is infinite and no digit is another."""
    largest = max((float(each.abs().max()) for each in values if each.numel()), default=0.0)
    exponent = min(max(math.frexp(largest)[1], -1000), 1000) if math.isfinite(largest) else 0
    return tuple(each * 2.0**-exponent for each in values)


def _axes(away: Float[Tensor, "sample feature"]) -> Float[Tensor, "feature component"]:
    if away.shape[0] < away.shape[1]:
        return torch.linalg.svd(away, full_matrices=False).Vh.mT
    return torch.linalg.eigh(away.mT @ away).eigenvectors.flip(-1)
