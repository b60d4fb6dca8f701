"""Rules on the untrained model: identical units, dead units, and inputs that make units dead."""

import math

import torch
from torch import Tensor, nn

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import Undecided
from harness.auditing.findings import make_finding
from harness.auditing.gradient_ratios import ProbeLoop
from harness.auditing.isolation import bottleneck_pass, isolated, preserved_rng
from harness.auditing.loss_state import preserved_loss
from harness.auditing.recorder import layers_of
from harness.capture import ForwardPass, eval_mode, flatten_units
from harness.capture.code_form import CodeForm, layer_before_code
from harness.case import Case
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity
from harness.diagnosis.unit_rules import rows_to_claim
from harness.measures.units import RELU_FAMILY
from harness.models import accumulation_dtype, cast_floats
from harness.text import plural
from harness.user_code import guarded

SYMMETRIC_STEPS = 5  # after which units that feed different weights differ
DEAD_BELOW = {"relu": 0.0, "gelu": -6.0, "silu": -20.0}  # pre-activations with zero or vanishing gradient


def symmetric_init(case: Case, models: list[nn.Module], rows: Tensor) -> list[Finding]:
    """Find units that are identical at every initialization."""
    common: dict[str, int] | None = None
    for seed, model in enumerate(models):
        counts = _identical(case, model, rows[:64], seed)
        common = (
            counts
            if common is None
            else {name: min(count, counts[name]) for name, count in common.items() if name in counts}
        )
    common = _still_identical(case, models[0], rows, common or {})
    if not common:
        return []
    layers_text = ", ".join(f"{count} units of {name}" for name, count in common.items())
    return [
        make_finding(
            "symmetric_init",
            None,
            f"{layers_text} equal another unit of their layer on every row, at all of {len(models)} initializations",
            "units with equal incoming and outgoing weights get equal gradients and remain copies",
            "initialize the weights at random (torch.nn.init.kaiming_uniform_)",
            {name: float(count) for name, count in common.items()},
        )
    ]


def _still_identical(case: Case, model: nn.Module, rows: Tensor, counts: dict[str, int]) -> dict[str, int]:
    """Return the counts that remain after a few training steps.

    Units that start equal but feed different weights, such as a router that starts at zero, get different gradients.
    """
    if not counts:
        return {}
    try:
        with guarded(), isolated(model, torch.float64), preserved_rng(0), preserved_loss(case.losses):
            loop = ProbeLoop(case, model, cast_floats(rows, torch.float64), 0, {})
            for _ in loop.reach((SYMMETRIC_STEPS,)):
                pass
            # training that diverged says nothing about symmetry
            after = _identical(case, model, rows[:64], 0) if loop.step == SYMMETRIC_STEPS else {}
    except Exception:  # the case cannot be trained, or not in float64
        return counts
    # a layer that starts at zero is a common device; equal weights that are not zero are none
    started = {
        name for name in counts if any(bool((value != 0).any()) for value in model.get_submodule(name).parameters())
    }
    remaining = {name: count if name in started else min(count, after.get(name, 0)) for name, count in counts.items()}
    return {name: count for name, count in remaining.items() if count}


def _identical(case: Case, model: nn.Module, rows: Tensor, seed: int) -> dict[str, int]:
    """Count, by layer, the units that equal another unit in the layer's own output."""
    layers, copies = layers_of(model), dict[str, int]()
    bottleneck = case.bottleneck

    def count(name: str, output: object) -> None:
        copies.pop(name, None)  # the last call of a layer counts
        copies[name] = _copied(model, name, output, keep_zero=name == bottleneck)

    handles = [m.register_forward_hook(lambda _, __, o, n=name: count(n, o)) for m, name in layers.items()]
    try:
        with guarded(), isolated(model, torch.float64), preserved_rng(seed), eval_mode(model), torch.no_grad():
            model(cast_floats(rows, torch.float64).clone())
    except Exception:  # some models do not run in float64
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
    """Count the columns that equal an earlier column.

    Dead units are not copies of one another. A layer that is all zero (the last of a residual branch) counts only
    with `keep_zero`.
    """
    used = columns[:, (columns != 0).any(0)]
    columns = columns if keep_zero and not used.shape[1] else used
    if columns.shape[1] < 2:
        return 0
    # equal columns have equal weighted sums, so only neighbors in that order are compared
    key = torch.randn(len(columns), generator=torch.Generator().manual_seed(0), dtype=columns.dtype) @ columns
    order = key.argsort()
    near = (columns[:, order[1:]] - columns[:, order[:-1]]).abs().amax(0)
    return int((near <= 1e-12 * columns.abs().max().clamp(min=1e-300)).sum())


