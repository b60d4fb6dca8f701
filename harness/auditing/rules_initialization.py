"""Rules on a model that has not been trained yet: units that are alike, units that are dead, and inputs that make them so."""

import math

import torch
from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.findings import make_finding
from harness.auditing.isolation import isolated, preserved_rng
from harness.auditing.recorder import layers_of
from harness.capture import BottleneckTap, eval_mode
from harness.case import Case
from harness.diagnosis.finding import Finding
from harness.models import accumulation_dtype, cast_floats
from harness.user_code import guarded

FIRES_ABOVE = ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")


def symmetric_init(case: Case, models: list[nn.Module], rows: Tensor) -> list[Finding]:
    """Units that are identical at every initialisation."""
    common: dict[str, int] | None = None
    for seed, model in enumerate(models):
        found = _identical(case, model, rows[:64], seed)
        common = (
            found
            if common is None
            else {name: min(count, found[name]) for name, count in common.items() if name in found}
        )
    if not common:
        return []
    named = ", ".join(f"{count} units of {name}" for name, count in common.items())
    return [
        make_finding(
            "symmetric_init",
            None,
            f"{named} equal another unit of their layer on every row, at each of {len(models)} initialisations",
            "units that start alike and are read alike get the same gradient and stay copies of one another",
            "start from random weights (torch.nn.init.kaiming_uniform_)",
            {name: float(count) for name, count in common.items()},
        )
    ]


def _identical(case: Case, model: nn.Module, rows: Tensor, seed: int) -> dict[str, int]:
    """Layer -> how many of its units equal another, counted as the layer returns, before an activation writes to it."""
    layers, copies = layers_of(model), dict[str, int]()
    bottleneck = case.bottleneck

    def count(name: str, output: object) -> None:
        copies.pop(name, None)  # of a layer that is called again, the last call
        copies[name] = _copied(model, name, output, keep_zero=name == bottleneck)

    handles = [m.register_forward_hook(lambda _, __, o, n=name: count(n, o)) for m, name in layers.items()]
    try:
        with guarded(), isolated(model, torch.float64), preserved_rng(seed), eval_mode(model), torch.no_grad():
            model(cast_floats(rows, torch.float64).clone())
    except Exception:  # float64 is not for every model
        return {}
    finally:
        for handle in handles:
            handle.remove()
    last = list(copies)[-1] if copies else ""
    return {name: copied for name, copied in copies.items() if copied and (name != last or name == bottleneck)}


def _copied(model: nn.Module, name: str, output: object, keep_zero: bool) -> int:
    if not isinstance(output, Tensor) or output.dim() < 2:
        return 0
    convolution = type(model.get_submodule(name)).__name__.startswith("Conv")
    axis = 1 if output.dim() == 2 or convolution else -1
    return _copies(output.movedim(axis, -1).reshape(-1, output.shape[axis]), keep_zero)


def _copies(columns: Tensor, keep_zero: bool) -> int:
    """How many columns equal one before them.

    A unit that is off on every row is dead, and no copy of another dead one. A layer that is all zero (a residual's
    last) counts only where it is asked for.
    """
    used = columns[:, (columns != 0).any(0)]
    columns = columns if keep_zero and not used.shape[1] else used
    if columns.shape[1] < 2:
        return 0
    # equal columns have equal sums under any weights; only those are compared in full
    key = torch.randn(len(columns), generator=torch.Generator().manual_seed(0), dtype=columns.dtype) @ columns
    order = key.argsort()
    near = (columns[:, order[1:]] - columns[:, order[:-1]]).abs().amax(0)
    return int((near <= 1e-12 * columns.abs().max().clamp(min=1e-300)).sum())


def dead_at_birth(case: Case, models: list[nn.Module], rows: Tensor, bounds: AuditThresholds) -> list[Finding]:
    """Units of the bottleneck that never fire on the data at initialisation."""
    shares = [share for model in models if (share := _dead(case, model, rows)[0]) is not None]
    if len(shares) < 1 or sum(shares) / len(shares) <= bounds.dead_share:
        return []
    mean, low, high = _interval(shares)
    return [
        make_finding(
            "dead_at_birth",
            None,
            f"{mean:.0%} [{low:.0%}, {high:.0%}] of the units of {case.bottleneck} never fire on {len(rows)} rows at"
            f" initialisation, over {len(shares)} seeds ({', '.join(f'{each:.0%}' for each in shares)})",
            "such a unit has no gradient from the first step on; whether it wakes is left to the layers before it",
            "zero biases, centred inputs, a normalisation before the activation, or leaky_relu",
            {"share": mean, "low": low, "high": high, "seeds": float(len(shares))},
        )
    ]


def _interval(shares: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over seeds, inside 0 to 1; one seed claims nothing."""
    mean = sum(shares) / len(shares)
    if len(shares) < 2:
        return mean, 0.0, 1.0
    from scipy.special import stdtrit

    deviation = math.sqrt(sum((each - mean) ** 2 for each in shares) / (len(shares) - 1))
    half = float(stdtrit(len(shares) - 1, 0.975)) * deviation / math.sqrt(len(shares))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def _dead(case: Case, model: nn.Module, rows: Tensor) -> tuple[float | None, float | None]:
    """Share of the bottleneck's units, and of all ReLU units met, that never fire; None where nothing can be off."""
    with (
        isolated(model),
        BottleneckTap(model, case.bottleneck) as tap,
        eval_mode(model),
        torch.no_grad(),
        preserved_rng(0),
    ):
        model(rows.clone())
    seen = tap.passes[0]
    code, dead = None, []
    for met in seen.activations:
        if met.name in FIRES_ABOVE and met.entered.dim() >= 2 and len(met.entered) == len(rows):
            share = float((~(met.entered.reshape(len(rows), -1) > 0).any(0)).float().mean())
            code = share if met.is_code else code
            dead.append(share)
    return code, (sum(dead) / len(dead) if dead else None)


def input_offset(case: Case, models: list[nn.Module], rows: Tensor, bounds: AuditThresholds) -> list[Finding]:
    """Inputs whose mean is so large against their spread that units are dead for it; centring removes it."""
    if not rows.is_floating_point():
        return []  # tokens have no mean
    flat = rows.reshape(len(rows), -1).to(accumulation_dtype(rows.dtype))
    ratio = float(flat.mean(0).norm() / flat.std(0).norm().clamp(min=1e-30))
    if ratio <= bounds.offset:
        return []
    given = [share for model in models if (share := _dead(case, model, rows)[1]) is not None]
    centred = [share for model in models if (share := _dead(case, model, rows - rows.mean(0))[1]) is not None]
    if not given or sum(given) / len(given) - sum(centred) / len(centred) <= bounds.offset_dead:
        return []
    as_given, once_centred = sum(given) / len(given), sum(centred) / len(centred)
    return [
        make_finding(
            "input_offset",
            None,
            f"||mean|| / ||sd|| of the inputs is {ratio:.2f}; {as_given:.1%} of all ReLU units never fire at initialisation,"
            f" {once_centred:.1%} once the inputs are centred",
            "the common offset decides the sign of every pre-activation: units are on, or off, for all rows",
            "subtract the training rows' mean from the inputs",
            {"ratio": ratio, "dead": as_given, "dead_centred": once_centred},
        )
    ]
