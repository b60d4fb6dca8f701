"""Rules on rows: outputs that follow other rows, and terms that do not pair an output with its own row."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.auditing.audit_thresholds import AuditThresholds
from harness.auditing.dependencies import ROUNDING, TermProbe, Undecided
from harness.auditing.findings import loss_source, make_finding
from harness.auditing.probe import LossProbe, differs
from harness.auditing.probe_values import random_values
from harness.auditing.trace import TracedOperation
from harness.capture import eval_mode, flatten_units, outputs_of, reconstruction_of
from harness.capture.outputs import with_replaced
from harness.capture.tensor_map import TensorMap
from harness.diagnosis.finding import Finding
from harness.diagnosis.severity import Severity

ROWS = 16  # rows that are changed one at a time
DIRECTIONS = 2  # in which every row is moved
MARGIN = 1.01  # another row must move the output by this factor more than the row itself
WEAK = 1e-3  # of the output's standard deviation: a weaker influence of other rows is not reported
PERMUTATIONS = 3
UNCHANGED = 1e-6  # relative
SIZES = (1.0, 3.0, 10.0, 30.0, 100.0, 1e3)  # of random outputs of both signs


def mixed_rows(probe: LossProbe, bounds: AuditThresholds) -> list[Finding]:
    """Find outputs that follow another row of the batch more than their own row, in eval mode."""
    rows = probe.batch[:ROWS]
    if len(rows) < 4:
        raise Undecided(f"expected at least 4 rows, got {len(rows)}")
    with eval_mode(probe.model), torch.no_grad():
        output = _row_outputs(probe, rows)
        spread = float((output - output.mean(0)).pow(2).sum(1).mean().sqrt())
        tolerance = ROUNDING.get(probe.dtype, 0.05) * max(spread, float(output.norm(dim=1).mean()))
        if float((_row_outputs(probe, rows) - output).norm(dim=1).max()) > tolerance:
            raise Undecided("the output differs between two equal passes in eval mode")
        influence = _influence(probe, rows, output)
    own = influence.diagonal()
    strongest, changed = (influence - torch.diag(own)).max(1)
    stronger = (strongest > MARGIN * own) & (strongest > tolerance)
    share, largest = float(stronger.double().mean()), float(strongest.max())
    if share <= 0.5 and largest <= max(WEAK * spread, tolerance):
        return []
    in_sequence = _earlier_rows_only(influence, tolerance)
    row = int((strongest - own).argmax()) if share > 0.5 else int(strongest.argmax())
    numbers = {"share": share, "own": float(own[row]), "other": float(strongest[row]), "spread": spread}
    example = f"row {row} moves by {float(strongest[row]):.3g} with row {int(changed[row])} and by {float(own[row]):.3g} with itself"
    if share > 0.5:
        return [
            make_finding(
                "mixed_rows",
                None,
                f"in eval mode, {int(stronger.sum())} of {len(rows)} rows have an output that follows another row of the"
                f" batch more than the row itself, both changed by as much ({example})",
                "an output is computed from the values of other rows, so the model cannot learn to reproduce its own row",
                "keep the rows on the first axis: `states.transpose(0, 1).reshape(len(rows), -1)` instead of"
                " `states.view(len(rows), -1)`, and batch_first=True",
                numbers,
            )
        ]
    if in_sequence:
        return [
            make_finding(
                "mixed_rows",
                None,
                f"in eval mode, an output follows the rows before it in the batch and no row after it ({example}): the rows are"
                " read as the steps of a sequence",
                "a recurrent layer runs over the batch, so an output depends on which rows come before its own",
                "batch_first=True for rows on the first axis, or transpose the rows before and after the recurrent layer",
                {**numbers, "earlier": in_sequence},
                severity=Severity.RISK,
            )
        ]
    return [
        make_finding(
            "mixed_rows",
            None,
            f"in eval mode, an output moves by up to {largest:.3g} when another row of the batch changes"
            f" (its standard deviation is {spread:.3g}; {example})",
            "an output depends on the batch that its row is in, so results depend on the batch size",
            "evaluate in batches of the training size, if this is by design (attention over the batch, BatchTopK)",
            numbers,
            severity=Severity.NOTE,
        )
    ]


def _earlier_rows_only(influence: Tensor, tolerance: float) -> float:
    """Return the share of rows that follow the row just before them, if no row follows a later one; else 0."""
    later = torch.triu(influence, 1)
    previous = influence.diagonal(-1)
    if float(later.max()) > tolerance:
        return 0.0
    share = float((previous > tolerance).double().mean())
    return share if share > 0.5 else 0.0


def _row_outputs(probe: LossProbe, rows: Tensor) -> Tensor:
    """Return the declared output, or all outputs with one entry per row, as `[sample, number]`."""
    outputs = probe.forward(rows).outputs[0]
    declared = reconstruction_of(outputs, rows, probe.case.reconstruction)
    candidates = outputs if declared is None else (declared,)
    values = [
        flatten_units(output).to(probe.dtype)
        for output in candidates
        if isinstance(output, Tensor) and output.dim() and len(output) == len(rows) and output.is_floating_point()
    ]
    if not values:
        raise Undecided("no output of the model has one entry per row")
    return torch.cat(values, 1)


def _influence(probe: LossProbe, rows: Tensor, output: Tensor) -> Tensor:
    """Return `[row, changed row]`: distance by which a row's output moves, all rows being changed by the same step."""
    squares = torch.zeros(len(rows), len(rows), dtype=output.dtype)
    for direction in range(DIRECTIONS):
        draw = torch.Generator().manual_seed(direction)
        if rows.is_floating_point():
            signs = torch.randint(0, 2, rows.shape[1:], generator=draw).to(rows) * 2 - 1
            moved_rows = rows + signs * rows.std(0, correction=0)
        else:
            moved_rows = rows.roll(1 + direction, 0)  # tokens have no steps, so another row is put there
        for changed in range(len(rows)):
            batch = rows.clone()
            batch[changed] = moved_rows[changed]
            squares[:, changed] += (_row_outputs(probe, batch) - output).pow(2).sum(1).cpu()
    return (squares / DIRECTIONS).sqrt()


