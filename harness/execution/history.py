"""History of a stack: measures of every snapshot on a few fixed held-out rows, with information, R2 and gradients at a
few snapshots.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.capture.code_form import CodeForm
from harness.data.rows import Rows, Split
from harness.loss_terms import step_values
from harness.measures import (
    activation_frequency,
    effective_rank,
    entropy_bits,
    has_off_state,
    informations,
    is_constant,
    mean,
    r2_from_sse,
    standard_deviation,
    sum_squared_error,
)
from harness.measures.unit_table import scale_of
from harness.minibatches import batch_bounds
from harness.planning.cost import SHOWN_SNAPSHOTS, SHOWN_UNITS
from harness.results.snapshot_schedule import log_spaced
from harness.training import Snapshot
from harness.training.program import BottleneckView
from harness.training.stacked import Keep

MONITORED_ROWS = 256  # during training; the final diagnosis takes more held-out rows
FINAL_BATCHES = 16


class History:
    """History of a stack.

    Args:
        members: number of members; the rest of the stack is padding.
        split: its rows.
        numbers: training numbers.
        device: device of the stack.
    """

    def __init__(self, members: int, split: Split, numbers: Mapping[str, Any], device: str) -> None:
        self.members, self.numbers, self.device = members, numbers, device
        self.rows = few_rows(split.evaluation, MONITORED_ROWS)
        self.inputs = self.rows.inputs.to(device)
        self.batch = split.train.inputs[: numbers["batch_size"]].to(device)
        targets = split.train.targets
        self.targets = None if targets is None else targets[: numbers["batch_size"]]
        epochs, every = numbers["epochs"], numbers["snapshot_every"]
        self.informed = log_spaced(list(dict.fromkeys((0, *range(every, epochs + 1, every), epochs))), SHOWN_SNAPSHOTS)
        self.series: dict[str, list[Tensor]] = {}
        self.unit_series: dict[str, list[Tensor]] = {}

    def add(self, snapshot: Snapshot) -> None:
        """Measure one snapshot."""
        closely = snapshot.epoch in self.informed
        keep = squared_errors(self.rows, self.members, self.device) if closely or snapshot.last else None
        view = snapshot.engine.observe(self.inputs, keep=keep)
        code = view.code[: self.members].cpu()
        scale = None if view.scale is None else view.scale[: self.members].cpu()
        self._keep("step", torch.full((self.members,), float(snapshot.step)))
        self._keep("epoch", torch.full((self.members,), float(snapshot.epoch)))
        for name, value in snapshot.losses.items():
            self._keep(f"loss/{name}", value)
        self._keep_gradients(snapshot, closely)
        broken = ~code.isfinite().all(dim=-1).all(dim=-1)
        code[broken] = 0.0  # non-finite codes are measured as zeros and set to NaN below
        precision = snapshot.engine.precision
        constant = is_constant(code, dtype=precision, scale=scale_of(view.activation, scale, code, precision))
        live = ~view.form.all_positions(constant)
        # as in the diagnosis
        live &= ~view.form.all_positions(is_constant(view.raw[: self.members].cpu(), dtype=precision))
        code = view.form.rows(code)
        self._keep("live_units", live.sum(dim=-1))
        self._keep("effective_rank", _unless(broken, effective_rank(code)))
        self._keep_r2(view.parts)
        self._keep_units(code, live, broken, view, closely and not snapshot.last)

    def _keep_r2(self, errors: Sequence[Tensor]) -> None:
        if errors:
            self._keep("r2", r2_from_sse(sum(errors[1:], start=errors[0]), self.rows.reference.flatten(1)))
        else:
            self._keep_missing("r2")

    def _keep_gradients(self, snapshot: Snapshot, closely: bool) -> None:
        if closely:
            for name, value in self._gradients(snapshot).items():
                self._keep(f"gradient/{name}", value)
        else:
            self._keep_missing("gradient/")

    def _keep_missing(self, prefix: str) -> None:
        """Record NaN at the snapshots that are not examined closely."""
        for name in [name for name in self.series if name.startswith(prefix)]:
            self._keep(name, torch.full((self.members,), torch.nan))

    def conclude(self, diagnoses: Sequence[Any]) -> None:
        """Replace the mutual information of the last snapshot by that of the diagnosis."""
        for name, series in self.unit_series.items():
            measure, _, reference = name.partition("/")
            if measure == "mutual_information":
                shared = [[_shared(unit, reference) for unit in diagnosis.units] for diagnosis in diagnoses]
                series[-1] = torch.tensor(shared, dtype=torch.float64)

    def by_member(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Yield each member's history, name -> one value per snapshot, and its units', measure -> [snapshot][unit]."""
        series, units = _by_member(self.series), _by_member(self.unit_series)
        for member in range(self.members):
            yield (
                {name: values[member] for name, values in series.items()},
                {name: values[member] for name, values in units.items()},
            )

    def live(self, member: int, diagnosis: Any) -> list[bool]:
        """Return, per unit, True if the diagnosis calls it live at the end."""
        return [unit.live for unit in diagnosis.units]

    def died_at(self, member: int, live: list[bool]) -> list[int | None]:
        """Return the step since which each unit has been constant; None for a unit that is live at the end."""
        alive = torch.stack([values[member] for values in self.unit_series["live"]]) > 0
        steps = [int(values[member]) for values in self.series["step"]]
        return [None if living else _since(alive[:, unit], steps) for unit, living in enumerate(live)]

    def final_losses(self, snapshot: Snapshot, evaluation: Rows) -> dict[str, Tensor]:
        """Average the loss terms over held-out batches of the training size, `[member]` each."""
        bounds = batch_bounds(len(evaluation), self.numbers["batch_size"])
        bounds = [bound for bound in bounds if bound[1] - bound[0] == bounds[0][1] - bounds[0][0]]
        chosen = bounds[:: max(1, -(-len(bounds) // FINAL_BATCHES))]
        parts = [self._losses(snapshot, evaluation, slice(*bound)) for bound in chosen]
        # one after the other: torch's mean adds in an order that depends on the number of members
        return {name: sum((part[name] for part in parts[1:]), start=parts[0][name]) / len(parts) for name in parts[0]}

    def _losses(self, snapshot: Snapshot, evaluation: Rows, part: slice) -> dict[str, Tensor]:
        batch = self._per_member(snapshot, evaluation.inputs[part])
        targets = None if evaluation.targets is None else evaluation.targets[part]
        losses = snapshot.engine.losses(batch, self._extras(snapshot, targets))
        return {name: value[: self.members].cpu() for name, value in losses.items()}

    def _gradients(self, snapshot: Snapshot) -> dict[str, Tensor]:
        batch = self._per_member(snapshot, self.batch)
        return snapshot.engine.gradients(batch, self._extras(snapshot, self.targets))

    def _per_member(self, snapshot: Snapshot, rows: Tensor) -> Tensor:
        return rows.to(self.device).expand(self._stack_size(snapshot), *rows.shape)

    def _extras(self, snapshot: Snapshot, targets: Tensor | None) -> dict[str, Any]:
        target = None if targets is None else self._per_member(snapshot, targets)
        return step_values(target, snapshot.step, snapshot.progress)

    def _stack_size(self, snapshot: Snapshot) -> int:
        return len(snapshot.diverged)

    def _keep(self, name: str, value: Tensor) -> None:
        self.series.setdefault(name, []).append(value[: self.members].detach().cpu())

    def _keep_units(self, code: Tensor, live: Tensor, broken: Tensor, view: BottleneckView, informed: bool) -> None:
        activation = view.activation
        frequency = activation_frequency(code, activation) if has_off_state(activation) else code[..., 0, :] * torch.nan
        measures = {
            "activation_frequency": frequency,
            "mean": mean(code),
            "standard_deviation": standard_deviation(code),
            "entropy_bits": entropy_bits(code, activation),
            "live": live,
            **self._information(code, view.form, informed),
        }
        for name, value in measures.items():
            marked = value if name == "live" else _unless(broken[:, None], value.detach().double())
            self.unit_series.setdefault(name, []).append(marked.double())

    def _information(self, code: Tensor, form: CodeForm, informed: bool) -> dict[str, Tensor]:
        """Return mutual information with each reference, and `mutual_information` itself: labels, else the largest factor.

        NaN for units past the first few.
        """
        references = {**({} if self.rows.labels is None else {"labels": self.rows.labels}), **self.rows.factors}
        if not references:
            return {}
        unknown = torch.full((self.members, code.shape[-1]), torch.nan, dtype=torch.float64)
        shares = dict.fromkeys(references, unknown)
        if informed:
            references = {name: form.repeat_samples(values) for name, values in references.items()}
            shared = informations(code[..., :SHOWN_UNITS], references)
            shares = {
                name: torch.cat([information, unknown[:, SHOWN_UNITS:]], -1) for name, information in shared.items()
            }
        best = shares["labels"] if "labels" in shares else torch.stack(list(shares.values())).amax(dim=0)
        return {**{f"mutual_information/{name}": value for name, value in shares.items()}, "mutual_information": best}


def _by_member(series: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack(list(values), dim=1).double() for name, values in series.items()}


def _unless(broken: Tensor, value: Tensor) -> Tensor:
    return torch.where(broken, torch.nan, value)


def _shared(unit: Any, reference: str) -> float:
    if unit.index >= SHOWN_UNITS or (reference and reference not in unit.references):  # a non-finite unit has none
        return torch.nan
    return float(unit.references[reference].mutual_information if reference else unit.mutual_information)


def squared_errors(rows: Rows, members: int, device: str) -> Keep:
    """Return the function that sums the squared errors of the reconstruction, which is too large to store, part by part.

    The parts are consecutive rows from the first on; they are compared with `rows.reference`.
    """
    reference, position = rows.reference.to(device), 0

    def keep(reconstruction: Tensor, part: Tensor) -> Tensor:
        nonlocal position
        expected = reference[position : position + len(part)].flatten(1)
        position += len(part)
        return sum_squared_error(reconstruction, expected)[:members].cpu()

    return keep


def few_rows(rows: Rows, most: int) -> Rows:
    """Return at most `most` rows, evenly spaced."""
    return rows if len(rows) <= most else rows.take(torch.linspace(0, len(rows) - 1, most).long())


def _since(alive: Tensor, steps: list[int]) -> int:
    living = alive.nonzero()[:, 0]
    last = int(living[-1]) if len(living) else -1
    return steps[min(last + 1, len(steps) - 1)]