def dead_at_birth(case: Case, models: list[nn.Module], rows: Tensor, bounds: AuditThresholds) -> list[Finding]:
    """Find units of the bottleneck that never fire on the data at initialization.

    A unit that a selection or a threshold behind the activation sets to 0 on every row never fires either.
    """
    pairs = [pair for model in models if (pair := _dead_code(case, model, rows)) is not None]
    shares = [share for share, _ in pairs]
    if len(shares) < 1 or sum(shares) / len(shares) <= bounds.dead_share:
        return []
    selected = sum(share - own for share, own in pairs) / len(pairs)
    if sum(own for _, own in pairs) / len(pairs) <= bounds.dead_share and min(shares) < 1.0:
        _check_rows(rows, rows_to_claim())
    mean, low, high = _interval(shares)
    by_selection = selected > mean / 2
    return [
        make_finding(
            "dead_at_birth",
            None,
            f"{mean:.0%} [{low:.0%}, {high:.0%}] of the units of {case.bottleneck} never fire on {len(rows)} rows at"
            f" initialization, over {plural(len(shares), 'seed')} ({', '.join(f'{share:.0%}' for share in shares)})"
            + (
                f"; {selected:.0%} fire at first, and are set to 0 on every row behind the activation"
                if selected
                else ""
            ),
            _no_way_back(all(own == 1.0 for _, own in pairs), by_selection),
            "a lower threshold, or a selection of more units a row"
            if by_selection
            else _revival(case, models, rows, bounds),
            {"share": mean, "low": low, "high": high, "seeds": float(len(shares)), "selected": selected},
        )
    ]


def _no_way_back(whole_code: bool, by_selection: bool) -> str:
    if whole_code:
        return (
            "no unit receives a gradient, so none passes the code: it stays dead unless a term reaches the layers before it in"
            " another way"
        )
    way_back = "such a unit receives no gradient; it can recover only if the layers before it change its inputs"
    return way_back + (", or the units that are selected instead shrink" if by_selection else "")


def _check_rows(rows: Tensor, least: int) -> None:
    """Raise `Undecided` where the distinct rows are too few to tell a unit that is never selected from a rare one."""
    distinct = len(torch.unique(rows.reshape(len(rows), -1), dim=0))
    if distinct < least:
        raise Undecided(
            f"some units are never selected on {distinct} distinct rows; {least} tell dead units from rare ones"
        )


def _revival(case: Case, models: list[nn.Module], rows: Tensor, bounds: AuditThresholds) -> str:
    """Return the changes that can make dead units fire: only those that this model and its inputs leave open."""
    view = bottleneck_pass(case, models[0], rows[:64])
    names = [activation.name for activation in view.activations if activation.is_code]
    biases = [value for name, value in models[0].named_parameters() if name.rpartition(".")[2] == "bias"]
    changes = ["zero biases"] if any(bool((bias != 0).any()) for bias in biases) else []
    if rows.is_floating_point() and _offset(rows) > bounds.offset:
        changes.append("centered inputs")
    changes.append("a normalization before the activation")
    if "relu" in names:
        changes.append("leaky_relu")
    return ", or ".join([", ".join(changes[:-1]), changes[-1]] if len(changes) > 1 else changes)


def _offset(rows: Tensor) -> float:
    """Norm of the inputs' mean, relative to the norm of their standard deviation."""
    flat = rows.reshape(len(rows), -1).to(accumulation_dtype(rows.dtype))
    return float(flat.mean(0).norm() / flat.std(0).norm().clamp(min=1e-30))