def unpaired_rows(subject: TermProbe, operations: list[TracedOperation], bounds: AuditThresholds) -> list[Finding]:
    """Find a term that compares the declared output with the batch, but not row by row."""
    probe, term = subject.probe, subject.term
    if probe.dtype != torch.float64 or len(probe.batch) < 4:
        raise Undecided(f"expected 4 rows in float64, got {len(probe.batch)} in {probe.dtype}")
    with _replaced_output(probe, lambda output: output) as calls:
        base = probe.evaluate().value(term)
    if not calls:
        return []  # the loss calls the parts of the model itself, or no output is the reconstruction
    if not _is_invariant(subject) or not _compares_output_with_batch(subject, base):
        return []
    comparison = _Comparison(len(probe.batch))
    with _replaced_output(probe, comparison.follow), comparison:
        probe.evaluate()
    if comparison.reference is None:
        return []
    reference, shape = comparison.reference, comparison.output_shape
    paired = _value_at(subject, lambda output: reference.reshape(output.shape))
    constant = _value_at(subject, lambda output: reference.reshape(output.shape).mean(0).expand_as(output))
    if not _stays(subject, lambda output: reference.reshape(output.shape), paired, max(abs(paired), abs(constant))):
        return []
    numbers = {"value": base, "at_reference": paired, "at_mean": constant}
    evidence = (
        f"{term} stays {base:.4g} when the rows of the output are permuted, {PERMUTATIONS} times;"
        f" the output is {list(shape)} and is compared with {list(reference.shape)}"
    )
    if constant < paired - UNCHANGED * abs(paired):
        return [
            make_finding(
                "unpaired_rows",
                term,
                f"{evidence}, and {term} is {constant:.4g} at the mean of all rows, less than {paired:.4g} at the right output"
                " of every row",
                "every output is compared with all rows, so the best output is their mean",
                "give both the same shape, such as `output.squeeze(1)` or `target.unsqueeze(1)`",
                numbers,
                source=loss_source(probe.case),
            )
        ]
    return [
        make_finding(
            "unpaired_rows",
            term,
            f"{evidence}; it is not smaller at a constant output",
            "the term compares distributions or sets, not every row with its own output",
            "nothing to do, if that is intended",
            numbers,
            severity=Severity.NOTE,
        )
    ]


