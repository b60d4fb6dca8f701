"""Tables of what a monitor has recorded."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.watching.layer_window import LayerWindow

if TYPE_CHECKING:
    from pandas import DataFrame


def history_frame(windows: Iterable[LayerWindow]) -> "DataFrame":
    """Return one row per layer, step and unit."""
    import pandas

    frames = []
    for window in windows:
        steps = window.history.steps()
        if steps is None:
            continue
        count, units = steps.mean.shape
        frame = pandas.DataFrame(
            {
                "layer": window.name,
                "step": np.repeat(steps.step, units),
                "unit": np.tile(np.arange(units), count),
                **{name: getattr(steps, name).reshape(-1) for name in MEASURES},
            }
        )
        for term in dict.fromkeys(term for gradients in steps.gradients for term in gradients):
            missing = np.full(units, np.nan)
            norms = [gradients[term].cpu().numpy() if term in gradients else missing for gradients in steps.gradients]
            frame[f"gradient/{term}"] = np.concatenate(norms)
        frames.append(frame)
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=COLUMNS)


def unit_frame(windows: Iterable[LayerWindow]) -> "DataFrame":
    """Return one row per layer and unit, over the whole training."""
    import pandas

    frames = []
    for window in windows:
        record = window.record
        if record is None:
            continue
        columns: dict[str, Any] = {
            "layer": window.name,
            "unit": range(record.units),
            "rows": record.rows,
            "activation_frequency": record.frequency(window.activation),
            "mean": record.mean,
            "sd": record.standard_deviation,
            "last_active": record.active_step,
            "dead": record.dead,
        }
        frame = pandas.DataFrame(columns)
        for name, steps in (("death", record.death), ("revival", record.revival)):
            frame[name] = pandas.array(steps, dtype="Int64")
            frame.loc[frame[name] < 0, name] = pandas.NA
        frame["revivals"] = record.revivals
        frames.append(frame)
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=UNIT_COLUMNS)


def histogram_frame(windows: Iterable[LayerWindow], bins: int) -> "DataFrame":
    """Return one row per layer, unit and bin, over the rows of the last window."""
    import pandas

    frames = []
    for window in windows:
        rows = window.window.rows()
        if not rows:
            continue
        values = rows["values"].float().numpy()
        units = np.arange(values.shape[1]) if window.window.sampled is None else window.window.sampled.numpy()
        histograms = [np.histogram(column[np.isfinite(column)], bins) for column in values.T]
        edges = np.stack([unit_edges for _, unit_edges in histograms])
        frame = pandas.DataFrame(
            {
                "layer": window.name,
                "unit": np.repeat(units, bins),
                "low": edges[:, :-1].reshape(-1),
                "high": edges[:, 1:].reshape(-1),
                "rows": np.concatenate([counts for counts, _ in histograms]),
            }
        )
        frames.append(frame)
    return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=HISTOGRAM_COLUMNS)


MEASURES = ("activation_frequency", "mean", "sd", "dead")
COLUMNS = ("layer", "step", "unit", *MEASURES)
HISTOGRAM_COLUMNS = ("layer", "unit", "low", "high", "rows")
UNIT_COLUMNS = (
    *("layer", "unit", "rows", "activation_frequency", "mean", "sd", "last_active", "dead", "death", "revival"),
    "revivals",
)