def _interval(shares: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % t interval over seeds, within 0 to 1; the interval of one seed is 0 to 1."""
    mean = sum(shares) / len(shares)
    if len(shares) < 2:
        return mean, 0.0, 1.0
    from scipy.special import stdtrit

    deviation = math.sqrt(sum((share - mean) ** 2 for share in shares) / (len(shares) - 1))
    half = float(stdtrit(len(shares) - 1, 0.975)) * deviation / math.sqrt(len(shares))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def _dead_code(case: Case, model: nn.Module, rows: Tensor) -> tuple[float, float] | None:
    """Share of the bottleneck's units that never fire as the next layer reads them, and of those the activation stops.

    None for a code without a state in which a unit is off.
    """
    view, form = _pass_and_form(case, model, rows)
    own = _dead(view, form, len(rows))[0]
    code = view.code
    if code is None or view.packing is not None or view.activation not in RELU_FAMILY or len(code) != len(rows):
        return None if own is None else (own, own)
    silent = _silent(code, form)
    activation = next(
        (entry for entry in view.activations if entry.is_code and entry.result.numel() == code.numel()), None
    )
    if view.activation not in DEAD_BELOW:  # such an activation is 0 at 0 only, with a gradient: a layer of zeros
        return silent - (0.0 if activation is None else _silent(activation.result, form)), 0.0
    own = own if own is not None and activation is not None else 0.0  # the sorted values of a top-k are no units
    return max(silent, own), own


def _pass_and_form(case: Case, model: nn.Module, rows: Tensor) -> tuple[ForwardPass, CodeForm]:
    with layer_before_code(model, case.bottleneck) as layer:
        view = bottleneck_pass(case, model, rows)
    return view, CodeForm(0) if view.code is None else layer.form(view.code)


def _silent(values: Tensor, form: CodeForm) -> float:
    """Share of the units that are 0 on every row, at every position."""
    return float(form.all_positions((flatten_units(values) == 0).all(0)).double().mean())


def _dead(view: ForwardPass, form: CodeForm, rows: int) -> tuple[float | None, float | None]:
    """Share of the bottleneck's units, and of all ReLU units, that their activation never lets fire; None without any.

    Outside the bottleneck every number counts.
    """
    code, dead = None, []
    for activation in view.activations:
        if activation.name in DEAD_BELOW and activation.entered.dim() >= 2 and len(activation.entered) == rows:
            never = ~(activation.entered.reshape(rows, -1) > DEAD_BELOW[activation.name]).any(0)
            if activation.is_code:
                code = float(_of_units(never, form).float().mean())
            dead.append(float(never.float().mean()))
    return code, (sum(dead) / len(dead) if dead else None)


def _of_units(numbers: Tensor, form: CodeForm) -> Tensor:
    """Return what holds for all positions of a unit, where the numbers are those of the code."""
    return form.all_positions(numbers) if len(numbers) == form.units * form.positions else numbers


def _mean_dead(case: Case, models: list[nn.Module], rows: Tensor) -> tuple[float, float]:
    """Mean over models of the dead share of the bottleneck's units and of all ReLU units; NaN without such units."""
    pairs = [_dead(*_pass_and_form(case, model, rows), len(rows)) for model in models]
    means = []
    for position in (0, 1):
        shares = [share for pair in pairs if (share := pair[position]) is not None]
        means.append(sum(shares) / len(shares) if shares else math.nan)
    return means[0], means[1]


def input_offset(case: Case, models: list[nn.Module], rows: Tensor, bounds: AuditThresholds) -> list[Finding]:
    """Find inputs with a mean so large relative to their spread that units are dead, and alive once centered."""
    if not rows.is_floating_point():
        return []  # tokens have no mean
    ratio = _offset(rows)
    if ratio <= bounds.offset:
        return []
    code_share, dead_share = _mean_dead(case, models, rows)
    centered_code, centered_share = _mean_dead(case, models, rows - rows.mean(0))
    if not dead_share - centered_share > bounds.offset_dead:  # NaN where no unit can be dead
        return []
    kills_code = code_share - centered_code > bounds.offset_dead
    severity = None if kills_code or dead_share - centered_share > bounds.dead_share else Severity.NOTE
    return [
        make_finding(
            "input_offset",
            None,
            f"||mean|| / ||sd|| of the inputs is {ratio:.2f}; {dead_share:.1%} of all ReLU units never fire at initialization,"
            f" {centered_share:.1%} once the inputs are centered",
            "the offset determines the sign of most pre-activations, so units are on or off for all rows",
            "subtract the mean of the training rows from the inputs",
            {"ratio": ratio, "dead": dead_share, "dead_centred": centered_share},
            severity,
        )
    ]
