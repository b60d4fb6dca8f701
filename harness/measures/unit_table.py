"""Every measure of single units that the rules need, for all members at once and over chunks of units.

The public functions of `units`, `constancy` and `entropy` are views of the numbers computed here.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.measures.chunks import UNIT_CHUNK, chunks, unit_rows
from harness.measures.constancy import range_tolerance, rounding
from harness.measures.contingency import added
from harness.measures.position_groups import PositionGroups
from harness.measures.units import UnitMoments, fires, layer_size, saturated_share

Table = dict[str, NDArray[np.float64]]
BITS = float(np.log(2))  # nats in a bit
BOUNDED = ("sigmoid", "tanh")
BOUNDED_RESOLUTION = 1 / 64  # width of an entropy cell, of the bounded activations
CURVED = ("leaky_relu", "elu", "softplus", "gelu", "silu")  # functions that are flatter on one side than on the other
LAYER_SHARE = 32  # cells in a layer's root mean square, of every other activation


class Saturation(NamedTuple):
    """Definition of a saturated sigmoid unit: within `margin` of 0 or 1 on at least `share` of the rows."""

    margin: float
    share: float


class Arithmetic(NamedTuple):
    """Computation of the units, for the range test.

    Args:
        dtype: the precision of the model.
        scale: `[member, unit]`, size of the sum that made each unit; see `range_tolerance`.
        before: `[member, sample, unit]`, the sums.
    """

    dtype: torch.dtype
    scale: Tensor | None = None
    before: Tensor | None = None

    def of(self, chunk: slice) -> "Arithmetic":
        """Those of some units; the sums as lines `[member, unit, sample]`."""
        scale = None if self.scale is None else self.scale[..., chunk]
        before = None if scale is None or self.before is None else unit_rows(self.before, chunk)[0]
        return Arithmetic(self.dtype, scale, before)


def unit_table(
    activations: Tensor,
    activation: str,
    arithmetic: Arithmetic,
    saturation: Saturation,
    groups: PositionGroups | None = None,
) -> Table:
    """Moments, ranges, firing rows and saturation of every unit, `[member, unit]` each, in one pass over the rows.

    Args:
        activations: `[member, sample, unit]`. activation: its name.
        arithmetic: precision and sums. saturation: definition of a saturated sigmoid.
        groups: positions of the rows, within which `range_ratio` and `variation` are taken; None for one position.

    Returns:
        `finite` (0 or 1), `fired_rows`, the moments of `UnitMoments` (`power` is the root mean square), `minimum`,
        `maximum`, `tolerance`, `range_ratio` (range / tolerance; at most 1 is constant), `outside_ratio` (the same over
        the rows on which the unit does not fire), for a sigmoid `saturated`, `low_end`, `high_end` and
        `bimodal_margin`, and with groups `position_range` (the widest range at one position) and `position_only` (0 or 1:
        constant at every position, but not over all). A unit that is not finite has the numbers of a unit that is 0 everywhere.

    >>> layer = torch.tensor([[[1.0, 0.0], [3.0, 0.0]]])
    >>> table = unit_table(layer, "relu", Arithmetic(torch.float32), Saturation(0.001, 0.95))
    >>> table["mean"].tolist(), table["fired_rows"].tolist()
    ([[2.0, 0.0]], [[2.0, 0.0]])
    """
    table: Table = {}
    for chunk in chunks(tuple(activations.shape), UNIT_CHUNK):
        lines, finite = unit_rows(activations, chunk)
        own = arithmetic.of(chunk)
        part = _chunk_table(lines, finite, activation, own, saturation)
        if groups is not None:
            part |= _within_positions(part, lines, activation, own, groups)
        _fill(table, activations, chunk, part)
    return table


def _fill(table: Table, activations: Tensor, chunk: slice, part: Table) -> None:
    """Copy the columns of some units into those of all: small arrays that stay would leave holes between large ones."""
    for name, column in part.items():
        if name not in table:
            table[name] = np.empty((*activations.shape[:-2], activations.shape[-1]))
        table[name][..., chunk] = column


def _chunk_table(
    lines: Tensor, finite: Tensor, activation: str, arithmetic: Arithmetic, saturation: Saturation
) -> Table:
    """The measures of `[member, unit, sample]`."""
    # in the model's own precision: the float64 copy of float32's softplus(0) lies above log 2
    own = lines.to(arithmetic.dtype)
    on = fires(own, activation)
    table = {"finite": finite, "fired_rows": on.sum(-1), **_moments(lines)}
    table |= _range(lines, torch.ones_like(on), activation, arithmetic, "")
    table |= _range(lines, ~on, activation, arithmetic, "outside_")
    if activation == "sigmoid":
        table |= _saturation(own, saturation)
    return {name: column.double().numpy() for name, column in table.items()}


def _moments(lines: Tensor) -> dict[str, Tensor]:
    moments = UnitMoments(lines)
    return {
        "mean": moments.mean,
        "standard_deviation": moments.standard_deviation,
        "power": moments.root_mean_square,
        "variation": moments.variation,
        "kurtosis": moments.kurtosis,
        "energy_share": moments.energy_share,
    }


def _saturation(own: Tensor, saturation: Saturation) -> dict[str, Tensor]:
    """Saturation in the values' own precision; `bimodal_margin` is the least margin that makes a unit bimodal."""
    within = torch.minimum(own, 1 - own).double()
    enough = max(1, math.ceil(saturation.share * own.shape[-1] - 1e-9))
    both = torch.maximum(own.amin(-1), 1 - own.amax(-1)).double()
    return {
        "saturated": saturated_share(own.mT, saturation.margin),
        "low_end": (own <= saturation.margin).any(-1),
        "high_end": (own >= 1 - saturation.margin).any(-1),
        "bimodal_margin": torch.maximum(both, within.kthvalue(enough, dim=-1).values),
    }