def _is_invariant(subject: TermProbe) -> bool:
    """Return True if the term follows the output, and no permutation of the output's rows changes it.

    Every entry is first multiplied by a random factor below 1: the rows of a constant output would be equal. Outputs of
    both signs are tried too: an absolute error does not change while all outputs lie on one side of the targets.
    """

    def uneven(output: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(PERMUTATIONS)
        return output * (0.5 + 0.5 * torch.rand(output.shape, generator=draw, dtype=torch.float64)).to(output)

    base = _value_at(subject, uneven)
    if not _stays(subject, uneven, base, abs(base)):
        return False
    if not abs(_value_at(subject, lambda output: uneven(output) * 0.5) - base) > UNCHANGED * abs(base):
        return False
    return all(_stays_at_size(subject, size) for size in SIZES)


def _stays_at_size(subject: TermProbe, size: float) -> bool:
    """Return False if a permutation of random outputs changes the term; True where the term is not defined there."""

    def drawn(output: Tensor) -> Tensor:
        return size * random_values(output, "none", seed=PERMUTATIONS)

    try:
        base = _value_at(subject, drawn)
    except Exception:  # the loss refuses these outputs, such as a cross entropy outside 0 to 1
        return True
    return not math.isfinite(base) or _stays(subject, drawn, base, abs(base))


def _stays(subject: TermProbe, make: Callable[[Tensor], Tensor], base: float, size: float) -> bool:
    """Return True if the term at an output stays `base`, relative to `size`, when the output's rows are permuted."""
    for seed in range(PERMUTATIONS):
        order = torch.randperm(len(subject.probe.batch), generator=torch.Generator().manual_seed(seed))
        permuted = _value_at(subject, lambda output, order=order: make(output)[order])  # type: ignore[misc]
        if not abs(permuted - base) <= UNCHANGED * size:
            return False
    return True


def _value_at(subject: TermProbe, change: Callable[[Tensor], Tensor]) -> float:
    """Return the term with a changed output."""
    with _replaced_output(subject.probe, change):
        return subject.probe.evaluate().value(subject.term)


def _compares_output_with_batch(subject: TermProbe, base: float) -> bool:
    """Return True if the term follows the batch while all outputs of the model are held."""
    probe = subject.probe
    outputs: list[Any] = []

    def record(module: nn.Module, args: object, output: Any) -> None:
        outputs.append(output)

    handle = probe.model.register_forward_hook(record)
    try:
        probe.evaluate()
    finally:
        handle.remove()
    replay = iter(outputs)
    handle = probe.model.register_forward_hook(lambda *_: next(replay))
    try:
        moved = probe.evaluate(batch=differs(probe.batch, lambda rows: rows * 0.5 + 0.3 * rows.flip(0) + 0.1))
    finally:
        handle.remove()
    return abs(moved.value(subject.term) - base) > UNCHANGED * abs(base)


@contextmanager
def _replaced_output(probe: LossProbe, change: Callable[[Tensor], Tensor]) -> Iterator[list[int]]:
    """Replace the declared output in every call of the model; yield a list with one entry per call."""
    calls: list[int] = []

    def hook(module: nn.Module, args: object, output: Any) -> Any:
        outputs = outputs_of(output)
        declared = _declared_output(probe, outputs)
        if declared is None:
            return None
        calls.append(len(calls))
        replacements = TensorMap[Tensor]()
        replacements[declared] = change(declared)
        return with_replaced(output, replacements)

    handle = probe.model.register_forward_hook(hook)
    try:
        yield calls
    finally:
        handle.remove()


def _declared_output(probe: LossProbe, outputs: tuple[Any, ...]) -> Tensor | None:
    """Return the reconstruction, or the only output of a model without one; None if it has no entry per row."""
    declared = reconstruction_of(outputs, probe.batch, probe.case.reconstruction)
    if declared is None and len(outputs) == 1 and isinstance(outputs[0], Tensor):
        declared = outputs[0]
    if declared is None or not declared.is_floating_point():
        return None
    return declared if declared.dim() and len(declared) == len(probe.batch) else None


class _Comparison(TorchFunctionMode):
    """Watch for the first call that takes a tensor made from the output and one of as many numbers that is not."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.size = rows, 0
        self.reference: Tensor | None = None
        self.output_shape: torch.Size = torch.Size()
        self._from_output: dict[int, Tensor] = {}  # the tensors are kept: an id is unique only while its tensor lives

    def follow(self, output: Tensor) -> Tensor:
        """Follow a copy of the output."""
        copy = output.clone()
        self.size = output.numel()
        self._from_output[id(copy)] = copy
        return copy

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)]
        outputs = [tensor for tensor in tensors if id(tensor) in self._from_output]
        if outputs:
            if self.reference is None:
                self._compare(outputs[0], tensors)
            for value in result if isinstance(result, tuple | list) else (result,):
                if isinstance(value, Tensor):
                    self._from_output[id(value)] = value
        return result

    def _compare(self, output: Tensor, tensors: list[Tensor]) -> None:
        for tensor in tensors:
            if (
                id(tensor) not in self._from_output
                and tensor.is_floating_point()
                and tensor.numel() == output.numel() == self.size
                and self.rows in tensor.shape
            ):
                self.reference, self.output_shape = tensor.detach().clone(), output.shape
                return
