"""Diagnosis of the last window of a watched layer."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from harness.diagnosis import Diagnosis, Finding, Severity, Thresholds, diagnose
from harness.diagnosis.units import Flag
from harness.watching.layer_names import axis_finding, has_fixed_rows
from harness.watching.layer_window import LayerWindow
from harness.watching.row_window import MOST_UNITS


def diagnose_window(window: LayerWindow, target: float | None, thresholds: Thresholds) -> Diagnosis:
    """Diagnose the rows of the window, and add findings on what the whole training adds to them."""
    rows = window.window.rows()
    sample = rows["sample"]
    several = len(sample.unique()) < len(sample)  # rows of one sample
    diagnosis: Diagnosis = diagnose(
        rows["values"],
        activation=window.activation,
        labels=rows.get("labels"),
        target=target,
        thresholds=thresholds,
        blocks=sample if several else None,
        positions=None if has_fixed_rows(window.module) else rows["place"],
    )
    # a quantizer's codes move with its weights: those of several steps are more than it has
    measures = {name: value for name, value in diagnosis.measures.items() if name not in ("codes_in_use", "perplexity")}
    diagnosis = replace(diagnosis, measures=measures)
    if window.window.sampled is not None:
        diagnosis = with_own_units(diagnosis, window.window.sampled)
    record = window.record
    notes = (
        *window.balance.findings(window.name),
        units_sampled(record.fired, record.rows) if window.window.sampled is not None and record is not None else None,
        _revived_finding(window),
        undeclared_posterior(window.name) if window.noise else None,
        axis_finding(
            window.shape, window.axis, window.declared is not None, window.calls, window.masked, window.packed
        ),
    )
    return replace(diagnosis, findings=(*diagnosis.findings, *(note for note in notes if note is not None)))


def with_own_units(diagnosis: Diagnosis, sampled: Tensor) -> Diagnosis:
    """Return the diagnosis of some units under their numbers in the layer."""
    numbers = sampled.tolist()
    units = tuple(
        replace(
            unit,
            index=numbers[unit.index],
            flags=tuple(_with_own_copy(flag, numbers) for flag in unit.flags),
        )
        for unit in diagnosis.units
    )
    findings = tuple(
        replace(finding, units=tuple(numbers[unit] for unit in finding.units)) for finding in diagnosis.findings
    )
    return replace(diagnosis, units=units, findings=findings)


def _with_own_copy(flag: Flag, numbers: list[int]) -> Flag:
    """Return the flag with the copied unit's number in the layer."""
    return Flag(f"{flag.name}={numbers[int(flag.argument)]}") if flag.name == "duplicate_of" and flag.argument else flag


def units_sampled(fired: Any, rows: int) -> Finding:
    """Return the note on a layer that is too wide to keep all its units.

    Args:
        fired: number of rows on which each unit fired.
        rows: number of rows.
    """
    silent = int((fired == 0).sum())
    return Finding(
        "units_sampled",
        Severity.NOTE,
        f"{MOST_UNITS} of {len(fired)} units are judged, evenly spaced; of all units, {silent} never fired in {rows} rows",
        "verdicts, copies and ranks are those of the judged units",
        numbers={"units": float(len(fired)), "judged": float(MOST_UNITS), "never_fired": float(silent)},
    )


def undeclared_posterior(layer: str) -> Finding:
    """Return the finding on noise that the model draws behind the layer."""
    return Finding(
        "undeclared_posterior",
        Severity.RISK,
        f"the model draws Gaussian noise of the shape of {layer}'s output behind it, and no posterior is named",
        "the mean of a collapsed posterior still varies a little, so the mean alone cannot show posterior collapse",
        'name the output with the log-variances in diagnose_model: posterior="out:2"',
    )


def _revived_finding(window: LayerWindow) -> Finding | None:
    record = window.record
    if record is None or not (record.revivals > 0).any():
        return None
    units = tuple(((record.revivals > 0) & ~record.dead).nonzero()[0].tolist())
    if not units:
        return None
    first = units[0]
    return Finding(
        "revived",
        Severity.NOTE,
        f"{len(units)} of {record.units} units were dead and are active again; unit {first} was silent after step "
        f"{int(record.death[first])} and fired at step {int(record.revival[first])}",
        "a unit that was silent for a whole window is not lost for good",
        units=units,
        numbers={"revived": float(len(units))},
    )