def scale_of(
    activation: str, scale: Tensor | None, values: Tensor | None = None, dtype: torch.dtype = torch.float32
) -> Tensor | None:
    """The scale of the range test of a unit's output, from the scale of the sum before its activation function.

    A sigmoid or tanh passes the rounding of its sum on, times its slope: at most that at the value nearest to the middle.
    A sigmoid's sum is at least as large as its own logit. The other functions count with a slope of 1.

    A sigmoid is 1 wide: saturated at 0 it is as constant as saturated at 1, where rounding hides the difference. So its
    scale is at least 1, in 16 bits at least what stands for the same tolerance as in float32.

    Args:
        activation: its name. scale: `[*member, unit]`, of the sum.
        values: `[*member, sample, unit]`, of which the extremes count. Without them: the largest slope.
        dtype: the precision that the model computed in.

    >>> zero, half = torch.tensor([[0.0]]), torch.tensor([[0.5]])
    >>> [float(scale_of("sigmoid", torch.tensor([8.0]), values)) for values in (zero, half)]
    [1.0, 2.0]
    >>> float(scale_of("relu", torch.tensor(0.5)))
    0.5
    """
    if activation not in BOUNDED:
        return scale
    middle = torch.tensor(0.5 if activation == "sigmoid" else 0.0, dtype=torch.float64)
    nearest = middle if values is None else middle.clamp(values.amin(-2).double(), values.amax(-2).double())
    if activation == "tanh":
        return None if scale is None else scale * (1 - nearest.square())
    logit = torch.logit(nearest, eps=1e-16).abs()
    size = logit if scale is None else torch.maximum(logit, scale.double())
    least = min(1.0, rounding(torch.float32) / rounding(dtype))
    return (size * nearest * (1 - nearest)).clamp_min(least)


def _range(lines: Tensor, rows: Tensor, activation: str, arithmetic: Arithmetic, prefix: str) -> dict[str, Tensor]:
    """Range / tolerance over some rows of each line; 0 where there is no such row."""
    low = torch.where(rows, lines, torch.inf).amin(-1)
    high = torch.where(rows, lines, -torch.inf).amax(-1)
    some = rows.any(-1)
    low, high = torch.where(some, low, 0.0), torch.where(some, high, 0.0)
    ends = torch.stack([low, high], -2)
    scale = scale_of(activation, arithmetic.scale, ends, arithmetic.dtype)
    tolerance = range_tolerance(ends, dtype=arithmetic.dtype, scale=scale)
    least = range_tolerance(ends, dtype=arithmetic.dtype)
    doubtful = (high - low > least) & (high - low <= tolerance)
    if activation in CURVED and arithmetic.before is not None and doubtful.any():
        sums, error = _sums(arithmetic, rows)
        passed = passed_on(sums[doubtful], torch.where(rows, lines, high[..., None])[doubtful], error[doubtful])
        tolerance[doubtful] = torch.maximum(least[doubtful], passed)
    ratio = torch.where(high > low, (high - low) / tolerance.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    if prefix:
        return {f"{prefix}ratio": ratio}
    return {"range_ratio": ratio, "minimum": low, "maximum": high, "tolerance": tolerance}


def _sums(arithmetic: Arithmetic, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of some rows of each line, infinite on the others, and the difference that rounding explains."""
    assert arithmetic.before is not None
    counted = torch.where(rows, arithmetic.before, 0.0).mT
    error = range_tolerance(counted, dtype=arithmetic.dtype, scale=arithmetic.scale)
    return torch.where(rows, arithmetic.before, torch.inf), error


def passed_on(sums: Tensor, values: Tensor, error: Tensor) -> Tensor:
    """Difference of values that an error of their sums explains, `[unit]`: the largest of two whose sums are so near.

    Where all sums are, the range of the values: a function with a minimum may have equal ends.

    Args:
        sums, values: `[unit, sample]`, before and behind an activation function; an infinite sum does not count.
        error: `[unit]`.

    >>> passed_on(torch.tensor([[-3.0, -1.0, 0.0]]), torch.tensor([[-1.0, -0.5, 0.0]]), torch.tensor([2.5])).item()
    0.5
    """
    sums, order = sums.sort(dim=-1)
    values = values.gather(-1, order)
    last = torch.searchsorted(sums, sums + error[..., None], right=True) - 1
    pairs = (values.gather(-1, last) - values).abs().amax(-1)
    width = torch.where(sums.isfinite(), sums, -torch.inf).amax(-1) - sums[..., 0]
    return torch.where(width <= error, values.amax(-1) - values.amin(-1), pairs)


def _within_positions(
    part: Table, lines: Tensor, activation: str, arithmetic: Arithmetic, groups: PositionGroups
) -> Table:
    """Range, spread and constancy of `[member, unit, sample]` within the positions of the rows."""
    ratio, widest = _position_range(lines, activation, arithmetic, groups)
    return {
        "range_ratio": ratio,
        "position_range": widest,
        "position_only": ((part["range_ratio"] > 1) & (ratio <= 1)).astype(np.float64),
        "variation": groups.variation(lines).numpy(),
    }


def _position_range(
    lines: Tensor, activation: str, arithmetic: Arithmetic, groups: PositionGroups
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest range / tolerance of `[member, unit, sample]` at one position, and the widest range at one."""
    low, high = groups.ends(lines)
    ends = torch.stack([low.flatten(-2), high.flatten(-2)], -2)
    scale = None if arithmetic.scale is None else arithmetic.scale.repeat_interleave(low.shape[-1], -1)
    scale = scale_of(activation, scale, ends, arithmetic.dtype)
    tolerance = range_tolerance(ends, dtype=arithmetic.dtype, scale=scale).unflatten(-1, low.shape[-2:])
    ratio = (high - low) / tolerance.clamp_min(torch.finfo(torch.float64).tiny)
    return ratio.amax(-1).numpy(), (high - low).amax(-1).numpy()


def range_ratios(activations: Tensor, dtype: torch.dtype, groups: PositionGroups | None = None) -> NDArray[np.float64]:
    """Range / tolerance of each unit, `[member, unit]`; at most 1 is constant, infinite is not finite.

    Args:
        activations: `[member, sample, unit]`. dtype: the precision of the model.
        groups: positions of the rows; the largest ratio at one of them counts.

    >>> range_ratios(torch.tensor([[[1.0, 2.0], [1.0, torch.inf]]]), torch.float32).tolist()
    [[0.0, inf]]
    """
    table: Table = {}
    for chunk in chunks(tuple(activations.shape), UNIT_CHUNK):
        lines, finite = unit_rows(activations, chunk)
        if groups is None:
            everywhere = torch.ones_like(lines, dtype=torch.bool)
            ratio = _range(lines, everywhere, "none", Arithmetic(dtype), "")["range_ratio"].numpy()
        else:
            ratio = _position_range(lines, "none", Arithmetic(dtype), groups)[0]
        _fill(table, activations, chunk, {"ratio": np.where(finite.numpy(), ratio, np.inf)})
    return table["ratio"]


def entropy_table(
    activations: Tensor, finite: NDArray[np.float64], power: NDArray[np.float64], activation: str
) -> Table:
    """`[member, unit]` of `entropy_bits`, its standard error `entropy_error`, the `resolution` D, and `layer_rms`.

    H(floor(z / D + 1/2)) in bits, Miller-Madow corrected, with D = 1/64 for sigmoid and tanh, layer RMS / 32 otherwise
    (0 for a layer that is 0 everywhere, whose rows share one cell).

    Args:
        activations: `[member, sample, unit]`. activation: its name.
        finite, power: columns of `unit_table`.
    """
    rms = layer_size(power, finite > 0)[..., None]
    step = resolution_of(rms, activation)
    table: Table = {}
    for chunk in chunks(tuple(activations.shape), UNIT_CHUNK):
        lines, _ = unit_rows(activations, chunk)
        _fill(table, activations, chunk, _entropy(lines, torch.from_numpy(step)))
    wide = {"resolution": np.broadcast_to(step, power.shape), "layer_rms": np.broadcast_to(rms, power.shape)}
    return table | wide


def resolution_of(rms: NDArray[np.float64], activation: str) -> NDArray[np.float64]:
    """Width of an entropy cell from the layer's root mean square: 1/64 for sigmoid and tanh, else RMS / 32.

    >>> resolution_of(np.array([4.0]), "relu").tolist()
    [0.125]
    """
    return np.full_like(rms, BOUNDED_RESOLUTION) if activation in BOUNDED else rms / LAYER_SHARE


def _entropy(lines: Tensor, step: Tensor) -> Table:
    rows = lines.shape[-1]
    counts = cell_counts(torch.where(step[..., None] > 0, torch.floor(lines / step[..., None] + 0.5), 0.0))
    share = counts / rows
    surprise = -torch.log(torch.where(share > 0, share, 1.0))
    entropy = _sum_in_order(share * surprise)
    error = (_sum_in_order(share * surprise.square()) - entropy.square()).clamp_min(0).sqrt() / rows**0.5
    corrected = entropy + ((counts > 0).sum(-1).double() - 1) / (2 * rows)
    return {"entropy_bits": (corrected / BITS).numpy(), "entropy_error": (error / BITS).numpy()}


def _sum_in_order(terms: Tensor) -> Tensor:
    """Sum along the cells, term after term: the number of empty cells depends on the other members."""
    return torch.from_numpy(added(terms.numpy()))


def cell_counts(cells: Tensor) -> Tensor:
    """Number of rows of `[member, unit, sample]` in each cell, `[member, unit, cell]`; 0 for an empty cell.

    >>> cell_counts(torch.tensor([[[7.0, 9.0, 7.0]]])).tolist()
    [[[2.0, 0.0, 1.0]]]
    """
    members, units, rows = cells.shape
    number = cells - cells.amin(-1, keepdim=True)
    width = number.amax() + 1
    if not width <= rows:  # far outliers (or overflow, NaN): numbered in order instead of counted from the smallest
        ordered = number.sort(dim=-1).values
        number = torch.zeros_like(number)
        number[..., 1:] = (ordered[..., 1:] != ordered[..., :-1]).cumsum(-1)
        width = number.amax() + 1
    first = torch.arange(members * units).reshape(members, units, 1) * int(width)
    counts = torch.bincount((number.long() + first).flatten(), minlength=members * units * int(width))
    return counts.reshape(members, units, int(width)).double()
